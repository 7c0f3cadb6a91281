package main

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
)

// A subject is what is measured: ours, or what ours stands beside.
type subject interface {
	name() string
	// worker is one user of the subject, for one goroutine at a time.
	worker() (worker, error)
	// settle leaves nothing dirty that a later turn would pay for.
	settle() error
}

// A worker does one thing after the other.
type worker interface {
	// write returns once n bytes at off are as good as written for its subject.
	write(off, n int64) error
	// flush returns once everything that this worker wrote is durable.
	flush() error
	read(p []byte, off int64) error
	close()
}

// A load is what the workers do to a subject.
type load struct {
	workers int
	block   int64 // bytes of each operation
	span    int64 // bytes from the start that are used
	seq     bool  // in sequence, else at random
	read    bool
	flush   bool // after each write
	// Until either of them, whichever is not 0.
	dur   time.Duration
	bytes int64
}

// An outcome is what a load met with.
type outcome struct {
	ops       int64
	block     int64
	elapsed   time.Duration
	synced    time.Duration // elapsed, and the final flush
	latencies []time.Duration
	seconds   []int64 // operations in each whole second
}

// run puts a load on a subject.
func (l load) run(s subject) (*outcome, error) {
	workers := make([]worker, l.workers)
	for i := range workers {
		var err error
		if workers[i], err = s.worker(); err != nil {
			return nil, err
		}
		defer workers[i].close()
	}
	tracks := make([]track, l.workers)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range workers {
		wg.Go(func() { tracks[i].err = l.work(workers[i], &tracks[i], began) })
	}
	wg.Wait()
	o := &outcome{block: l.block, elapsed: time.Since(began)}
	o.synced = o.elapsed
	for i := range tracks {
		if tracks[i].err != nil {
			return nil, tracks[i].err
		}
		o.add(&tracks[i])
	}
	if !l.read && !l.flush {
		if err := workers[0].flush(); err != nil {
			return nil, err
		}
		o.synced = time.Since(began)
	}
	slices.Sort(o.latencies)
	return o, nil
}

// A track is what one worker leaves behind.
type track struct {
	latencies []time.Duration
	seconds   []int64
	err       error
}

func (l load) work(w worker, t *track, began time.Time) error {
	var p []byte
	if l.read {
		p = make([]byte, l.block)
	}
	blocks, at := l.span/l.block, int64(0)
	for now := began; l.bytes == 0 || at*l.block < l.bytes; at++ {
		off := at % blocks * l.block
		if !l.seq {
			off = rand.Int64N(blocks) * l.block
		}
		if err := l.do(w, off, p); err != nil {
			return err
		}
		done := time.Now()
		t.latencies = append(t.latencies, done.Sub(now))
		if now = done; l.dur > 0 && now.Sub(began) >= l.dur {
			return nil
		}
		second := int(now.Sub(began) / time.Second)
		for len(t.seconds) <= second {
			t.seconds = append(t.seconds, 0)
		}
		t.seconds[second]++
	}
	return nil
}

func (l load) do(w worker, off int64, p []byte) error {
	if l.read {
		return w.read(p, off)
	}
	if err := w.write(off, l.block); err != nil || !l.flush {
		return err
	}
	return w.flush()
}

func (o *outcome) add(t *track) {
	o.ops += int64(len(t.latencies))
	o.latencies = append(o.latencies, t.latencies...)
	if missing := len(t.seconds) - len(o.seconds); missing > 0 {
		o.seconds = append(o.seconds, make([]int64, missing)...)
	}
	for i, n := range t.seconds {
		o.seconds[i] += n
	}
	// The last one may not be whole.
	o.seconds = o.seconds[:min(len(o.seconds), int(o.elapsed/time.Second))]
}

// sample is the outcome over a time.
func (o *outcome) sample(over time.Duration) report.Sample {
	per := func(n int64) float64 { return float64(n) / over.Seconds() }
	s := report.Sample{IOPS: per(o.ops), Bytes: per(o.ops * o.block), Latency: o.latency()}
	sum := time.Duration(0)
	for _, d := range o.latencies {
		sum += d
	}
	s.MeanMicros = micros(sum) / float64(max(o.ops, 1))
	return s
}

func (o *outcome) latency() *report.Latency {
	at := func(perMille int) float64 {
		return micros(o.latencies[min(len(o.latencies)*perMille/1000, len(o.latencies)-1)])
	}
	if len(o.latencies) == 0 {
		return nil
	}
	return &report.Latency{P50: at(500), P99: at(990), P999: at(999), Max: at(1000)}
}

// slowest is the fewest operations in any second; of a run without a whole one,
// its rate.
func (o *outcome) slowest() float64 {
	if len(o.seconds) == 0 {
		return float64(o.ops) / o.elapsed.Seconds()
	}
	return float64(slices.Min(o.seconds))
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
