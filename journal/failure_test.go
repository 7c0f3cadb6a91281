package journal

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

var errBroken = errors.New("the disk is broken")

// TestFailureAtEveryChange has the disk fail from its k-th write, sync or other
// change on, for every k: the failure is final, and what is left then is as good
// as after a crash (invariant 9).
func TestFailureAtEveryChange(t *testing.T) {
	base := seed(t)
	for _, op := range []fakedisk.Op{fakedisk.OpWrite, fakedisk.OpDatasync, fakedisk.AnyChange} {
		t.Run(string(op), func(t *testing.T) {
			k := 0
			for failAt(t, op, k, base) {
				k++
			}
			if k < 20 {
				t.Errorf("only %d failures: the workload is too short", k)
			}
		})
	}
}

// failAt runs a workload whose k-th operation fails, and all after it. It
// reports whether there is such an operation.
func failAt(t *testing.T, op fakedisk.Op, k int, seed uint64) bool {
	rng := rand.New(rand.NewPCG(seed, 0))
	d := fakedisk.New(seed + uint64(k))
	l, err := begin(d, tiny)
	ok(t, err)
	d.FailFrom(op, k, errBroken)
	for step := 0; err == nil && step < 80; step++ {
		err = l.step(rng)
	}
	if err == nil {
		ok(t, l.j.Close())
		return false
	}
	if !errors.Is(err, errBroken) {
		t.Fatalf("%s %d failed: %v", op, k, err)
	}
	left := map[string]*fakedisk.FS{
		"nothing unsynced": d.CrashClone(fakedisk.LoseAll), "everything": d.CrashClone(fakedisk.KeepAll),
		"something": d.CrashClone(fakedisk.KeepSome(seed)), "all but the process": d.KillClone(),
	}
	_ = l.j.Close()
	for what, d := range left {
		if err := l.found(d, false); err != nil {
			t.Fatalf("%s %d failed (seed %d), and a crash kept %s: %v", op, k, seed, what, err)
		}
	}
	return true
}
