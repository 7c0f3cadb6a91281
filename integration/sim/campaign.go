package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A campaign is many runs, of seeds one after the other, on all cores.
type campaign struct {
	machine  *machine
	first    uint64
	runs     int           // 0: until the time is up
	limit    time.Duration // 0: until all runs are done
	args     []string      // the guest's, of every run
	stopAt   int           // failures that end it; 0: none does
	progress func(*campaign)

	mu       sync.Mutex
	began    time.Time
	next     int
	done     int
	virtual  time.Duration
	covered  map[string]int // what, in how many runs
	total    map[string]int // what, how often
	failures []run
}

// run makes the runs.
func (c *campaign) run(ctx context.Context) {
	c.began, c.covered, c.total = time.Now(), map[string]int{}, map[string]int{}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for c.take(ctx) {
			}
		})
	}
	wg.Wait()
	slices.SortFunc(c.failures, func(a, b run) int { return int(a.seed) - int(b.seed) })
}

// take makes the next run, and reports whether there was one.
func (c *campaign) take(ctx context.Context) bool {
	c.mu.Lock()
	i := c.next
	over := c.runs > 0 && i >= c.runs || c.limit > 0 && time.Since(c.began) > c.limit ||
		c.stopAt > 0 && len(c.failures) >= c.stopAt || ctx.Err() != nil
	c.next++
	c.mu.Unlock()
	if over {
		return false
	}
	r := c.machine.run(ctx, c.first+uint64(i), c.args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	c.virtual += r.virtual
	for what, n := range r.covered {
		c.total[what] += n
		if n > 0 {
			c.covered[what]++
		}
	}
	if r.failed != "" {
		c.failures = append(c.failures, r)
	}
	if c.progress != nil {
		c.progress(c)
	}
	return true
}

// summary says what the runs came to.
func (c *campaign) summary() string {
	took := time.Since(c.began)
	return fmt.Sprintf("%d runs from seed %d, %.2f virtual hours, in %v: %.1f runs/s, %.1f on each of %d cores; %d failed",
		c.done, c.first, c.virtual.Hours(), took.Round(time.Second), float64(c.done)/took.Seconds(),
		float64(c.done)/took.Seconds()/float64(runtime.GOMAXPROCS(0)), runtime.GOMAXPROCS(0), len(c.failures))
}

// coverage prints what was reached, how often and in how many runs, and what never was.
func (c *campaign) coverage(to io.Writer) {
	var never []string
	for _, what := range slices.Sorted(maps.Keys(c.total)) {
		if c.total[what] == 0 {
			never = append(never, what)
			continue
		}
		fmt.Fprintf(to, "%10d in %6d runs  %s\n", c.total[what], c.covered[what], what)
	}
	fmt.Fprintf(to, "\nnever: %s\n", strings.Join(never, "; "))
}

// repeats is the command that repeats a run.
func repeats(r *run, args []string) string {
	s := fmt.Sprintf("make sim RUNS=1 SEED=%d", r.seed)
	if len(args) > 0 {
		s += fmt.Sprintf(" GUEST='%s'", strings.Join(args, " "))
	}
	return s
}

// shrink leaves faults out of a run that failed as long as it fails without them, and
// returns the run that is left and its arguments. Only whether it fails counts, not
// how: another failure is as good.
func (m *machine) shrink(ctx context.Context, r run, args []string) (run, []string) {
	skipped := map[int]bool{}
	with := func() []string {
		var s []string
		for _, i := range slices.Sorted(maps.Keys(skipped)) {
			s = append(s, strconv.Itoa(i))
		}
		if len(s) == 0 {
			return args
		}
		return append(slices.Clone(args), "-skip", strings.Join(s, ","))
	}
	for size := (r.faults + 1) / 2; size > 0; size /= 2 {
		for from := 0; from < r.faults && ctx.Err() == nil; from += size {
			var tried []int
			for i := from; i < min(from+size, r.faults); i++ {
				if !skipped[i] {
					skipped[i] = true
					tried = append(tried, i)
				}
			}
			if len(tried) == 0 {
				continue
			}
			if less := m.run(ctx, r.seed, with()...); less.failed != "" {
				less.faults = r.faults
				r = less
				continue
			}
			for _, i := range tried {
				delete(skipped, i)
			}
		}
	}
	return r, with()
}

// story is a run's trace without what is for the program.
func story(r *run) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(r.trace) {
		if line[0] != '=' {
			b.Write(line)
		}
	}
	return b.Bytes()
}
