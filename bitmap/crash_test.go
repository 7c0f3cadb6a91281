package bitmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/crashtest"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A promise is what a bitmap that is opened after a crash must at least say, if
// it says that it is relative to base.
type promise struct {
	base Base
	bits *Blocks
}

// An ordeal runs a bitmap through a random script and knows what a crash must
// leave.
type ordeal struct {
	dir *fakedisk.FS
	rng *rand.Rand
	m   *Map
	// allowed are the promises of which one holds after a crash now: the one of
	// the last Flush or Reset that returned, and that of the one that runs.
	allowed []promise
	changes uint64 // of allowed
	lsn     uint64
}

const ordealSize = 2*PageBytes + 50*BlockSize

func newOrdeal(rng *rand.Rand) (*ordeal, error) {
	o := &ordeal{dir: fakedisk.New(rng.Uint64()), rng: rng}
	m, err := Create(o.dir, name, ordealSize, Base{})
	o.m = m
	o.allowed = []promise{{Base{}, NewBlocks(ordealSize)}}
	return o, err
}

// workload is so many steps of the ordeal, ready to be crashed.
func (o *ordeal) workload(steps int) *crashtest.Workload {
	return &crashtest.Workload{
		Disk: o.dir,
		Do: func() error {
			for range steps {
				if err := o.step(); err != nil {
					return err
				}
			}
			return nil
		},
		Promised: func() uint64 { return o.changes },
		Check:    o.found,
		Close:    func() { o.m.Close() },
	}
}

// found judges what a crash left: one of the promises is kept, again by a second
// start, and what a start finds and flushes no later power loss takes away: not
// even where a sync had failed.
func (o *ordeal) found(left *fakedisk.FS, killed bool) error {
	m, err := Open(left, name, ordealSize)
	if err != nil {
		return err
	}
	defer m.Close()
	if !o.keeps(m) {
		return fmt.Errorf("base %v with %d bytes set keeps none of %d promises", m.Base(), m.Count(), len(o.allowed))
	}
	if killed {
		if err := m.Flush(); err != nil {
			return err
		}
	}
	for _, keep := range []fakedisk.Policy{fakedisk.LoseAll, fakedisk.KeepSome(o.changes)} {
		again, err := Open(left.CrashClone(keep), name, ordealSize)
		if err != nil {
			return fmt.Errorf("opened twice: %w", err)
		}
		defer again.Close()
		if again.Base() != m.Base() || !contains(again.Blocks, m.Blocks) {
			return fmt.Errorf("base %v and %d bytes, then, after a power loss, base %v and %d bytes",
				m.Base(), m.Count(), again.Base(), again.Count())
		}
	}
	return nil
}

func (o *ordeal) keeps(m *Map) bool {
	return slices.ContainsFunc(o.allowed, func(p promise) bool { return m.Base() == p.base && contains(m.Blocks, p.bits) })
}

func contains(b, part *Blocks) bool {
	union := b.Snapshot()
	union.Merge(part)
	return union.Count() == b.Count()
}

func (o *ordeal) set(off, n int64, dirty bool) {
	if dirty {
		o.m.Set(off, n)
		return
	}
	o.m.Clear(off, n)
	o.changes++
	for _, p := range o.allowed { // what is cleared is promised no more
		p.bits.Clear(off, n)
	}
}

// during runs a change of the file. Until it returns, the old promise or the
// new one holds; then the new one.
func (o *ordeal) during(next promise, run func() error) error {
	o.allowed = append(o.allowed, next)
	o.changes++
	err := run()
	if err == nil {
		o.allowed = o.allowed[len(o.allowed)-1:]
		o.changes++
	}
	return err
}

func (o *ordeal) step() error {
	m, r := o.m, o.rng
	o.lsn++
	off := r.Int64N(ordealSize)
	n := min(ordealSize-off, r.Int64N(40*BlockSize))
	switch r.IntN(10) {
	case 0, 1, 2:
		o.set(off, n, true)
	case 3:
		o.set(off, n, false)
	case 4:
		m.SetBase(Base{LSN: o.lsn})
	case 5:
		if r.IntN(3) == 0 {
			m.SetAll()
		}
	case 6:
		if r.IntN(3) == 0 {
			o.set(0, ordealSize, false)
		}
	case 7, 8:
		if err := o.during(promise{m.Base(), m.Snapshot()}, m.Flush); err != nil {
			return err
		}
		return o.isExact()
	case 9:
		base := Base{LSN: o.lsn}
		return o.during(promise{base, NewBlocks(ordealSize)}, func() error { return m.Reset(base) })
	}
	return nil
}

// isExact: after a Flush nothing is lost and nothing is exaggerated.
func (o *ordeal) isExact() error {
	m, err := Open(o.dir.CrashClone(fakedisk.LoseAll), name, ordealSize)
	if err != nil {
		return err
	}
	defer m.Close()
	if m.Base() != o.m.Base() || m.Count() != o.m.Count() || !contains(m.Blocks, o.m.Blocks) || m.Damaged() != nil {
		return fmt.Errorf("after Flush: base %v, %d bytes, damaged %v; in memory base %v, %d bytes",
			m.Base(), m.Count(), m.Damaged(), o.m.Base(), o.m.Count())
	}
	return nil
}

// Invariant 5, retention or bitmap: whatever is lost in a crash, the bits are
// never less than their base says.
func TestRetentionOrBitmapCrashStates(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: crashtest.Share(t, 0.1)}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		o, err := newOrdeal(rng)
		if err != nil {
			return nil, err
		}
		return o.workload(60), nil
	})
}

// The same, with every combination of sectors lost and kept: at most the pages
// of one Flush are unsynced, of which a few words are set.
func TestRetentionOrBitmapCrashStatesExhaustive(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: 60, Exhaustive: true}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		o, err := newOrdeal(rng)
		if err != nil {
			return nil, err
		}
		w := o.workload(0)
		flush := func() error { return o.during(promise{o.m.Base(), o.m.Snapshot()}, o.m.Flush) }
		w.Do = func() error {
			for lsn := uint64(1); lsn < 4; lsn++ {
				for page := range int64(3) { // bits in several sectors of each page
					for sector := range int64(2) {
						off := page*PageBytes + (40+8*sector*512+int64(lsn))*BlockSize
						o.set(min(off, ordealSize-BlockSize), BlockSize, true)
					}
				}
				o.m.SetBase(Base{LSN: lsn})
				if err := flush(); err != nil {
					return err
				}
				o.set(int64(lsn)*BlockSize, PageBytes, false)
				if err := flush(); err != nil {
					return err
				}
				base := Base{LSN: lsn + 100}
				if err := o.during(promise{base, NewBlocks(ordealSize)}, func() error { return o.m.Reset(base) }); err != nil {
					return err
				}
			}
			return nil
		}
		return w, nil
	})
}

// Invariant 9, a failed fsync is final: the k-th write or sync fails, for every
// k; the bitmap has failed, and what is left on disk keeps its promises.
func TestFailedFsyncIsFinal(t *testing.T) {
	rng := newRand(t)
	script := rng.Uint64()
	for k := 0; ; k++ {
		o, err := newOrdeal(rand.New(rand.NewPCG(script, 0)))
		must(t, err)
		o.dir.Fail(fakedisk.AnyChange, k, syscall.EIO)
		for step := 0; err == nil && step < 40; step++ {
			err = o.step()
		}
		if err == nil {
			if k < 10 {
				t.Fatalf("the script makes only %d changes", k)
			}
			return
		}
		if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("failure of change %d: %v", k, err)
		}
		inMemory := o.m.Snapshot()
		if err := errors.Join(o.m.Flush(), o.m.Reset(Base{})); !errors.Is(err, ErrFailed) {
			t.Fatalf("after the failure of change %d: %v", k, err)
		}
		if o.m.Count() != inMemory.Count() {
			t.Fatalf("Reset of a bitmap that has failed changed it")
		}
		for _, keep := range []fakedisk.Policy{
			fakedisk.LoseAll, fakedisk.KeepAll, fakedisk.KeepSome(rng.Uint64()), fakedisk.KeepSome(rng.Uint64()),
		} {
			must(t, o.found(o.dir.CrashClone(keep), false))
		}
		must(t, o.found(o.dir.KillClone(), true))
		must(t, o.m.Close())
		if err := o.m.Flush(); !errors.Is(err, ErrClosed) {
			t.Fatalf("Flush after Close: %v", err)
		}
	}
}

// A crash at any moment of Create leaves the whole bitmap or none, and Create
// works again.
func TestCreateAcrossCrashes(t *testing.T) {
	dir := fakedisk.New(newRand(t).Uint64())
	n := 0
	dir.OnOp(func(fakedisk.Op, string) error {
		for k := range uint64(4) {
			n++
			left := dir.CrashClone([]fakedisk.Policy{fakedisk.LoseAll, fakedisk.KeepAll, fakedisk.KeepSome(seed), fakedisk.KeepSome(seed + 1)}[k])
			m, err := Open(left, name, ordealSize)
			if err != nil {
				m, err = Create(left, name, ordealSize, Base{LSN: 3})
			}
			must(t, err)
			if m.Count() != 0 || m.Base() != (Base{LSN: 3}) {
				t.Fatalf("%d bytes, base %v", m.Count(), m.Base())
			}
		}
		return nil
	})
	_, err := Create(dir, name, ordealSize, Base{LSN: 3})
	must(t, err)
	if n < 20 {
		t.Errorf("only %d crashes", n)
	}
}

// A Reset that fails takes nothing away, and the next one is refused.
func TestResetThatFails(t *testing.T) {
	for _, op := range []fakedisk.Op{fakedisk.OpWrite, fakedisk.OpDatasync} {
		for k := range headerPages {
			dir := fakedisk.New(seed)
			m, err := Create(dir, name, ordealSize, Base{LSN: 1})
			must(t, err)
			m.Set(0, PageBytes+BlockSize)
			must(t, m.Flush())
			dir.Fail(op, k, syscall.EIO)
			for range 2 {
				if err := m.Reset(Base{LSN: 2}); !errors.Is(err, ErrFailed) {
					t.Errorf("Reset with failing %s %d: %v", op, k, err)
				}
				if m.Count() != PageBytes+BlockSize || m.Base().LSN != 1 {
					t.Errorf("after a failed %s %d: %d bytes, base %v", op, k, m.Count(), m.Base())
				}
			}
		}
	}
}
