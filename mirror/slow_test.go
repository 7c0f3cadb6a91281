package mirror

import (
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

const testBudget = 50 * time.Millisecond

// budgeted is for tests in which a peer may be too slow, and none is given up for lost.
func budgeted(o *Options) {
	slowToDrop(o)
	o.PeerLatencyBudget = testBudget
}

// A slow member leaves as a lost one does: the smaller set is recorded, then what
// waited is acknowledged. It stays connected, receives, and comes back from the journal
// once it keeps up.
func TestSlowPeerLeaves(t *testing.T) {
	var log eventLog
	r := newRig(t, func(o *Options) { budgeted(o); log.hooks(o) }, "a", "b")
	a, b, c := r.pair()
	before := a.peer("b")
	acks := r.gate("b", "a")
	acks.hold()
	c.write(0, fill(1, rigBlock)) // as long as it takes
	if set := a.recorded(); len(set) != 1 || set[0] != "a" {
		t.Fatalf("acknowledged without b, and a has recorded %v", set)
	}
	s := a.peer("b").Slow
	if s == nil || s.Budget != testBudget || s.Worst <= testBudget || !s.MayReturn.After(s.Since) || !strings.HasPrefix(s.Reason, "slow: ") {
		t.Fatalf("the status says %+v", s)
	}
	r.eventually("it is told of", func() bool { return len(log.of("a", EventSlowPeer)) > 0 })
	if e := log.of("a", EventSlowPeer)[0]; e.Peer != "b" || e.Role != Primary || !strings.Contains(e.Reason, "peer-latency-budget") {
		t.Errorf("told was %+v", e)
	}
	c.write(rigBlock, fill(2, rigBlock)) // nobody is waited for
	acks.open()

	r.eventually("it is connected, and no member", func() bool {
		p := a.peer("b")
		return p.Replication == CatchUp && !p.Member && b.vol.Status().Disk == Outdated
	})
	c.write(2*rigBlock, fill(3, rigBlock))
	end := a.vol.Status().End
	r.eventually("it receives what is written meanwhile", func() bool { return a.peer("b").Received >= end })
	r.members()
	if now := time.Now(); now.Before(s.MayReturn) {
		t.Errorf("it came back %v too early", s.MayReturn.Sub(now))
	}
	after := a.peer("b")
	if after.Slow != nil || after.CatchUps != before.CatchUps+1 || after.Resyncs != before.Resyncs {
		t.Errorf("it came back as %+v", after)
	}
	if n := len(log.of("a", EventSlowPeer)); n != 1 {
		t.Errorf("it left %d times", n)
	}
	r.inSync("a", "b")
}

// A slow disk of the peer's is found by the flushes that wait for it.
func TestSlowDiskLeaves(t *testing.T) {
	r := newFakeRig(t, budgeted, "a", "b")
	a, b, c := r.pair()
	b.stallAt(fakedisk.OpDatasync, "*.seg*", nil)
	c.write(0, fill(1, rigBlock))
	c.flush()
	if p := a.peer("b"); p.Slow == nil || p.Member {
		t.Fatalf("the flush was answered, and b is %+v", p)
	}
	b.held.letGo()
	r.members()
	r.inSync("a", "b")
}

// When our own disk is as slow as the peer's, the peer does not leave.
func TestSlowPrimaryKeepsItsPeers(t *testing.T) {
	r := newFakeRig(t, budgeted, "a", "b")
	a, b, c := r.pair()
	ours, theirs := a.stallAt(fakedisk.OpDatasync, "*.seg*", nil), b.stallAt(fakedisk.OpDatasync, "*.seg*", nil)
	c.write(0, fill(1, rigBlock))
	w := make(waitDone, 1)
	go func() { w <- <-c.asyncFlush() }() // a lone flush is synced by its submitter
	ours.wait(t)
	theirs.wait(t)
	time.Sleep(2 * slowBudgets * testBudget)
	c.pending(w, "a flush")
	if p := a.peer("b"); p.Slow != nil || !p.Member {
		t.Errorf("b is %+v", p)
	}
	ours.letGo()
	theirs.letGo()
	c.must(w)
}

// A set that cannot do without a slow member keeps it, and waits.
func TestSlowPeerMinInSync(t *testing.T) {
	r := newRig(t, func(o *Options) { budgeted(o); o.MinInSync = 2 }, "a", "b")
	a, _, c := r.pair()
	acks := r.gate("b", "a")
	acks.hold()
	w := c.async(0, fill(1, rigBlock))
	r.eventually("b is too slow", func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		return a.vol.peers["b"].lag.tooSlow()
	})
	time.Sleep(4 * testBudget) // several looks of those that remove members
	c.pending(w, "a write")
	if s := a.vol.Status(); len(s.InSync) != 2 || s.Suspended || s.Peers[0].Slow != nil {
		t.Errorf("the set is %v, suspended %v, slow %+v", s.InSync, s.Suspended, s.Peers[0].Slow)
	}
	acks.open()
	c.must(w)
}

// Of two slow members the set can do without one: the other stays, and is waited for.
func TestSlowPeersOfThree(t *testing.T) {
	r := newRig(t, func(o *Options) { budgeted(o); o.MinInSync = 2 }, "a", "b", "c")
	a, _, w := r.pair()
	r.gate("c", "a").hold()
	first := w.async(0, fill(1, rigBlock))
	r.eventually("c has left", func() bool { return a.peer("c").Slow != nil })
	w.must(first)
	r.gate("b", "a").hold()
	second := w.async(0, fill(2, rigBlock))
	r.eventually("b is too slow as well", func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		return a.vol.peers["b"].lag.tooSlow()
	})
	w.pending(second, "a write")
	if p := a.peer("b"); !p.Member || p.Slow != nil {
		t.Errorf("b is %+v", p)
	}
	r.openGates()
	w.must(second)
	r.members()
}

// 13c: a peer that is out for being slow holds nobody back through the journal either:
// when that is short of room what the peer lacks goes into its bitmap. Without the rule
// writers wait for it.
func TestTrace13c(t *testing.T) {
	r := newRig(t, budgeted, "a", "b")
	a, _, c := r.pair()
	before := a.peer("b")
	acks, records := r.gate("b", "a"), r.gate("a", "b")
	acks.hold()
	c.write(0, fill(1, rigBlock))
	acks.open()
	r.eventually("b catches up", func() bool { return a.peer("b").Replication == CatchUp })
	acks.hold()
	records.hold()
	for i := range int64(96) { // half as much again as the journal takes
		c.write(i%(rigSize>>20)<<20, fill(byte(i), 1<<20))
	}
	if p := a.peer("b"); p.OutOfSync == 0 || p.Slow == nil {
		t.Errorf("b is %+v", p)
	}
	r.openGates()
	r.members()
	if p := a.peer("b"); p.Resyncs != before.Resyncs+1 {
		t.Errorf("it came back as %+v", p)
	}
	r.inSync("a", "b")
}
