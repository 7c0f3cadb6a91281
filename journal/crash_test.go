package journal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/crashtest"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// tiny is a journal of six segments of 32 KiB: a few records fill one, and a
// crash state is cheap to look at. What one goroutine does can be repeated.
var tiny = Options{Size: 6 * tinySegment, SegmentSize: tinySegment, AnySize: true, noAhead: true}

const tinySegment = 32 << 10

// history is what a workload knows of the journal that it wrote.
type history struct {
	gens    map[LSN]uint64 // generation in force at an LSN, as last written
	durable LSN            // Sync, Truncate or Reset returned for it
	first   LSN            // where the journal began after the last Reset
	end     LSN
	noted   LSN // greatest stable LSN in an empty batch that was synced
	// maybe is what an operation that was cut off would have made of it.
	maybe *history
}

func newHistory() *history { return &history{gens: map[LSN]uint64{}, first: 1} }

func (h *history) clone() *history {
	c := *h
	c.gens = maps.Clone(h.gens)
	c.maybe = nil
	return &c
}

// agrees says how a journal that was found contradicts h.
func (h *history) agrees(j *Journal, st State) error {
	switch {
	case st.End < h.durable || st.End > h.end:
		return fmt.Errorf("it ends at LSN %d; %d is durable, %d was written", st.End, h.durable, h.end)
	case st.First < h.first:
		return fmt.Errorf("it begins at LSN %d, its beginning is %d", st.First, h.first)
	case st.Noted.Stable < h.noted:
		return fmt.Errorf("stable LSN %d is noted, %d was", st.Noted.Stable, h.noted)
	}
	return holds(j, j.First(), func(lsn LSN) uint64 { return h.gens[lsn] })
}

// holds says whether the journal has every record from an LSN on, and those of
// the generations that gen tells.
func holds(j *Journal, from LSN, gen func(LSN) uint64) error {
	r, err := j.NewReader(from)
	if err != nil {
		return err
	}
	defer r.Close()
	for lsn := from; lsn <= j.End(); lsn++ {
		var rec Record
		if more, err := r.Next(&rec); err != nil || !more {
			return errors.Join(err, fmt.Errorf("record %d is missing", lsn))
		}
		err := same(&rec, lsn, gen(lsn))
		drop(&rec)
		if err != nil {
			return err
		}
	}
	return nil
}

// A life is a journal at work. Each of its steps first says in h.maybe what it
// may leave behind if it is cut off.
type life struct {
	j   *Journal
	h   *history
	gen uint64
}

// begin makes a journal and opens it.
func begin(d *fakedisk.FS, o Options) (*life, error) {
	if err := Create(d, o); err != nil {
		return nil, err
	}
	j, _, err := Open(d, o)
	return &life{j: j, h: newHistory(), gen: 1}, err
}

// write appends n records as one batch.
func (l *life) write(n int) error {
	next := l.h.clone()
	for i := range n {
		next.gens[next.end+LSN(i)+1] = l.gen
	}
	next.end += LSN(n)
	l.h.maybe = next
	if err := l.j.Append(records(l.j.End(), l.j.EndCRC(), l.gen, n), Notes{Stable: l.h.durable}, true); err != nil {
		return err
	}
	l.h = next
	return nil
}

func (l *life) flush() error {
	lsn, err := l.j.Sync()
	l.h.durable = max(l.h.durable, lsn)
	return err
}

// note notes, durably, that everything that is durable is stable.
func (l *life) note() error {
	if err := l.flush(); err != nil {
		return err
	}
	stable := l.h.durable
	if err := l.j.Append(nil, Notes{Stable: stable}, true); err != nil {
		return err
	}
	err := l.flush()
	if err == nil {
		l.h.noted = max(l.h.noted, stable)
	}
	return err
}

// truncate cuts the journal to c; another generation follows.
func (l *life) truncate(c LSN) error {
	next := l.h.clone()
	next.end, next.durable, next.noted = c, c, min(c, next.noted)
	l.h.maybe = next
	l.h.durable, l.h.noted = min(l.h.durable, c), min(l.h.noted, c)
	if err := l.j.Truncate(c); err != nil {
		return err
	}
	l.h = next
	l.gen++
	return nil
}

// reset empties the journal, which goes on at an LSN.
func (l *life) reset(lsn LSN) error {
	next := newHistory()
	next.first, next.end, next.durable, next.noted = lsn, lsn-1, lsn-1, min(l.h.noted, lsn-1)
	l.h.maybe = next
	if err := l.j.Reset(lsn, 77); err != nil {
		return err
	}
	l.h = next
	l.gen++
	return nil
}

// step does one thing or another. Old records stay in segments that are used
// again, for trimming and truncating erase nothing.
func (l *life) step(rng *rand.Rand) error {
	end := l.j.End()
	switch k := rng.IntN(40); {
	case l.j.Used() > l.j.Size()/2: // before it is full
		return l.j.Trim(end - min(end, LSN(rng.IntN(20))))
	case k < 24:
		return l.write(1 + rng.IntN(5))
	case k < 31:
		return l.flush()
	case k < 34:
		return l.note()
	case k < 37 && end > l.j.First():
		return l.truncate(end - LSN(rng.Uint64N(min(8, uint64(end-l.j.First())))))
	case k == 37 && rng.IntN(3) == 0:
		return l.reset(end + 1 + LSN(rng.IntN(50)))
	}
	return l.j.Trim(end - min(end, LSN(rng.IntN(20))))
}

// found judges what a crash left: it agrees with what the life knows, a second
// start finds the same, and what is appended then is all that follows.
func (l *life) found(left *fakedisk.FS, _ bool) error {
	var end LSN
	for again := range 2 {
		var shown []Record
		o := tiny
		o.Found = func(r *Record, _ Notes) { shown = append(shown, *r) }
		j, st, err := Open(left, o)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err := wasShown(j, shown); err != nil {
			return errors.Join(err, j.Close())
		}
		err = l.h.agrees(j, st)
		if err != nil && l.h.maybe != nil {
			if other := l.h.maybe.agrees(j, st); other != nil {
				err = fmt.Errorf("%w; and had the step been done: %w", err, other)
			} else {
				err = nil
			}
		}
		if err == nil && again == 1 {
			if st.End != end {
				err = fmt.Errorf("it ends at %d, then at %d", end, st.End)
			} else {
				err = goesOn(j, left)
			}
		}
		end = st.End
		if err := errors.Join(err, j.Close()); err != nil {
			return fmt.Errorf("journal of LSN %d to %d: %w", st.First, st.End, err)
		}
	}
	return nil
}

// wasShown compares the records that Open showed with those that a reader finds.
func wasShown(j *Journal, shown []Record) error {
	if n := int(j.End() + 1 - j.First()); len(shown) != n {
		return fmt.Errorf("Open showed %d records, the journal holds %d", len(shown), n)
	}
	r, err := j.NewReader(j.First())
	if err != nil {
		return err
	}
	defer r.Close()
	for _, s := range shown {
		var rec Record
		if ok, err := r.NextHeader(&rec); !ok || err != nil {
			return fmt.Errorf("read LSN %d: %v, %w", s.LSN, ok, err)
		}
		differ := s.LSN != rec.LSN || s.CRC != rec.CRC || s.Offset != rec.Offset || s.Length != rec.Length ||
			s.Kind != rec.Kind || s.Flags != rec.Flags || s.Kind != KindWrite && !bytes.Equal(s.Payload, rec.Payload)
		drop(&rec)
		if differ {
			return fmt.Errorf("Open showed LSN %d otherwise than it is", s.LSN)
		}
	}
	return nil
}

// goesOn appends other records where the torn ones were: those must not return,
// and what was found is durable now.
func goesOn(j *Journal, left *fakedisk.FS) error {
	from := j.End()
	if err := j.Trim(from); err != nil {
		return err
	}
	for range 3 {
		if err := j.Append(records(j.End(), j.EndCRC(), 99, 2), Notes{}, true); err != nil {
			return fmt.Errorf("append after the crash: %w", err)
		}
	}
	end, err := j.Sync()
	if err != nil {
		return err
	}
	k, st, err := Open(left.CrashClone(fakedisk.LoseAll), tiny)
	if err != nil {
		return fmt.Errorf("open once more: %w", err)
	}
	defer k.Close()
	if st.End != end || end != from+6 {
		return fmt.Errorf("it ends at %d; %d were appended after %d, and synced to %d", st.End, 6, from, end)
	}
	return holds(k, from+1, always(99))
}

// workload is a life of so many steps, ready to be crashed.
func (l *life) workload(d *fakedisk.FS, steps int, step func() error) *crashtest.Workload {
	return &crashtest.Workload{
		Disk: d,
		Do: func() error {
			for range steps {
				if err := step(); err != nil {
					return err
				}
			}
			return nil
		},
		Promised: func() uint64 { return uint64(l.h.first)<<40 ^ uint64(l.h.durable)<<20 ^ uint64(l.h.noted) },
		Check:    l.found,
		Close:    func() { l.j.Close() },
	}
}

// TestCrashStates cuts the power at every operation of random lives: what Sync
// returned for is there, the rest is a prefix, and a restart needs no help (P1,
// P2; 9c of the counter-examples).
func TestCrashStates(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: crashtest.Share(t, 0.4)}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		d := fakedisk.New(rng.Uint64())
		l, err := begin(d, tiny)
		if err != nil {
			return nil, err
		}
		return l.workload(d, 120, func() error { return l.step(rng) }), nil
	})
}

// TestCrashStatesExhaustive has every combination of sectors lost and kept, at
// every moment of a short life in a journal whose segments are all full of old
// records.
func TestCrashStatesExhaustive(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: 100, Exhaustive: true}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		d := fakedisk.New(rng.Uint64())
		l, err := begin(d, tiny)
		if err != nil {
			return nil, err
		}
		l.gen = shortRecords
		for l.j.files < int(tiny.segments()) {
			if err := errors.Join(l.write(1), l.flush()); err != nil {
				return nil, err
			}
		}
		if err := errors.Join(l.truncate(l.h.end-3), l.j.Trim(l.h.end)); err != nil {
			return nil, err
		}
		writes := func(n int) func() error {
			return func() error {
				for i := range n {
					if err := l.write(1 + i%3); err != nil {
						return err
					}
				}
				return nil
			}
		}
		script := []func() error{
			writes(6), l.flush, l.note, writes(5),
			func() error { return l.truncate(l.h.end - 5) }, writes(4), l.flush,
			func() error { return l.reset(l.h.end + 9) }, writes(3), l.flush,
		}
		at := 0
		return l.workload(d, len(script), func() error {
			at++
			return script[at-1]()
		}), nil
	})
}
