package mirror

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

func twoInSync(o *Options) { o.MinInSync = 2 }

func (r *rig) suspended(n *rigNode) {
	r.t.Helper()
	r.eventually(n.name+" holds writes back", func() bool { return n.vol.Status().Suspended })
}

// TestMinInSyncSuspends: with too few replicas in sync writes and flushes wait, reads
// go on, the recorded set stays, and all goes on where it stopped.
func TestMinInSyncSuspends(t *testing.T) {
	r := newFakeRig(t, twoInSync, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	b.isolate()
	r.suspended(a)
	w := c.async(0, fill(2, rigBlock))
	f := c.asyncFlush()
	r.eventually("the write is in a's journal", func() bool { s := a.vol.Status(); return s.Durable == s.End })
	s := a.vol.Status()
	if len(s.InSync) != 2 || s.Waiting != "writes wait: replicas in sync: 1, min-in-sync: 2; waits for b" {
		t.Fatalf("in sync %v, waiting %q", s.InSync, s.Waiting)
	}
	if got := c.read(0, 1); got[0] != 1 {
		t.Fatalf("reads %d of a write that is held back", got[0])
	}
	c.pending(w, "a write with one replica in sync")
	c.pending(f, "a flush with one replica in sync")
	b.heal()
	c.must(w)
	c.must(f)
	r.eventually("nothing is held back", func() bool { return !a.vol.Status().Suspended })
	a.kill()
	b.promote(true)
	if got := b.attach().read(0, 1); got[0] != 2 {
		t.Fatalf("b reads %d", got[0])
	}
}

// TestMinInSyncIOError: with on-no-quorum io-error they get an error, those that
// wait already as well; what was flushed before is there, and writes work again once
// there are enough replicas.
func TestMinInSyncIOError(t *testing.T) {
	r := newFakeRig(t, func(o *Options) { o.MinInSync, o.OnNoQuorum = 2, IOError }, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.gate("b", "a").hold()
	w := c.async(rigBlock, fill(2, rigBlock))
	f := c.asyncFlush()
	for what, w := range map[string]waitDone{"write": w, "flush": f} {
		if err := <-w; !errors.Is(err, ErrNoQuorum) {
			t.Errorf("a %s that waited is answered with %v", what, err)
		}
	}
	if err := <-c.async(2*rigBlock, fill(3, rigBlock)); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("a write is answered with %v", err)
	}
	if err := <-c.asyncFlush(); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("a flush of what was not acknowledged is answered with %v", err)
	}
	if got := c.read(0, 1); got[0] != 1 {
		t.Errorf("reads %d", got[0])
	}
	r.gate("b", "a").drop()
	r.eventually("writes work", func() bool { return <-c.async(0, fill(4, rigBlock)) == nil })
	c.flush()
	r.inSync("a", "b")
	b.kill()
	r.suspended(a)
	if err := <-c.asyncFlush(); err != nil {
		t.Errorf("a flush of what is durable everywhere is answered with %v", err)
	}
}

// TestMinInSyncPromotion: a replica that is promoted with too few others answers
// reads, and acknowledges the first write once another has joined.
func TestMinInSyncPromotion(t *testing.T) {
	r := newFakeRig(t, twoInSync, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	a.kill()
	b.promote(true)
	r.suspended(b)
	d := b.attach()
	w := d.async(0, fill(2, rigBlock))
	r.eventually("the write is in b's journal", func() bool { s := b.vol.Status(); return s.Durable == s.End })
	if got := d.read(0, 1); got[0] != 1 {
		t.Fatalf("b reads %d", got[0])
	}
	d.pending(w, "a write of one replica alone")
	a.start()
	d.must(w)
	d.flush()
	r.members()
	r.inSync("b", "a")
}

// TestMinInSyncReplaced: a member that comes back with an empty disk is filled, and
// what was held back until then is among it.
func TestMinInSyncReplaced(t *testing.T) {
	r := newFakeRig(t, twoInSync, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	first := a.vol.Status().Journal.First
	for i := byte(0); a.vol.Status().Journal.First == first; i++ { // so that b is sent blocks
		c.write(0, fill(i, rigSize/4))
		if i == 200 {
			t.Fatalf("a trims nothing\n%s", r.describe())
		}
	}
	b.kill()
	r.suspended(a)
	w := c.async(0, fill(201, rigBlock))
	r.eventually("the write is in a's journal", func() bool { s := a.vol.Status(); return s.Durable == s.End })
	b.createFake()
	b.start()
	c.must(w)
	c.flush()
	r.members()
	r.inSync("a", "b")
	if n := a.peer("b").Resyncs; n != 1 {
		t.Errorf("b joined after %d resyncs", n)
	}
}

// TestMinInSyncKeepsItsDisk: a Primary whose disk fails does not go on without it
// where that leaves too few, and an operator cannot cut it off from one either.
func TestMinInSyncKeepsItsDisk(t *testing.T) {
	r := newFakeRig(t, twoInSync, "a", "b")
	a, _, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	if err := a.vol.Disconnect("b"); err == nil {
		t.Error("the Primary was disconnected from a member that it needs")
	}
	a.failAfter(fakedisk.OpWrite, "*.seg*", 0, errDisk)
	if err := <-c.async(0, fill(2, rigBlock)); !errors.Is(err, ErrFailed) {
		t.Errorf("a write is answered with %v", err)
	}
	if d := a.vol.Status().Disk; d != Failed {
		t.Errorf("a is %v", d)
	}
}

// Without the rule A records {A} before it finds that it may not go on: B, which has
// every write that was acknowledged, may not lead, and A's disk dies.
func TestTrace11d(t *testing.T) {
	r, a, b, c, w := trio(t, twoInSync)
	w.write(0, fill(1, rigBlock))
	w.flush()
	c.isolate()
	w.write(0, fill(2, rigBlock)) // after c was dropped
	w.flush()
	b.isolate()
	r.suspended(a)
	held := w.async(0, fill(3, rigBlock))
	r.eventually("the write is in a's journal", func() bool { s := a.vol.Status(); return s.Durable == s.End })
	w.pending(held, "a write of one replica alone")
	if set := a.recorded(); !slices.Equal(set, []string{"a", "b"}) {
		t.Fatalf("a has recorded %v", set)
	}
	a.kill()
	a.createFake()
	b.heal()
	b.promote(true)
	d := b.attach()
	if got := d.read(0, 1); got[0] != 2 {
		t.Fatalf("b reads %d", got[0])
	}
	late := d.async(0, fill(4, rigBlock))
	d.pending(late, "a write of one replica alone")
	c.heal()
	d.must(late)
	a.start()
	r.members()
	r.inSync("b", "a", "c")
}

// Without the rule a client that connects while a write of another is held back
// reads the old value, and the write comes to light under it.
func TestTrace11e(t *testing.T) {
	r := newFakeRig(t, twoInSync, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	b.isolate()
	r.suspended(a)
	w := c.async(0, fill(2, rigBlock))
	r.eventually("the write is in a's journal", func() bool { s := a.vol.Status(); return s.Durable == s.End })
	c.s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/4)
	defer cancel()
	if _, err := a.vol.Attach(ctx, nil); err == nil {
		t.Fatal("a client is admitted to a volume that is not settled")
	}
	b.heal()
	d := a.attach()
	if got := d.read(0, 1); got[0] != 2 {
		t.Fatalf("the new client reads %d", got[0])
	}
	c.must(w)
}

// Without the rule B, back under a freeze with another incarnation, is no member and
// cannot become one: its old self cannot be removed first.
func TestTrace11f(t *testing.T) {
	r := newFakeRig(t, func(o *Options) { o.MinInSync, o.PeerTimeout = 2, 300*time.Millisecond }, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	first := a.vol.Status().End
	// From memory, as it does: it is a member all along.
	b.sigkill()
	r.suspended(a)
	w := c.async(0, fill(2, rigBlock))
	b.start()
	c.must(w)
	if got := a.vol.Status().SetVersion; got != b.vol.Status().SetVersion {
		t.Errorf("set versions %d and %d", got, b.vol.Status().SetVersion)
	}
	// Without: it is replaced, at the second try, because at the first it cannot make
	// the generation durable that names it.
	old := b.vol.Status().Incarnation
	b.powerLoss(fakedisk.LoseAll)
	r.suspended(a)
	w = c.async(0, fill(3, rigBlock))
	s := b.stallAt(fakedisk.OpDatasync, "*.seg*", func() bool {
		b.mu.Lock()
		v := b.vol
		b.mu.Unlock()
		return v != nil && v.Status().End > first
	})
	b.start()
	s.wait(t)
	r.eventually("a gives the first try up", func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		g := a.vol.super.History.Last()
		return a.vol.joiner == nil && g.First > first+3 && setEqual(g.Set, a.vol.super.Set)
	})
	c.pending(w, "a write that no member but a has")
	s.letGo()
	b.fake.OnOp(nil)
	c.must(w)
	c.flush()
	a.vol.mu.Lock()
	h, set := a.vol.super.History, a.vol.super.Set
	a.vol.mu.Unlock()
	for _, g := range h[1:] {
		if len(g.Set) < 2 && g.First > first {
			t.Errorf("the generation at LSN %d has the set %v", g.First, g.Set)
		}
	}
	if now := b.vol.Status().Incarnation; now == old || !setHas(set, Member{Node: "b", Incarnation: now}) {
		t.Errorf("a has recorded %v; b was %d, and is %d", set, old, now)
	}
	r.members()
	r.inSync("a", "b")
}
