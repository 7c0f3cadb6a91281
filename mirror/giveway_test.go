package mirror

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A replica that was Primary without its peer and wrote nothing gives way
// (replication.md 5 and 6), and one that lost its memory stands down.

// forcedInVain: A went on alone and wrote; B was promoted by force, has its
// generation record checkpointed, and was demoted. They are cut off. A writes
// nothing of what B reads at first: block 0 is 1 on B, and 2 on A.
func forcedInVain(t *testing.T, opts func(*Options)) (r *rig, a, b *rigNode, c *client) {
	t.Helper()
	r = newFakeRig(t, opts, "a", "b")
	a, b, c = r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	a.isolate()
	c.write(0, fill(2, rigBlock))
	c.flush()
	b.promote(true)
	if got := b.attach().read(0, 1); got[0] != 1 {
		t.Fatalf("b reads %d", got[0])
	}
	r.eventually("b has its generation in the store's checkpoint", func() bool {
		_ = b.vol.takeCheckpoint()
		s := b.vol.Status()
		return s.Checkpoint == s.End
	})
	return r, a, b, c
}

func (r *rig) connect() {
	r.t.Helper()
	for _, n := range r.nodes {
		if err := n.vol.Connect(""); err != nil {
			r.t.Fatal(err)
		}
	}
}

// The whole way of a false alarm: as long as B is Primary both refuse, its clients
// lose nothing, and A cannot be overruled; demoted and connected again B follows
// A. What B believed to be stable, applied and checkpointed goes back with its
// generation, so that nothing of A's is taken for that.
func TestGenerationsOnlyGiveWay(t *testing.T) {
	r, a, b, c := forcedInVain(t, nil)
	a.heal()
	r.splitBrain()
	if s := b.peer("a").SplitBrain; s.Ours != 0 || s.Theirs == 0 {
		t.Fatalf("b says %+v", s)
	}
	if got := b.attach().read(0, 1); got[0] != 1 {
		t.Fatalf("b, which is Primary, reads %d", got[0])
	}
	b.demote()
	common := b.vol.Status().End - 1
	r.gate("b", "a").hold() // from the handshake on A hears nothing of B
	r.connect()
	r.gate("b", "a").open()
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	r.inSync("a", "b")
	if got := storeOf(t, b.fake); got[0] != 2 {
		t.Fatalf("b's store holds %d", got[0])
	}
	names, err := b.fake.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "set-aside.") {
			t.Errorf("%s: there was no write to set aside", name)
		}
	}
	// And what it noted for its own history does not outlive it.
	c.write(rigBlock, fill(3, rigBlock))
	c.flush()
	b.powerLoss(fakedisk.LoseAll)
	if s, _, _ := look(t, b.fake, "b", "a"); s.End <= common || s.Stable > s.End {
		t.Fatalf("b restarts with %+v", s)
	}
	b.start()
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	r.inSync("a", "b")
}

// What B knew to be stable of the history that it gives up says nothing of A's
// records at the same LSNs, which are neither applied nor trimmed on the strength
// of it; and a bitmap stays relative to what there is.
func TestGivenUpStableIsForgotten(t *testing.T) {
	_, _, b, _ := forcedInVain(t, nil)
	b.demote()
	v := b.vol
	end := v.Status().End
	c := end - 1
	v.mu.Lock()
	p := v.peers["a"]
	if v.stable != end || v.stableNote != end || v.applied != end || v.checkpoint != end {
		t.Fatalf("of LSN %d stable is %d, noted %d, applied %d, checkpointed %d", end, v.stable, v.stableNote, v.applied, v.checkpoint)
	}
	p.bits.SetBase(v.position(end))
	p.bitsThrough = end
	v.mu.Unlock()
	if err := v.truncateTo(c-1, nil, nil); err == nil || v.Status().End != end {
		t.Fatalf("a write that is stable is given up (%v)", err)
	}
	if err := v.truncateTo(c, nil, nil); err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for what, lsn := range map[string]LSN{
		"end": v.end, "appended": v.appended, "durable": v.durable, "committed": v.committed, "stable": v.stable,
		"noted": v.noted, "noted durably": v.stableNote, "applied": v.applied, "checkpoint": v.checkpoint,
		"in the bitmap": p.bitsThrough, "base": LSN(p.bits.Base().LSN),
	} {
		if lsn > c {
			t.Errorf("%s: LSN %d, of a journal that was truncated to LSN %d", what, lsn, c)
		}
	}
	if got, want := p.bits.Base(), v.position(c); got != want {
		t.Errorf("the bitmap's base is %v, want %v", got, want)
	}
}

// A power loss at any moment of it leaves a replica that is still as it was, or
// has given way, and nothing of A's in the store that A has not said to be stable.
func TestCrashWhileGivingWay(t *testing.T) {
	t.Parallel()
	r, a, b, _ := forcedInVain(t, nil)
	b.demote()
	old := b.vol.Status()
	crashes := crashesDuring(b, func() {
		a.heal()
		r.connect()
		r.eventually("b is a member again", func() bool { return a.peer("b").Member })
		r.inSync("a", "b")
	})
	ends := looks(t, crashes, "b", "a")
	if ends[old.End] == 0 || ends[old.End-1] == 0 {
		t.Fatalf("%d crashes end at %v; b ended at LSN %d", len(crashes), ends, old.End)
	}
	for i := range 4 {
		b.kill()
		b.fake = crashes[len(crashes)*i/4]
		b.boot += "+"
		b.start()
		r.members()
		r.inSync("a", "b")
	}
}

// Both without a write: the Primary stays, and the other follows without a word
// from anybody, whoever has the higher epoch or the longer suffix.
func TestTwoWithoutAWrite(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	a.isolate()
	r.eventually("a is alone", func() bool { return len(a.vol.Status().InSync) == 1 })
	for range 3 {
		b.promote(true)
		b.demote()
	}
	if x, y := a.vol.Status(), b.vol.Status(); x.Epoch >= y.Epoch || x.End >= y.End {
		t.Fatalf("a is in epoch %d and ends at %d, b in %d at %d", x.Epoch, x.End, y.Epoch, y.End)
	}
	a.heal()
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	c.write(0, fill(2, rigBlock))
	c.flush()
	r.inSync("a", "b")
}

// Two Secondaries: the side that wrote may lead without force, whatever the other's
// set version; the other may not, nor after it is cut off again or restarted.
func TestGivesWayAmongSecondaries(t *testing.T) {
	r, a, b, c := forcedInVain(t, nil)
	for range 3 { // so that b has counted further than a
		b.demote()
		b.promote(true)
	}
	b.demote()
	c.s.Close()
	a.demote()
	if x, y := a.vol.Status(), b.vol.Status(); x.SetVersion >= y.SetVersion {
		t.Fatalf("set versions %d and %d", x.SetVersion, y.SetVersion)
	}
	a.heal()
	r.connect()
	r.meet()
	refused(t, b, "a")
	// Nothing goes across, and that is not called Established.
	for _, n := range []*rigNode{a, b} {
		for _, p := range n.vol.Status().Peers {
			if p.Connection != Connected || p.Replication != ReplOff || p.Reason == "" {
				t.Errorf("%s shows %v, %v, %q", n.name, p.Connection, p.Replication, p.Reason)
			}
		}
	}
	a.isolate()
	r.eventually("b notices", func() bool { return b.peer("a").Connection != Connected })
	refused(t, b, "a")
	b.restart()
	refused(t, b, "a")
	a.heal()
	r.meet()
	a.promote(false)
	r.members()
	r.inSync("a", "b")
	if got := b.fake; storeOf(t, got)[0] != 2 {
		t.Fatalf("b's store holds %d", storeOf(t, got)[0])
	}
}

// A journal that can no longer be cut to the last write is the one thing that would
// keep a replica from giving way: trimming leaves the generation records at the
// end, and what is before them, alone.
func TestTrimLeavesGenerationsAtTheEnd(t *testing.T) {
	g := history(gen(1, 1, "a1"), gen(2, 11, "a1"), gen(3, 12, "a1"), gen(4, 20, "a1"))
	for end, want := range map[LSN]LSN{10: 10, 11: 10, 12: 10, 13: 13, 19: 19, 20: 19, 21: 21, 1: 0, 0: 0} {
		if got := g.LastWrite(end); got != want {
			t.Errorf("the last write up to LSN %d is %d, want %d", end, got, want)
		}
	}
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	last := a.vol.Status().End
	b.kill()
	r.eventually("a is alone", func() bool { return len(a.vol.Status().InSync) == 1 })
	r.eventually("a has checkpointed its generation", func() bool {
		_ = a.vol.takeCheckpoint()
		return a.vol.Status().Checkpoint > last
	})
	a.vol.mu.Lock()
	a.vol.peers["b"].bitsThrough = a.vol.end // b's bitmap holds nothing back
	a.vol.mu.Unlock()
	a.vol.tail.Lock()
	limit, err := a.vol.raiseBases()
	a.vol.tail.Unlock()
	if err != nil || limit > last {
		t.Fatalf("may be trimmed to LSN %d; the last write is LSN %d; %v", limit, last, err)
	}
}

// lostTail: A, the lone member, acknowledged writes from memory while B caught up,
// and lost power and with it those writes. Both are up, B being ahead.
func lostTail(t *testing.T) (r *rig, a, b *rigNode) {
	t.Helper()
	interval := time.Hour
	r = newFakeRig(t, func(o *Options) { o.PeerTimeout, o.SyncInterval = 4*time.Second, interval }, "a", "b")
	a, b, c := r.pair()
	b.kill()
	c.write(0, fill(1, rigBlock))
	c.flush()
	v := a.vol
	held := a.stallAt(fakedisk.OpDatasync, superblockName, func() bool { // B does not come to join
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.joiner != nil
	})
	c.write(rigBlock, fill(2, rigBlock))
	end := a.vol.Status().End
	b.start()
	r.eventually("b has caught up", func() bool { return b.vol.Status().End >= end })
	held.wait(t)
	a.fake.OnOp(nil)
	a.cutOffAndLosePower(held)
	interval = 20 * time.Millisecond
	b.restart()
	a.start()
	r.meet()
	if x, y := a.vol.Status().End, b.vol.Status().End; x >= y || y < end {
		t.Fatalf("a ends at LSN %d, b at %d", x, y)
	}
	return r, a, b
}

func (n *rigNode) cutOffAndLosePower(held *stall) {
	left := n.fake.CrashClone(fakedisk.LoseAll)
	n.isolate()
	held.letGo()
	n.kill()
	n.fake = left
	n.boot += "+"
	n.heal()
}

// The one that is ahead may be promoted without force, and the other may not, not
// even once the first is gone again.
func TestLonePrimaryLosesItsTail(t *testing.T) {
	r, a, b := lostTail(t)
	refused(t, a, "b")
	b.promote(false)
	d := b.attach()
	if got := d.read(0, 2*rigBlock); got[0] != 1 || got[rigBlock] != 2 {
		t.Fatalf("b reads %d and %d", got[0], got[rigBlock])
	}
	d.write(0, fill(3, rigBlock))
	d.flush()
	if b.vol.Status().SetVersion <= a.vol.Status().SetVersion && len(b.vol.Status().InSync) == 1 {
		t.Fatalf("b's set is no newer than a's")
	}
	r.members()
	r.inSync("b", "a")
}

// A stands down before B may lead: at no time can both, each with its own licence.
func TestLonePrimaryStandsDownFirst(t *testing.T) {
	r, a, b := lostTail(t)
	_ = r
	b.promote(false)
	d := b.attach()
	a.isolate()
	d.write(0, fill(3, rigBlock))
	d.flush()
	refused(t, a, "b")
	b.kill()
	a.restart()
	refused(t, a, "b")
}

// A replica that a lone Primary excluded may not lead while that one has not stood
// down, nor when it comes back with an empty disk: what it flushed alone is nowhere
// else.
func TestExcludedMayNotLead(t *testing.T) {
	for _, how := range []string{"as it was", "empty"} {
		t.Run(how, func(t *testing.T) {
			r := newFakeRig(t, nil, "a", "b")
			a, b, c := r.pair()
			b.kill()
			c.write(0, fill(1, rigBlock))
			c.flush()
			a.vol.mu.Lock()
			p := a.vol.peers["b"]
			p.lag.after = time.Now().Add(time.Hour)
			a.vol.mu.Unlock()
			end := a.vol.Status().End
			b.start()
			r.eventually("b has caught up", func() bool { return b.vol.Status().End == end })
			a.kill()
			if how == "empty" {
				a.createFake()
			}
			r.eventually("b notices", func() bool { return b.peer("a").Connection != Connected })
			a.start()
			r.meet()
			refused(t, b, "Outdated")
		})
	}
}

// Nor does it when the one that stood down does not know of the newest set: its
// disk went back in time, and whoever was in that set may have flushed more.
func TestExcludedByANewerSet(t *testing.T) {
	_, _, b := lostTail(t)
	if err := b.vol.commitSuper(func(sb *Superblock) { sb.SetVersion += 3 }); err != nil {
		t.Fatal(err)
	}
	refused(t, b, "Outdated")
}

// Without the rule a replica that follows a Primary keeps the word of its own
// superblock that it is the only member, if that counts as many changes as the
// Primary's: cut off again it leads without force, and without what was flushed.
func TestFollowerHasNoLicence(t *testing.T) {
	r := newFakeRig(t, func(o *Options) { o.PeerTimeout = 4 * time.Second }, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	a.kill()
	r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
	// A removed B, durably, and lost power before the generation that says so.
	b.isolate()
	a.start()
	if err := a.vol.commitSuper(func(sb *Superblock) {
		sb.SetVersion += 3
		sb.Set, sb.Disk = setWithout(sb.Set, "b"), Consistent
	}); err != nil {
		t.Fatal(err)
	}
	b.promote(true)
	d := b.attach()
	d.write(0, fill(2, rigBlock))
	d.flush()
	b.vol.mu.Lock()
	b.vol.peers["a"].lag.after = time.Now().Add(time.Hour)
	b.vol.mu.Unlock()
	if x, y := a.vol.Status().SetVersion, b.vol.Status().SetVersion; x <= y {
		t.Fatalf("set versions %d and %d", x, y)
	}
	b.heal()
	r.eventually("a follows b", func() bool { return a.vol.Status().End == b.vol.Status().End })
	a.isolate()
	d.write(0, fill(3, rigBlock))
	d.flush()
	refused(t, a, "b")
	a.restart()
	refused(t, a, "b")
}

// Without the check a promotion between a handshake and the truncation or resync
// that it decided on loses the new generation: nothing in it is a write yet.
func TestPromotionEndsAHandshake(t *testing.T) {
	r, a, b, c := forcedInVain(t, nil)
	b.demote()
	common := b.vol.Status().End - 1
	c.s.Close()
	a.demote()
	a.heal()
	r.connect()
	r.eventually("b is to give way", func() bool { return b.peer("a").Verdict == WeTruncate.String() })
	v := b.vol
	v.mu.Lock()
	l := v.peers["a"].link
	v.mu.Unlock()
	b.promote(true)
	end := v.Status().End
	if err := v.truncateTo(common, l, nil); !errors.Is(err, errAgain) {
		t.Errorf("a Primary truncates on the word of an older session: %v", err)
	}
	l.mine.Description.Resync = &ResyncMark{}
	if err := l.beginResync(&Proceed{Mode: ModeResync, Common: common, From: common + 1}); !errors.Is(err, errAgain) {
		t.Errorf("a Primary begins a resync on the word of an older session: %v", err)
	}
	if s := v.Status(); s.End != end || s.Disk != UpToDate {
		t.Fatalf("b ends at LSN %d, at %d before, and is %v", s.End, end, s.Disk)
	}
	d := b.attach()
	d.write(0, fill(9, rigBlock))
	d.flush()
}

// What a sync made durable says nothing of a journal that was truncated meanwhile.
func TestSyncAcrossATruncation(t *testing.T) {
	_, a, _, common := unheardTail(t, 5)
	a.isolate()
	a.start()
	v := a.vol
	v.mu.Lock()
	cuts, durable := v.cuts, v.durable
	v.mu.Unlock()
	if durable != common+5 {
		t.Fatalf("a is durable through LSN %d", durable)
	}
	if err := v.truncateTo(common, nil, nil); err != nil {
		t.Fatal(err)
	}
	v.synced(durable, durable, cuts) // which began before
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.durable != common || v.stableNote > common {
		t.Fatalf("durable through LSN %d, noted stable %d, of a journal that ends at %d", v.durable, v.stableNote, common)
	}
}

// A Primary dies with a write that its peer never had; the peer is promoted by
// force, goes on alone, and loses its memory before they meet. Its generation names
// who it was when it went on: nobody was answered for that write, so the old Primary
// gives it up, and there is no split-brain for an operator to settle.
func TestWentOnAloneAndLostItsMemory(t *testing.T) {
	r := newFakeRig(t, slowToDrop, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	r.gate("a", "b").hold()
	w := c.async(0, fill(2, rigBlock))
	r.eventually("a has the write in its journal", func() bool {
		s := a.vol.Status()
		return s.Durable == s.End && s.End > b.vol.Status().End
	})
	c.pending(w, "a write that the member does not have")
	a.sigkill()
	r.gate("a", "b").drop()
	b.promote(true)
	c = b.attach()
	c.write(rigBlock, fill(3, rigBlock))
	c.flush()
	b.powerLoss(fakedisk.LoseAll)
	r.gate("a", "b").open()
	b.start()
	a.start()
	r.eventually("they have met", func() bool { return a.peer("b").SplitBrain != nil || a.peer("b").Verdict == WeTruncate.String() })
	if s := a.peer("b").SplitBrain; s != nil {
		t.Fatalf("a split-brain: %+v", s)
	}
	b.promote(false)
	c = b.attach()
	if got := c.read(0, 2*rigBlock); got[0] != 1 || got[rigBlock] != 3 {
		t.Fatalf("b reads %d and %d", got[0], got[rigBlock])
	}
	r.inSync("b", "a")
	if got := storeOf(t, a.fake); got[0] != 1 || got[rigBlock] != 3 {
		t.Fatalf("a's store holds %d and %d", got[0], got[rigBlock])
	}
}
