package mirror

import (
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// TestP3CrashStates: the power of the target is lost at any operation of its disk,
// during a resync under live writes and during the rollback of what that left. What
// is left starts, and is rolled back, or has been, to the image that it had before.
func TestP3CrashStates(t *testing.T) {
	old := resyncSyncBytes
	resyncSyncBytes = 128 << 10
	defer func() { resyncSyncBytes = old }()
	rng := seed(t)
	u := newUndoRigOf(t, rng, 2<<20, func(o *Options) {
		slowResync(o)
		slowToDrop(o) // to copy a disk takes its time
	})
	states, least := 60, 5
	if underRace {
		states, least = 12, 2
	}
	var crashes []*fakedisk.FS
	stop := u.liveWrites(u.c, rng)
	crashes = crashesDuring(u.b, func() { u.b.start(); u.resyncing() })
	stop()
	u.b.kill()
	begun, notBegun, again := 0, 0, 0
	for i := 0; i < len(crashes); i += max(1, len(crashes)/states) {
		var during []*fakedisk.FS
		disk := u.lookBack(crashes[i], func(n *rigNode, rollback func()) {
			if begun%4 == 0 {
				during = crashesDuring(n, rollback)
			} else {
				rollback()
			}
		})
		if disk == Inconsistent {
			begun++
		} else {
			notBegun++
		}
		for k := 0; k < len(during); k += max(1, len(during)/12) {
			u.lookBack(during[k], func(_ *rigNode, rollback func()) { rollback() })
			again++
		}
	}
	t.Logf("crashes looked at: %d before the resync, %d in the middle of it, and %d in the middle of a rollback", notBegun, begun, again)
	if begun < least || again < least {
		t.Error("that is too few")
	}
}

// lookBack starts b on a disk that a crash left, rolls it back if it is in the middle
// of a resync, and judges it: the image, and nothing else. It returns as what it
// started.
func (u *undoRig) lookBack(d *fakedisk.FS, during func(*rigNode, func())) DiskState {
	t := u.t
	t.Helper()
	mustBeSound(t, d, CheckOptions{StoreSize: rigSize})
	v, err := Open(Options{Node: "b", Volume: rigVolume, FS: d, Store: openFake(t, d), Peers: []string{"a"}, Dialer: nobody{}, BootID: "look"})
	if err != nil {
		t.Fatalf("open what a crash left: %v", err)
	}
	defer func() {
		v.stop()
		v.wg.Wait()
		v.closeFiles()
	}()
	s := v.Status()
	disk := s.Disk
	switch {
	case s.Disk == Inconsistent:
		during(&rigNode{rig: u.rig, name: "b", fake: d}, func() {
			if _, err := v.Rollback(t.Context()); err != nil {
				t.Fatalf("roll back what a crash left: %v", err)
			}
		})
	default:
		v.settle()
	}
	s = v.Status()
	if s.End != u.base || s.Applied != u.base || s.Undo != nil || disk == Inconsistent && s.Disk != Outdated {
		t.Fatalf("it was %v, and is %v at LSN %d, applied %d, undo %+v; the base is LSN %d", disk, s.Disk, s.End, s.Applied, s.Undo, u.base)
	}
	mustEqualImage(t, storeOf(t, d), u.image)
	return disk
}
