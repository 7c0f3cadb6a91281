package mirror

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// halfBack are two replicas, a being Primary, in the middle of being rolled back to
// the snapshot "s" of a, of which some is written and some is not.
type halfBack struct {
	*rig
	a, b        *rigNode
	want, since []byte // of the snapshot, and of before the rollback
	stalled     *stall
	cancel      context.CancelFunc
	done        chan error
}

func rollHalfBack(t *testing.T) *halfBack {
	t.Helper()
	r, a, want, since := aboutToRollBack(t, "b")
	h := &halfBack{rig: r, a: a, b: r.node("b"), want: want, since: since, done: make(chan error, 1)}
	v, journaled := a.vol, 0
	h.stalled = a.stallAt(fakedisk.OpWrite, "*.seg*", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		if !v.rollingBack().IsZero() {
			journaled++
		}
		return journaled > 8
	})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	h.cancel = cancel
	go func() {
		_, err := v.RollbackToSnapshot(ctx, "s")
		h.done <- err
	}()
	h.stalled.wait(t)
	r.eventually("b has some of it", func() bool {
		h.b.vol.mu.Lock()
		defer h.b.vol.mu.Unlock()
		g := h.b.vol.super.History.Last()
		return !g.RollingBack.IsZero() && h.b.vol.end > g.First+2
	})
	return h
}

// mustServeNobody fails if anybody is given a mixture to read, and by the sentence
// that he is told instead.
func mustServeNobody(t *testing.T, v *Volume, says ...string) {
	t.Helper()
	_, err := v.Attach(t.Context(), nil)
	if v.Status().Role == Secondary {
		_, err = v.OpenImage(t.Context())
	}
	if err == nil {
		t.Fatal("a client is let in")
	}
	for _, s := range append(says, "half old, half new") {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("it says %q, and not %q", err, s)
		}
	}
	if s := v.Status(); s.RollingBack == nil || s.RollingBack.Snapshot == "" || !strings.Contains(err.Error(), s.Unfinished) {
		t.Errorf("the status says %+v, %q", s.RollingBack, s.Unfinished)
	}
}

// A peer that is promoted in the middle of a rollback, with the Primary gone for good
// or for a while, serves nobody, in no way, and takes the volume back to what it was
// before by what it kept itself. The old Primary follows.
func TestRollbackPeerPromotedByForceServesNoMixture(t *testing.T) {
	h := rollHalfBack(t)
	a, b := h.a, h.b
	a.powerLossIn(h.stalled, fakedisk.LoseAll)
	h.eventually("b knows that a is gone", func() bool { return b.peer("a").Connection != Connected })
	mustServeNobody(t, b.vol)
	if _, err := b.vol.CreateSnapshot(t.Context(), "mixture"); err == nil || !strings.Contains(err.Error(), "half old, half new") {
		t.Errorf("a mixture became a snapshot: %v", err)
	}
	b.promote(true)
	mustServeNobody(t, b.vol, "'lockstep snapshot rollback data s' on node \"a\"", "'lockstep snapshot rollback data before-rollback' takes it back")
	if err := b.vol.DeleteSnapshot(beforeRollback); err == nil {
		t.Error("what it can be taken back by is deleted")
	}
	mustBe(t, "what b kept", b.snapshotView(beforeRollback), h.since)
	b.restart() // which changes nothing
	mustServeNobody(t, b.vol)
	b.promote(true)
	mustServeNobody(t, b.vol)
	if plan, err := b.vol.PlanSnapshotRollback(beforeRollback); err != nil || plan.Refused != "" {
		t.Fatalf("%+v, %v", plan, err)
	}
	if _, err := b.vol.RollbackToSnapshot(t.Context(), beforeRollback); err != nil {
		t.Fatal(err)
	}
	c := b.attach()
	mustBe(t, "b", c.read(0, rigSize), h.since)
	a.start()
	h.members()
	c.flush()
	h.inSync("b", "a")
	mustBe(t, "a", storeOf(t, a.fake), h.since)
	h.eventually("a needs what was before no more", func() bool { return len(a.vol.Snapshots()) == 1 && len(b.vol.Snapshots()) == 0 })
	mustBe(t, "s", a.snapshotView("s"), h.want)
}

// A peer that is promoted in the middle without force serves nobody either; and the
// one that has the snapshot finishes, once it leads again.
func TestRollbackPeerPromotedUnforcedServesNoMixture(t *testing.T) {
	h := rollHalfBack(t)
	a, b := h.a, h.b
	h.cancel()
	h.stalled.letGo()
	if err := <-h.done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	mustServeNobody(t, a.vol)
	a.demote()
	h.meet()
	b.promote(false)
	h.members()
	mustServeNobody(t, b.vol)
	b.demote()
	h.meet()
	a.promote(false)
	h.members()
	mustServeNobody(t, a.vol)
	if _, err := a.vol.RollbackToSnapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	mustBe(t, "a", a.attach().read(0, rigSize), h.want)
	a.demote()
	h.meet()
	b.promote(false)
	mustBe(t, "b", b.attach().read(0, rigSize), h.want)
}

// A peer without room for what it was before follows all the same.
func TestRollbackPeerWithoutRoomFollows(t *testing.T) {
	r, a, want, _ := aboutToRollBack(t, "b")
	b := r.node("b")
	var refused atomic.Int32
	b.fake.OnOp(func(op fakedisk.Op, name string) error {
		if op == fakedisk.OpCreate && strings.HasPrefix(name, snapshotPrefix) {
			refused.Add(1)
			return errDisk
		}
		return nil
	})
	if _, err := a.vol.RollbackToSnapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	r.inSync("a", "b")
	mustBe(t, "b", storeOf(t, b.fake), want)
	if list := b.vol.Snapshots(); len(list) != 0 || refused.Load() == 0 {
		t.Errorf("%+v, and %d files were refused", list, refused.Load())
	}
}

// Whatever crashes at any step of a rollback, and is promoted alone, by force: its
// clients read what was before, or the snapshot, or are refused. Refused, it is taken
// back to what it was before; the node of the snapshot may as well finish.
func TestRollbackIsAllOrNothingAtEveryCrash(t *testing.T) {
	r, a, want, since := aboutToRollBack(t, "b")
	b := r.node("b")
	var mu sync.Mutex
	left := map[*rigNode][]*fakedisk.FS{}
	for _, n := range []*rigNode{a, b} {
		defer everyCrash(n, func(_ fakedisk.Op, _ string, d *fakedisk.FS) {
			mu.Lock()
			defer mu.Unlock()
			left[n] = append(left[n], d)
		})()
	}
	if _, err := a.vol.RollbackToSnapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	r.inSync("a", "b")
	for _, n := range []*rigNode{a, b} {
		mu.Lock()
		all := slices.Clone(left[n])
		mu.Unlock()
		looked := 24
		if underRace {
			looked = 8
		}
		before, through, mixed := 0, 0, 0
		for i := 0; i < len(all); i += max(1, len(all)/looked) {
			other := map[*rigNode]string{a: "b", b: "a"}[n]
			v, err := Open(Options{Node: n.name, Volume: rigVolume, FS: all[i], Store: openFake(t, all[i]), Peers: []string{other}, Dialer: nobody{}, BootID: "look"})
			if err != nil {
				t.Fatalf("%s, crash %d: %v", n.name, i, err)
			}
			if err := v.Promote(t.Context(), PromoteOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			back := since
			switch s, err := v.Attach(t.Context(), nil); {
			case err == nil:
				switch got := readAll(t, s); {
				case bytes.Equal(got, since):
					before++
				case bytes.Equal(got, want):
					through++
				default:
					t.Errorf("%s, crash %d: a mixture is served", n.name, i)
				}
				s.Close()
			default:
				mixed++
				mustServeNobody(t, v)
				name := beforeRollback
				if n == a && mixed%2 == 0 {
					name, back = "s", want
				}
				if _, err := v.RollbackToSnapshot(t.Context(), name); err != nil {
					t.Fatalf("%s, crash %d: %v", n.name, i, err)
				}
				s, err := v.Attach(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				mustBe(t, n.name+" afterwards", readAll(t, s), back)
				s.Close()
			}
			v.stop()
			v.wg.Wait()
			v.closeFiles()
		}
		t.Logf("%s: of %d crashes %d were looked at before, %d in the middle and %d after it", n.name, len(all), before, mixed, through)
		if mixed < 2 || before == 0 {
			t.Error("that is too few")
		}
	}
}

func readAll(t *testing.T, s block.Session) []byte {
	t.Helper()
	p := make([]byte, rigSize)
	if err := s.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// A peer of an older protocol version cannot be told: no rollback begins while it is
// connected, and later it is refused with a sentence until it is upgraded.
func TestRollbackOldPeerIsRefused(t *testing.T) {
	r, a, want, _ := aboutToRollBack(t, "b")
	b := r.node("b")
	r.version.Store(rollbackVersion - 1)
	b.isolate()
	b.heal()
	r.members()
	r.eventually("they speak the old version", func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		l := a.vol.peers["b"].link
		return l != nil && l.ready && l.version < rollbackVersion
	})
	if _, err := a.vol.RollbackToSnapshot(t.Context(), "s"); err == nil || !strings.Contains(err.Error(), "upgrade it first") {
		t.Fatal(err)
	}
	b.isolate()
	r.eventually("a goes on without it", func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		l := a.vol.peers["b"].link
		return (l == nil || !l.met) && !setHasNode(a.vol.super.Set, "b")
	})
	if _, err := a.vol.RollbackToSnapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	b.heal()
	r.eventually("it is refused", func() bool { return strings.Contains(a.peer("b").Problem+b.peer("a").Problem, "upgrade node") })
	r.version.Store(0)
	r.members()
	r.inSync("a", "b")
	mustBe(t, "b", storeOf(t, b.fake), want)
}
