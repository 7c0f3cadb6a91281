package mirror

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// aboutToRollBack: a Primary, with the peers that are named, has a snapshot, and was
// written to since; and nobody is attached.
func aboutToRollBack(t *testing.T, names ...string) (r *rig, a *rigNode, want, since []byte) {
	t.Helper()
	rng := seed(t)
	r = newFakeRig(t, slowToDrop, append(names, "a")...)
	a = r.node("a")
	r.meet()
	a.promote(false)
	r.members()
	c := a.attach()
	for i := range int64(12) {
		c.must(c.async(i<<20, randomly(rng, 40*rigBlock)))
	}
	c.flush()
	a.snap("s")
	want = c.read(0, rigSize)
	for i := range int64(12) {
		c.must(c.async(i<<20+rng.Int64N(1<<16), randomly(rng, 20*rigBlock+rng.IntN(5000)/8*8)))
	}
	c.must(c.submit(&block.Request{Op: block.OpTrim, Off: 0, Len: 50 * rigBlock}))
	c.must(c.async(rigSize-8*rigBlock, randomly(rng, 8*rigBlock))) // it was zeroes
	since = c.read(0, rigSize)
	c.s.Close()
	return r, a, want, since
}

// What was overwritten since is written back, on every replica, by the path of a
// write; other snapshots keep what that overwrites.
func TestRollbackToSnapshot(t *testing.T) {
	r, a, want, since := aboutToRollBack(t, "b")
	b := r.node("b")
	a.snap("undo")
	b.snap("peer")
	plan, err := a.vol.PlanSnapshotRollback("s")
	if err != nil || plan.Refused != "" || plan.Writes != 14 || plan.Restores < 12*20*rigBlock || plan.Resumes {
		t.Fatalf("the plan is %+v, %v", plan, err)
	}
	before := a.vol.Status().End
	if _, err := a.vol.RollbackToSnapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	r.eventually("b has it", func() bool { return b.vol.Status().End == a.vol.Status().End })
	if a.vol.Status().End == before {
		t.Fatal("nothing was written")
	}
	b.snapAppliesAll()
	a.snapAppliesAll()
	mustBe(t, "a", storeOf(t, a.fake), want)
	mustBe(t, "b", storeOf(t, b.fake), want)
	for name, n := range map[string]*rigNode{"undo": a, "peer": b} {
		mustBe(t, name, n.snapshotView(name), since)
	}
	// And back again.
	if _, err := a.vol.RollbackToSnapshot(t.Context(), "undo"); err != nil {
		t.Fatal(err)
	}
	c := a.attach()
	mustBe(t, "a, before the rollback", c.read(0, rigSize), since)
	mustBe(t, "s", a.snapshotView("s"), want)
}

// An end in the middle, by a crash or by whoever asked, leaves a volume that serves
// nobody until the rollback is done again, which finishes it, or taken back, or given up.
func TestRollbackToSnapshotInterrupted(t *testing.T) {
	for name, row := range map[string]struct {
		peers []string
		crash bool
		end   string
	}{
		"a crash":             {nil, true, "finish"},
		"a crash, taken back": {nil, true, "take back"},
		"a crash, given up":   {nil, true, "give up"},
		"cancelled":           {[]string{"b"}, false, "finish"},
	} {
		if underRace && row.end != "finish" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			r, a, want, since := aboutToRollBack(t, row.peers...)
			v, journaled := a.vol, 0
			stalled := a.stallAt(fakedisk.OpWrite, "*.seg*", func() bool {
				v.mu.Lock()
				defer v.mu.Unlock()
				if !v.rollingBack().IsZero() { // its generation is under way, or in the journal
					journaled++
				}
				return journaled > 4
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := v.RollbackToSnapshot(ctx, "s")
				done <- err
			}()
			stalled.wait(t)
			if _, err := v.Attach(t.Context(), nil); !errors.Is(err, block.ErrNotServing) || !strings.Contains(err.Error(), "lockstep snapshot rollback data s") {
				t.Fatalf("a client is let in: %v", err)
			}
			if row.crash {
				a.powerLossIn(stalled, fakedisk.LoseAll) // what waits there waits for ever
				a.start()
				a.promote(false)
			} else {
				cancel()
				stalled.letGo()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
			cancel()
			if _, err := a.vol.Attach(t.Context(), nil); !errors.Is(err, block.ErrNotServing) {
				t.Fatalf("a client is let in afterwards: %v", err)
			}
			if plan, err := a.vol.PlanSnapshotRollback("s"); err != nil || !plan.Resumes || plan.Refused != "" {
				t.Fatalf("%+v, %v", plan, err)
			}
			for _, name := range []string{"s", beforeRollback} {
				if err := a.vol.DeleteSnapshot(name); err == nil || !strings.Contains(err.Error(), "half old, half new") {
					t.Fatalf("%s is needed, and deleted: %v", name, err)
				}
			}
			if _, err := a.vol.CreateSnapshot(t.Context(), "mixture"); err == nil || !strings.Contains(err.Error(), "half old, half new") {
				t.Fatalf("a mixture became a snapshot: %v", err)
			}
			switch row.end {
			case "take back":
				if _, err := a.vol.RollbackToSnapshot(t.Context(), beforeRollback); err != nil {
					t.Fatal(err)
				}
				mustBe(t, "a, taken back", a.attach().read(0, rigSize), since)
				return
			case "give up":
				if err := a.vol.GiveUpRollback(); err != nil {
					t.Fatal(err)
				}
				for i, x := range a.attach().read(0, rigSize) {
					if x != want[i] && x != since[i] {
						t.Fatalf("byte %d is neither what it was nor what it is", i)
					}
				}
				return
			}
			if _, err := a.vol.RollbackToSnapshot(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
			c := a.attach()
			mustBe(t, "a", c.read(0, rigSize), want)
			c.flush()
			if list := a.vol.Snapshots(); len(list) != 1 {
				t.Errorf("what was before is kept: %+v", list)
			}
			for _, name := range row.peers {
				r.eventually("what was before goes", func() bool { return len(r.node(name).vol.Snapshots()) == 0 })
				r.inSync("a", name)
				mustBe(t, name, storeOf(t, r.node(name).fake), want)
			}
		})
	}
}

// What stands in the way is said, and nothing is done.
func TestRollbackToSnapshotRefusals(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	a.snap("s")
	b.snap("s")
	c.write(0, fill(2, rigBlock))
	end := a.vol.Status().End
	for n, want := range map[*rigNode]string{a: "clients are attached", b: "is not Primary"} {
		if _, err := n.vol.RollbackToSnapshot(t.Context(), "s"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if plan, err := n.vol.PlanSnapshotRollback("s"); err != nil || !strings.Contains(plan.Refused, want) {
			t.Errorf("%+v, %v", plan, err)
		}
		if _, err := n.vol.RollbackToSnapshot(t.Context(), "none"); !errors.Is(err, ErrNoSnapshot) {
			t.Error(err)
		}
	}
	if a.vol.Status().End != end || c.read(0, 1)[0] != 2 {
		t.Error("something was written")
	}
}

// After a split-brain the loser's side can be had back: on its node, once that leads.
func TestRollbackToTheLosingSide(t *testing.T) {
	r, a, b, want, losing := aboutToResolve(t)
	r.follow(b.resolve("a").Next)
	r.isEqual("a", "b", want)
	name := b.vol.Snapshots()[0].Name
	a.demote()
	r.meet()
	b.promote(false)
	if plan, err := b.vol.PlanSnapshotRollback(name); err != nil || plan.Writes != -1 {
		t.Errorf("%+v, %v", plan, err)
	}
	if _, err := b.vol.RollbackToSnapshot(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	r.inSync("b", "a")
	mustBe(t, "a has the losing side", storeOf(t, a.fake), losing)
}
