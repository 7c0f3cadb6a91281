package mirror

import (
	"errors"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// The window of a promotion, between the role and the new generation's record being
// durable on every member.

// unserved fails if the node answers clients, whoever asks it to look whether it may.
func (n *rigNode) unserved(why string) {
	n.rig.t.Helper()
	n.vol.mu.Lock()
	n.vol.advance()
	n.vol.mu.Unlock()
	if s := n.vol.Status(); s.Role != Primary || s.Serving {
		n.rig.t.Fatalf("%v, serving %v: %s", s.Role, s.Serving, why)
	}
	if s, err := n.vol.Attach(n.rig.t.Context(), nil); !errors.Is(err, block.ErrNotServing) {
		n.rig.t.Fatalf("a client is let in (%v, %v): %s", s, err, why)
	}
}

// While the superblock that has the new generation is being written nothing is
// served on the strength of the last one, and no peer is told of a Primary whose
// history is not yet its own.
func TestPromotionBeforeItsGeneration(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	a.kill()
	r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
	v := b.vol
	s := b.stallAt(fakedisk.OpDatasync, superblockName, func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.role == Primary && !v.led
	})
	done := make(chan error, 1)
	go func() { done <- v.Promote(t.Context(), PromoteOptions{Force: true}) }()
	s.wait(t)
	b.unserved("its generation is not in the superblock")
	l := &link{peer: v.peers["a"], v: v}
	if ok, again := l.register(); ok || !again {
		t.Errorf("in mid-promotion a peer is told of role %v and %d generations", l.mine.Description.Role, len(l.mine.Description.History))
	}
	s.letGo()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if ok, _ := l.register(); !ok || l.mine.Description.History.Last().First != v.Status().End {
		t.Error("after the promotion a peer is told of another history")
	}
}

// Nor is anything served before every member of the new generation's set has its
// record durably, though the Primary has.
func TestPromotionBeforeItIsDurable(t *testing.T) {
	r := newFakeRig(t, slowToDrop, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	c.s.Close()
	a.demote()
	r.meet()
	end := a.vol.Status().End
	j := b.vol.journal
	s := b.stallAt(fakedisk.OpDatasync, "*.seg", func() bool { return j.End() > end })
	done := make(chan error, 1)
	go func() { done <- a.vol.Promote(t.Context(), PromoteOptions{}) }()
	s.wait(t)
	r.eventually("a has its generation durably", func() bool {
		st := a.vol.Status()
		return st.Durable > end && len(st.InSync) == 2
	})
	r.eventually("b has received it", func() bool { return a.peer("b").Received > end })
	a.unserved("b has not made the generation durable")
	s.letGo()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !a.vol.Status().Serving {
		t.Error("does not serve")
	}
}

// TestLateCutOff: what a connection's end says is recorded after a promotion, or
// after the next connection was through its handshake, and is void then (10a).
func TestLateCutOff(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, _ := r.pair()
	linkOf := func() *link {
		b.vol.mu.Lock()
		defer b.vol.mu.Unlock()
		return b.vol.peers["a"].link
	}
	l := linkOf()
	l.cutOff()
	if disk := b.vol.Status().Disk; disk != UpToDate {
		t.Errorf("with a connection that is through its handshake it is %v", disk)
	}
	a.kill()
	r.eventually("b notices", func() bool { return linkOf() == nil && b.vol.Status().Disk == Consistent })
	b.promote(true)
	l.cutOff()
	if disk := b.vol.Status().Disk; disk != UpToDate {
		t.Errorf("promoted, it is %v", disk)
	}
}

// TestHistoryPastTheEnd: the history says that a generation begins before its
// record comes. If the session ends in between, the entry is without a record,
// and whatever generation begins there next takes its place: one that a Primary
// sends, and one of our own. One that does not follow changes nothing.
func TestHistoryPastTheEnd(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	begun := func() { // and no more
		t.Helper()
		id, err := NewID(nil)
		must(t, err)
		must(t, b.vol.commitSuper(func(sb *Superblock) {
			last := sb.History.Last()
			sb.History, err = sb.History.Append(Generation{ID: id, Parent: last.ID, Epoch: sb.Epoch, First: b.vol.end + 1, Set: sb.Set})
		}))
		must(t, err)
	}
	a.isolate()
	r.eventually("b is alone", func() bool { return b.peer("a").Connection != Connected && a.peer("b").Connection != Connected })
	begun()
	r.eventually("a goes on", func() bool { return len(a.vol.Status().InSync) == 1 })
	a.heal()
	r.members()
	c.write(0, fill(2, rigBlock))
	c.flush()
	r.inSync("a", "b")

	a.kill()
	r.eventually("b notices", func() bool { return b.peer("a").Connection != Connected })
	begun()
	b.promote(true)
	if got := b.attach().read(0, 1); got[0] != 2 {
		t.Errorf("reads %d", got[0])
	}
}
