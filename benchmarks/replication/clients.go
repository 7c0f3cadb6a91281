package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/load"
)

// wantedP99 is how many times as long 99 of 100 writes may take while a resync runs.
const wantedP99 = 1.1

// settle is how long after a change nothing is measured: the pacer has to find out
// what the latency is without the resync.
const settle = time.Second

// beside measures what clients feel of a resync that gives way to them, as one does
// unless it is told otherwise: one writer, 4 KiB at random, while it runs and while it
// is paused. The peer is connected and no member in both, so that nothing else differs.
func (b *bench) beside(ctx context.Context) error {
	const cell = "clients-during-resync"
	if !b.wanted(cell) {
		return nil
	}
	p, err := b.pair(ctx, "beside", b.size, daemon.PairOptions{})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := (pattern{seed: rand.Uint64()}).write(ctx, p.Alpha, b.size); err != nil {
		return err
	}
	w, err := startWriter(ctx, p.Alpha, b.size)
	if err != nil {
		return err
	}
	defer w.stop()
	pause := func(word string) error { _, err := p.Alpha.CLI(ctx, "resync", word, volume); return err }
	if err := pause("pause"); err != nil {
		return err
	}
	err = apart(ctx, p, func() error { return pattern{seed: rand.Uint64()}.write(ctx, p.Alpha, b.size) }, false)
	if err != nil {
		return err
	}
	if _, err := p.Alpha.Await(ctx, volume, "a resync is paused", func(s *daemon.Status) bool {
		return s.Peer("beta").Replication == "PausedSyncS"
	}); err != nil {
		return err
	}
	var speeds, ratios []float64
	phase := func(word string) func(context.Context) (report.Sample, error) {
		return func(ctx context.Context) (report.Sample, error) {
			if err := pause(word); err != nil {
				return report.Sample{}, err
			}
			time.Sleep(settle)
			first, err := p.Alpha.Status(ctx, volume)
			if err != nil {
				return report.Sample{}, err
			}
			w.take()
			time.Sleep(b.length())
			sample, err := w.take().sample(b.length())
			if err != nil {
				return report.Sample{}, errors.Join(err, w.failed())
			}
			last, err := p.Alpha.Status(ctx, volume)
			if err != nil {
				return report.Sample{}, err
			}
			from, to := first.Peer("beta").Progress, last.Peer("beta").Progress
			if from == nil || to == nil {
				return report.Sample{}, errors.New("the resync was over before the measurement; -mib has to be more, or -secs or -runs less")
			}
			if word == "resume" {
				speeds = append(speeds, float64(to.Done-from.Done)/b.length().Seconds()/1e6)
			} else if to.Done != from.Done {
				return report.Sample{}, errors.New("the resync goes on while it is paused")
			}
			return sample, nil
		}
	}
	r, err := b.turns(ctx, cell, report.IOPS, subject{"resync", phase("resume")}, subject{"paused", phase("pause")})
	if err != nil {
		return err
	}
	for i := range r[0].Samples {
		ratios = append(ratios, r[0].Samples[i].Latency.P99/r[1].Samples[i].Latency.P99)
	}
	b.limit(cell+"-p99", report.Median(ratios), wantedP99, "times")
	b.figure(cell+"-speed", report.Median(speeds), "MB/s")
	return nil
}

// A writer writes 4 KiB at random, one after the other, and notes how long each took.
type writer struct {
	stop func()

	mu   sync.Mutex
	took latencies
	err  error
}

func startWriter(ctx context.Context, n *daemon.Node, size int64) (*writer, error) {
	c, err := load.DialServing(ctx, "unix:"+n.NBDSocket(), volume)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &writer{}
	var done sync.WaitGroup
	done.Go(func() {
		p := make([]byte, blockSize)
		for ctx.Err() == nil {
			off := rand.Int64N(size/blockSize) * blockSize
			pattern{seed: uint64(off)}.fill(p, off)
			start := time.Now()
			err := c.WriteAt(p, off, false)
			w.note(time.Since(start), err)
			if err != nil {
				return
			}
		}
	})
	w.stop = func() { cancel(); done.Wait(); c.Close() }
	return w, nil
}

func (w *writer) note(d time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took, w.err = append(w.took, d), err
}

// take returns what was noted since the last call.
func (w *writer) take() latencies {
	w.mu.Lock()
	defer w.mu.Unlock()
	took := w.took
	w.took = nil
	return took
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

type latencies []time.Duration

// sample is what they come to, of those that ended within length. It sorts them.
func (l latencies) sample(length time.Duration) (report.Sample, error) {
	if len(l) == 0 {
		return report.Sample{}, errors.New("no write ended in time")
	}
	slices.Sort(l)
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	sum := time.Duration(0)
	for _, d := range l {
		sum += d
	}
	return report.Sample{
		IOPS: float64(len(l)) / length.Seconds(), Bytes: float64(len(l)*blockSize) / length.Seconds(),
		MeanMicros: micros(sum) / float64(len(l)),
		Latency:    &report.Latency{P50: micros(l.within(0.5)), P99: micros(l.within(0.99)), P999: micros(l.within(0.999)), Max: micros(l[len(l)-1])},
	}, nil
}

// within is the time that so great a share were done in; l is sorted.
func (l latencies) within(share float64) time.Duration {
	return l[min(int(share*float64(len(l))), len(l)-1)]
}
