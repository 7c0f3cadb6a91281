package bitmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A promise is what a bitmap that is opened after a crash must at least say, if
// it says that it is relative to base.
type promise struct {
	base Base
	bits *Blocks
}

// An ordeal runs a bitmap through a random script and looks, at every write and
// every sync, at what a crash would leave.
type ordeal struct {
	t   *testing.T
	dir *fakedisk.FS
	rng *rand.Rand
	m   *Map
	// allowed are the promises of which one holds after a crash now: the one of
	// the last Flush or Reset that returned, and that of the one that runs.
	allowed []promise
	crashes int
}

const ordealSize = 2*PageBytes + 50*BlockSize

func newOrdeal(t *testing.T, rng *rand.Rand) *ordeal {
	o := &ordeal{t: t, dir: fakedisk.New(rng.Uint64()), rng: rng}
	m, err := Create(o.dir, name, ordealSize, Base{})
	must(t, err)
	o.m = m
	o.allowed = []promise{{Base{}, NewBlocks(ordealSize)}}
	o.dir.OnOp(func(op fakedisk.Op, _ string) error {
		if op == fakedisk.OpWrite || op == fakedisk.OpDatasync {
			o.crash()
		}
		return nil
	})
	return o
}

// crash checks what a power loss would leave now, in several ways.
func (o *ordeal) crash() {
	for _, keep := range []fakedisk.Policy{
		fakedisk.LoseAll, fakedisk.KeepAll, fakedisk.KeepSome(o.rng.Uint64()), fakedisk.KeepSome(o.rng.Uint64()),
	} {
		o.crashes++
		left := o.dir.CrashClone(keep)
		if err := o.check(left); err != nil {
			o.t.Fatalf("after a crash: %v", err)
		}
		if err := o.check(left); err != nil {
			o.t.Fatalf("after a crash, opened twice: %v", err)
		}
	}
	o.kill()
}

// kill checks that what a process finds that is started again after a kill, and
// flushes, no later power loss takes away: not even where a sync had failed.
func (o *ordeal) kill() {
	restarted := o.dir.KillClone()
	found, err := Open(restarted, name, ordealSize)
	must(o.t, err)
	must(o.t, found.Flush())
	for _, keep := range []fakedisk.Policy{fakedisk.LoseAll, fakedisk.KeepSome(o.rng.Uint64())} {
		m, err := Open(restarted.CrashClone(keep), name, ordealSize)
		must(o.t, err)
		if m.Base() != found.Base() || !contains(m.Blocks, found.Blocks) {
			o.t.Fatalf("after a kill base %v and %d bytes, after a power loss then base %v and %d bytes",
				found.Base(), found.Count(), m.Base(), m.Count())
		}
	}
}

func (o *ordeal) check(dir *fakedisk.FS) error {
	m, err := Open(dir, name, ordealSize)
	if err != nil {
		return err
	}
	defer m.Close()
	for _, p := range o.allowed {
		if m.Base() == p.base && contains(m.Blocks, p.bits) {
			return nil
		}
	}
	return fmt.Errorf("base %v with %d bytes set keeps none of %d promises", m.Base(), m.Count(), len(o.allowed))
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
	for _, p := range o.allowed { // what is cleared is promised no more
		p.bits.Clear(off, n)
	}
}

// during runs a change of the file. Until it returns, the old promise or the
// new one holds; then the new one.
func (o *ordeal) during(next promise, run func() error) error {
	o.allowed = append(o.allowed, next)
	err := run()
	if err == nil {
		o.allowed = o.allowed[len(o.allowed)-1:]
	}
	return err
}

func (o *ordeal) step(lsn uint64) error {
	m, r := o.m, o.rng
	off := r.Int64N(ordealSize)
	n := min(ordealSize-off, r.Int64N(40*BlockSize))
	switch r.IntN(10) {
	case 0, 1, 2:
		o.set(off, n, true)
	case 3:
		o.set(off, n, false)
	case 4:
		m.SetBase(Base{LSN: lsn})
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
		o.mustBeExact()
	case 9:
		base := Base{LSN: lsn}
		return o.during(promise{base, NewBlocks(ordealSize)}, func() error { return m.Reset(base) })
	}
	return nil
}

// mustBeExact: after a Flush nothing is lost and nothing is exaggerated.
func (o *ordeal) mustBeExact() {
	m, err := Open(o.dir.CrashClone(fakedisk.LoseAll), name, ordealSize)
	must(o.t, err)
	defer m.Close()
	if m.Base() != o.m.Base() || m.Count() != o.m.Count() || !contains(m.Blocks, o.m.Blocks) || m.Damaged() != nil {
		o.t.Fatalf("after Flush: base %v, %d bytes, damaged %v; in memory base %v, %d bytes",
			m.Base(), m.Count(), m.Damaged(), o.m.Base(), o.m.Count())
	}
}

// Invariant 5, retention or bitmap: whatever is lost in a crash, the bits are
// never less than their base says.
func TestRetentionOrBitmapAcrossCrashes(t *testing.T) {
	rng := newRand(t)
	crashes := 0
	for range 12 {
		o := newOrdeal(t, rng)
		for lsn := range uint64(60) {
			must(t, o.step(lsn+1))
		}
		crashes += o.crashes
	}
	if crashes < 1000 {
		t.Errorf("only %d crashes: the script does too little", crashes)
	}
}

// Invariant 9, a failed fsync is final: the k-th write or sync fails, for every
// k; the bitmap has failed, and what is left on disk keeps its promises.
func TestFailedFsyncIsFinal(t *testing.T) {
	rng := newRand(t)
	script := rng.Uint64()
	for k := 0; ; k++ {
		o := newOrdeal(t, rand.New(rand.NewPCG(script, 0)))
		o.dir.OnOp(nil)
		o.dir.Fail(fakedisk.AnyChange, k, syscall.EIO)
		var err error
		for lsn := uint64(1); err == nil && lsn <= 40; lsn++ {
			err = o.step(lsn)
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
		o.crash()
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
