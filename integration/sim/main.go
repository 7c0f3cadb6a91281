package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"
)

func main() {
	seed := flag.Uint64("seed", 0, "of the first run; 0: drawn")
	runs := flag.Int("runs", 0, "how many, one seed after the other; 0: until the time is up")
	limit := flag.Duration("time", 0, "when to stop; 0: when the runs are done")
	guest := flag.String("guest", "", "arguments of the guest, as a failure prints them")
	stop := flag.Int("stop", 1, "failures after which to stop; 0: never")
	trace := flag.Bool("trace", false, "print the trace of each run")
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) >> 8
	}
	if *runs == 0 && *limit == 0 {
		*runs = 100
	}
	os.Exit(simulate(*seed, *runs, *limit, *stop, *trace, strings.Fields(*guest)))
}

func simulate(seed uint64, runs int, limit time.Duration, stop int, trace bool, args []string) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	fmt.Printf("seed %d; the guest is built and translated\n", seed)
	m, err := newMachine(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer m.close()
	said := time.Now()
	c := &campaign{machine: m, first: seed, runs: runs, limit: limit, args: args, stopAt: stop, progress: func(c *campaign) {
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			fmt.Println(c.summary())
		}
	}}
	c.run(ctx)
	if trace {
		for i := range c.done {
			r := m.run(ctx, seed+uint64(i), args...)
			_, _ = os.Stdout.Write(story(&r))
		}
	}
	fmt.Println()
	c.coverage(os.Stdout)
	fmt.Println("\n" + c.summary())
	for i := range c.failures {
		r := &c.failures[i]
		fmt.Printf("\nseed %d failed:\n%s\nrepeat it:       %s\n", r.seed, r.failed, repeats(r, args))
	}
	if len(c.failures) == 0 {
		return 0
	}
	small, with := m.shrink(ctx, c.failures[0], args)
	fmt.Printf("\nthe first of them with less of it:\n%s\n%s", repeats(&small, with), story(&small))
	return 1
}
