package mirror

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

var recorded = []DiskState{Failed, Inconsistent, Outdated, Consistent, UpToDate}

// Every state that is recorded has its row, and every state but Failed a way out of
// it and a way to it.
func TestTransitionsAreComplete(t *testing.T) {
	for _, legal := range []transitions{diskTransitions, repairTransitions} {
		if len(legal) != len(recorded) {
			t.Errorf("%d states have rows, %d are recorded", len(legal), len(recorded))
		}
		for from, to := range legal {
			if !slices.Contains(recorded, from) || slices.Contains(to, from) {
				t.Errorf("%v to %v", from, to)
			}
			for _, s := range to {
				if !slices.Contains(recorded, s) {
					t.Errorf("%v becomes %v, which is never recorded", from, s)
				}
			}
		}
	}
	for _, from := range recorded[1:] {
		if !slices.Contains(diskTransitions[from], Failed) {
			t.Errorf("%v cannot fail", from)
		}
		reached := map[DiskState]bool{from: true}
		for range recorded {
			for s := range reached {
				for _, next := range diskTransitions[s] {
					reached[next] = true
				}
			}
		}
		if !reached[UpToDate] {
			t.Errorf("%v never comes to be UpToDate again", from)
		}
	}
}

// A change of the superblock that no rule allows is not committed, and the replica
// fails: of what it is there is no true record then.
func TestIllegalTransition(t *testing.T) {
	other, err := NewID(nil)
	must(t, err)
	for name, change := range map[string]func(*Superblock){
		"a replica that is UpToDate does not become Attaching": func(sb *Superblock) { sb.Disk = Attaching },
		"a replica is UpToDate in the middle of a resync":      func(sb *Superblock) { sb.Resync = &ResyncMark{Source: "b"} },
		"the epoch goes back":                                  func(sb *Superblock) { sb.Epoch-- },
		"the in-sync set's version goes back":                  func(sb *Superblock) { sb.SetVersion-- },
		"becomes volume":                                       func(sb *Superblock) { sb.Volume = other },
		"becomes that of":                                      func(sb *Superblock) { sb.Node = "b" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newFakeRig(t, nil, "a")
			a := r.node("a")
			r.eventually("it serves", func() bool { return a.vol.Status().Serving })
			a.vol.mu.Lock()
			seq := a.vol.super.Seq
			a.vol.mu.Unlock()
			if err := a.vol.commitSuper(change); err == nil || !strings.Contains(err.Error(), name) {
				t.Fatalf("committed with %v", err)
			}
			if err := a.vol.failed(); !errors.Is(err, ErrFailed) {
				t.Errorf("the replica goes on: %v", err)
			}
			a.kill()
			_, sb, err := OpenSuperblock(a.fake)
			must(t, err)
			if sb.Disk != Failed || sb.Seq != seq+1 || sb.Resync != nil || sb.Volume == other || sb.Node != "a" {
				t.Errorf("recorded is %+v", sb)
			}
		})
	}
}
