package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Stats say what a load did.
type Stats struct {
	Writes, Reads, Flushes int           // answered; trims and zeroings are writes
	Bytes                  int64         // written
	Longest                time.Duration // that one request took
}

// Add adds o to s; Longest is the longer of both.
func (s *Stats) Add(o Stats) {
	s.Writes += o.Writes
	s.Reads += o.Reads
	s.Flushes += o.Flushes
	s.Bytes += o.Bytes
	s.Longest = max(s.Longest, o.Longest)
}

func (s Stats) String() string {
	return fmt.Sprintf("%d writes (%d MiB), %d reads, %d flushes, the longest took %v",
		s.Writes, s.Bytes>>20, s.Reads, s.Flushes, s.Longest.Round(time.Millisecond))
}

// Options of Run.
type Options struct {
	// The same seed draws the same requests, not the same timing.
	Seed uint64
	// Workers is how many requests are in flight, each worker has one, in
	// blocks of its own. Default 16.
	Workers int
	// Rate is the most that all workers write, bytes per second; 0 is no limit.
	Rate int64
	// Written, unless nil, counts the bytes of writes as they are answered; trims and
	// zeroings, which carry none, are left out.
	Written *atomic.Int64
}

// Run loads the export through c until ctx ends or every worker has met an
// error. The error says what went wrong, ErrLost included; it is nil when ctx
// ended the load.
func Run(ctx context.Context, c *Client, m *Model, o Options) (Stats, error) {
	workers := o.Workers
	if workers == 0 {
		workers = 16
	}
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		sum  Stats
		errs []error
	)
	share := m.Blocks() / workers
	for i := range workers {
		w := &worker{c: c, m: m, first: i * share, blocks: share, written: o.Written,
			rng: rand.New(rand.NewPCG(o.Seed, uint64(i))), buf: make([]byte, maxBlocks*BlockSize)}
		all.Go(func() {
			var err error
			start := time.Now()
			for err == nil && ctx.Err() == nil {
				err = w.step()
				if o.Rate > 0 {
					due := time.Duration(float64(w.stats.Bytes*int64(workers)) / float64(o.Rate) * float64(time.Second))
					sleep(ctx, due-time.Since(start))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sum.Add(w.stats)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return sum, firstOfEach(errs)
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// firstOfEach leaves the lost connection out of a report that has worse to say,
// and says everything once.
func firstOfEach(errs []error) error {
	var lost error
	var worse []error
	for _, err := range errs {
		if errors.Is(err, ErrLost) {
			lost = err
		} else if len(worse) < 4 {
			worse = append(worse, err)
		}
	}
	if len(worse) > 0 {
		return errors.Join(worse...)
	}
	return lost
}

// maxBlocks is the longest write: 2 MiB, which Lockstep cuts into several
// records that must stand or fall together.
const maxBlocks = 512

type worker struct {
	c             *Client
	m             *Model
	first, blocks int // what it alone writes
	rng           *rand.Rand
	buf           []byte
	stats         Stats
	written       *atomic.Int64 // may be nil
}

// step makes one request.
func (w *worker) step() error {
	first, count := w.place()
	p, off := w.buf[:count*BlockSize], int64(first)*BlockSize
	start := time.Now()
	var err error
	switch kind := w.rng.IntN(100); {
	case kind < 72:
		value, fua := w.m.newValue(), w.rng.IntN(16) == 0
		for i := range count {
			Fill(p[i*BlockSize:][:BlockSize], first+i, value)
		}
		err = w.change(change{first, count, value, fua}, func() error { return w.c.WriteAt(p, off, fua) })
		if err == nil && w.written != nil {
			w.written.Add(int64(len(p)))
		}
	case kind < 76:
		err = w.change(change{first, count, 0, false}, func() error { return w.c.Trim(off, len(p)) })
	case kind < 80:
		err = w.change(change{first, count, 0, false}, func() error { return w.c.Zero(off, len(p)) })
	case kind < 90:
		if err = w.c.ReadAt(p, off); err == nil {
			w.stats.Reads++
			err = w.m.expect(p, first)
		}
	default:
		covers := w.m.flushing()
		if err = w.c.Flush(); err == nil {
			w.stats.Flushes++
			w.m.flushedTo(covers)
		}
	}
	w.stats.Longest = max(w.stats.Longest, time.Since(start))
	return err
}

// place draws a range: mostly single blocks, sometimes a long one.
func (w *worker) place() (first, count int) {
	switch kind := w.rng.IntN(100); {
	case kind < 60:
		count = 1
	case kind < 98:
		count = 1 + w.rng.IntN(32)
	default:
		count = 1 + w.rng.IntN(maxBlocks)
	}
	count = min(count, w.blocks)
	return w.first + w.rng.IntN(w.blocks-count+1), count
}

// change makes a change and tells the model how it went.
func (w *worker) change(ch change, send func() error) error {
	err := send()
	if err != nil {
		// Also an error that the server answered with proves nothing about
		// what the blocks hold.
		w.m.lost(ch)
		return err
	}
	w.m.answered(ch)
	w.stats.Writes++
	w.stats.Bytes += int64(ch.count) * BlockSize
	return nil
}
