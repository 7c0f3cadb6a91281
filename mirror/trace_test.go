package mirror

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

// The traces of docs/counterexamples.md that need running volumes, by their
// numbers. What histories alone decide is in compare_trace_test.go.

// Without the rule a flush is acknowledged by A alone while B is being recorded
// as a member: A's disk dies, and B leads without what was flushed.
func TestTrace1a(t *testing.T) {
	r := newFakeRig(t, slowToDrop, "a", "b")
	a, b := r.node("a"), r.node("b")
	r.meet()
	// A leads alone, for B is away.
	b.kill()
	r.eventually("a notices", func() bool { return a.peer("b").Connection != Connected })
	a.promote(true)
	c := a.attach()
	c.write(0, fill(1, rigBlock))
	c.flush()
	recorded := a.stallAt(fakedisk.OpDatasync, superblockName, func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		p := a.vol.joiner
		return p != nil && p.with != nil && p.with.joinReady >= a.vol.joinLSN
	})
	b.start()
	recorded.wait(t) // B has caught up; its membership is on the way to A's disk
	r.gate("b", "a").hold()
	w := c.async(rigBlock, fill(2, rigBlock))
	r.eventually("b has the write", func() bool {
		return b.vol.Status().End == a.vol.Status().End && a.vol.Status().Durable == a.vol.Status().End
	})
	f := c.asyncFlush()
	c.pending(w, "a write that b did not acknowledge")
	c.pending(f, "a flush that b did not acknowledge")
	recorded.letGo()
	r.eventually("b is recorded", func() bool { return a.peer("b").Member })
	c.pending(w, "a write that b did not acknowledge")
	r.gate("b", "a").open()
	c.must(w)
	c.must(f)
	a.powerLoss(fakedisk.LoseAll)
	b.promote(true)
	if got := b.attach().read(0, 2*rigBlock); got[0] != 1 || got[rigBlock] != 2 {
		t.Fatalf("b reads %d and %d", got[0], got[rigBlock])
	}
}

// unheardTail gives A records that B never gets and nobody was answered for, then
// kills A and lets B lead. A is down in the end.
func unheardTail(t *testing.T, n int) (r *rig, a, b *rigNode, common LSN) {
	t.Helper()
	r = newFakeRig(t, slowToDrop, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, 8*rigBlock))
	c.flush()
	r.inSync("a", "b")
	common = a.vol.Status().End
	r.gate("a", "b").hold()
	var ws []waitDone
	for i := range n {
		ws = append(ws, c.async(int64(i%8)*rigBlock, fill(200+byte(i%8), rigBlock)))
	}
	f := c.asyncFlush()
	r.eventually("a has them durably", func() bool { return a.vol.Status().Durable == common+LSN(n) })
	for _, w := range append(ws, f) {
		c.pending(w, "what b never got")
	}
	a.kill()
	r.gate("a", "b").drop()
	r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
	b.promote(true)
	d := b.attach()
	if got := d.read(0, rigBlock); got[0] != 1 {
		t.Fatalf("b reads %d, which was never committed", got[0])
	}
	d.write(16*rigBlock, fill(3, rigBlock))
	d.flush()
	return r, a, b, common
}

// Without the rule a restart replays the journal to its end: the store keeps
// bytes that truncation takes only from the journal, and no bit says so.
func TestTrace2a(t *testing.T) {
	r, a, b, common := unheardTail(t, 5)
	b.isolate()
	a.start()
	if s := a.vol.Status(); s.End != common+5 || s.Applied > common {
		t.Fatalf("restarted with end %d and applied %d; stable was %d", s.End, s.Applied, common)
	}
	if got := storeOf(t, a.fake); got[0] != 1 {
		t.Fatalf("the store holds %d of a record that was never stable", got[0])
	}
	b.heal()
	r.eventually("a is a member again", func() bool { return b.peer("a").Member })
	r.inSync("b", "a")
	if got := storeOf(t, a.fake); got[0] != 1 || got[16*rigBlock] != 3 {
		t.Fatalf("a's store holds %d and %d", got[0], got[16*rigBlock])
	}
}

// Without a generation at every shrink an ordinary failover (X) and a split-brain
// (Y) have the same histories: one is refused, or the other loses what was flushed.
func TestTrace3aOnVolumes(t *testing.T) {
	t.Run("X", func(t *testing.T) {
		r, a, b, common := unheardTail(t, 5)
		a.start()
		r.eventually("a is a member again", func() bool { return b.peer("a").Member })
		r.inSync("b", "a")
		names, err := a.fake.List()
		if err != nil || !strings.Contains(strings.Join(names, " "), "set-aside.") {
			t.Fatalf("what a gave up past LSN %d was not set aside: %v, %v", common, names, err)
		}
	})
	t.Run("Y", func(t *testing.T) {
		r := newFakeRig(t, nil, "a", "b")
		a, b, c := r.pair()
		c.write(0, fill(1, rigBlock))
		c.flush()
		a.isolate()
		for range 5 { // after b was dropped
			c.write(rigBlock, fill(2, rigBlock))
		}
		c.flush()
		b.promote(true)
		d := b.attach()
		d.write(rigBlock, fill(3, rigBlock))
		d.flush()
		a.heal()
		r.splitBrain()
		if s := a.peer("b").SplitBrain; s.Ours < 4 || s.Theirs != 1 {
			t.Fatalf("a says %+v", s)
		}
		if x, y := c.read(rigBlock, 1)[0], d.read(rigBlock, 1)[0]; x != 2 || y != 3 {
			t.Fatalf("a reads %d, b %d", x, y)
		}
	})
}

func (r *rig) splitBrain() {
	r.t.Helper()
	a, b := r.node("a"), r.node("b")
	r.eventually("both know of the split-brain", func() bool {
		return a.peer("b").SplitBrain != nil && b.peer("a").SplitBrain != nil
	})
}

// Without the rule a stable LSN that an old Primary sent is believed after the
// truncation to a new one's history, and the dead suffix is applied.
func TestTrace3b(t *testing.T) {
	r := newFakeRig(t, patient, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	w := c.async(0, fill(2, rigBlock))
	r.eventually("b has the record", func() bool { return b.vol.Status().End == a.vol.Status().End })
	c.must(w)
	v := b.vol
	v.mu.Lock()
	old, stable, end, epoch := v.peers["a"].link, v.stable, v.end, v.super.Epoch
	v.mu.Unlock()
	if stable >= end {
		t.Fatalf("stable is %d of %d already", stable, end)
	}
	body := func(m Message) []byte { return AppendFrame(nil, m)[FrameHeaderSize:] }
	if err := old.heard(body(&Heartbeat{Stable: end, Committed: end, Epoch: epoch - 1, End: end})); err == nil {
		t.Error("an older epoch is listened to")
	}
	if err := b.vol.Disconnect("a"); err != nil {
		t.Fatal(err)
	}
	if err := old.heard(body(&Heartbeat{Stable: end, Committed: end, Epoch: epoch, End: end})); err == nil {
		t.Error("a connection that is over is listened to")
	}
	if got := v.Status().Stable; got != stable {
		t.Errorf("stable moved from %d to %d", stable, got)
	}
}

// Without the rule a Primary that lost the end of its journal goes on in the same
// generation: LSNs name two records each, and no verdict sees it.
func TestTrace9aOnVolumes(t *testing.T) {
	lose := func(t *testing.T) (*rig, *rigNode, *rigNode) {
		r := newFakeRig(t, patient, "a", "b")
		a, b, c := r.pair()
		c.write(0, fill(1, rigBlock))
		c.flush()
		for i := range int64(5) {
			c.write(i*rigBlock, fill(2, rigBlock))
		}
		end := a.vol.Status().End
		a.powerLoss(fakedisk.LoseAll)
		r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
		a.start()
		r.meet()
		if e := a.vol.Status().End; e != end-5 {
			t.Fatalf("a ends at %d, %d was not synced", e, end)
		}
		return r, a, b
	}
	t.Run("the other leads", func(t *testing.T) {
		r, a, b := lose(t)
		b.promote(false)
		r.eventually("a is a member again", func() bool { return b.peer("a").Member })
		d := b.attach()
		d.flush()
		for i := range int64(5) {
			if got := d.read(i*rigBlock, 1); got[0] != 2 {
				t.Fatalf("block %d reads %d", i, got[0])
			}
		}
		if x, y := a.vol.Status().End, b.vol.Status().End; x != y {
			t.Fatalf("ends %d and %d", x, y)
		}
	})
	t.Run("it is forced to lead again", func(t *testing.T) {
		r, a, b := lose(t)
		refused(t, a, "b")
		a.promote(true)
		r.splitBrain()
		if s := a.peer("b").SplitBrain; s.Theirs != 5 {
			t.Fatalf("a says %+v", s)
		}
		if e := b.vol.Status().End; e < 5 {
			t.Fatalf("b gave up records: it ends at %d", e)
		}
	})
}

// Without random ids two nodes forced apart draw the same generation, and their
// histories look equal: one is merged into the other without a word.
func TestTrace9bOnVolumes(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	a.kill()
	b.kill()
	a.isolate()
	for i, n := range []*rigNode{a, b} {
		n.start()
		n.promote(true)
		d := n.attach()
		d.write(0, fill(byte(10+i), rigBlock))
		d.flush()
	}
	if x, y := a.vol.Status(), b.vol.Status(); x.End != y.End || x.Epoch != y.Epoch {
		t.Fatalf("the two do not look alike: ends %d and %d, epochs %d and %d", x.End, y.End, x.Epoch, y.Epoch)
	}
	a.heal()
	r.splitBrain()
	for i, n := range []*rigNode{a, b} {
		if got := n.attach().read(0, 1); got[0] != byte(10+i) {
			t.Fatalf("%s reads %d", n.name, got[0])
		}
	}
}

// Without the CRC chain and the history, records of before a truncation come back
// to life behind the new ones; and rot in the middle looks like a torn tail.
func TestTrace9c(t *testing.T) {
	t.Run("old records", func(t *testing.T) {
		r, a, b, common := unheardTail(t, 70)
		a.start()
		r.eventually("a is a member again", func() bool { return b.peer("a").Member })
		r.inSync("b", "a")
		end := a.vol.Status().End
		if end >= common+70 {
			t.Fatalf("the new end %d is past the old one", end)
		}
		a.powerLoss(fakedisk.KeepAll)
		b.isolate()
		a.start()
		if got := a.vol.Status().End; got != end {
			t.Fatalf("ends at %d after a restart, at %d before", got, end)
		}
		b.heal()
		r.inSync("b", "a")
	})
	t.Run("rot", func(t *testing.T) {
		r := newFakeRig(t, slowToDrop, "a", "b")
		a, _, c := r.pair()
		for i := range int64(64) {
			c.write(i*rigBlock, fill(byte(i), rigBlock))
			c.flush()
		}
		r.inSync("a", "b")
		a.kill()
		sub, err := a.fake.Sub(journalDir)
		if err != nil {
			t.Fatal(err)
		}
		dir := sub.(*fakedisk.FS)
		names, err := dir.List()
		if err != nil {
			t.Fatal(err)
		}
		rotten := 0
		for _, name := range names {
			if dir.Flip(name, 100<<10, 64, 8) == nil {
				rotten++
			}
		}
		if rotten == 0 {
			t.Fatalf("nothing to rot in %v", names)
		}
		v, err := Open(a.options())
		if err == nil {
			s := v.Status()
			v.stop()
			v.wg.Wait()
			v.closeFiles()
			t.Fatalf("opened with end %d, disk %v", s.End, s.Disk)
		}
		if !errors.Is(err, journal.ErrDamaged) {
			t.Fatalf("%v", err)
		}
	})
}

// Without a generation record of its own a replica that was forced looks merely
// behind one that went on alone, and would be overwritten, or would lead, silently.
func TestTrace9dOnVolumes(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	a.isolate()
	c.write(0, fill(2, rigBlock))
	c.flush()
	b.promote(true)
	a.heal()
	r.splitBrain()
	if s := b.peer("a").SplitBrain; s.Ours != 0 || s.Theirs == 0 {
		t.Fatalf("b says %+v", s)
	}
	if x, y := c.read(0, 1)[0], b.attach().read(0, 1)[0]; x != 2 || y != 1 {
		t.Fatalf("a reads %d, b %d", x, y)
	}
}

// Without the rule B, cut off, is promoted by one unforced command on the word of
// its own superblock, and what A flushed alone is lost.
func TestTrace10aOnVolumes(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	a.isolate()
	c.write(0, fill(2, rigBlock))
	c.flush()
	r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
	refused(t, b, "a")
	b.restart()
	refused(t, b, "a")
	a.kill()
	refused(t, b, "a")
}

// refused fails unless n refuses an unforced promotion and names the peer. It waits
// for a peer to connect as long as with the rig's own time limit, however long the
// test's is.
func refused(t *testing.T, n *rigNode, peer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/4)
	defer cancel()
	var unsafe *UnsafePromotionError
	if err := n.vol.Promote(ctx, PromoteOptions{}); !errors.As(err, &unsafe) || !strings.Contains(err.Error(), peer) {
		t.Fatalf("unforced promotion of %s: %v", n.name, err)
	}
	if s := n.vol.Status(); s.Role != Secondary {
		t.Fatalf("%s is %v", n.name, s.Role)
	}
}

// Without the rule a node that finds itself alone after a power loss of both takes
// the role that it had, or the other's, and leads without what the other flushed.
func TestTrace10b(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.gate("a", "b").hold()
	r.gate("b", "a").hold()
	a.powerLoss(fakedisk.LoseAll)
	b.powerLoss(fakedisk.LoseAll)
	r.openGates()
	for _, n := range []*rigNode{a, b} {
		n.start()
		if s := n.vol.Status(); s.Role != Secondary || s.Disk == UpToDate {
			t.Fatalf("%s starts as %v, %v", n.name, s.Role, s.Disk)
		}
		if n == a {
			refused(t, a, "b")
		}
	}
	r.meet()
	b.promote(false)
	if got := b.attach().read(0, 1); got[0] != 1 {
		t.Fatalf("b reads %d", got[0])
	}
	r.members()
	r.inSync("b", "a")
}

// Without the order, a newcomer's own superblock says that it is a member before
// the Primary's does: after a crash of A both may lead, each with a licence.
func TestTrace10c(t *testing.T) {
	r := newFakeRig(t, slowToDrop, "a", "b")
	a, b := r.node("a"), r.node("b")
	r.meet()
	b.kill()
	r.eventually("a notices", func() bool { return a.peer("b").Connection != Connected })
	a.promote(true)
	c := a.attach()
	c.write(0, fill(1, rigBlock))
	c.flush()
	s := a.stallAt(fakedisk.OpDatasync, superblockName, func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		p := a.vol.joiner
		return p != nil && p.with != nil && p.with.joinReady >= a.vol.joinLSN
	})
	b.start()
	s.wait(t)
	left := a.fake.CrashClone(fakedisk.LoseAll)
	a.isolate()
	s.letGo()
	a.kill()
	a.fake, a.boot = left, "another"
	b.vol.mu.Lock()
	licensed := setHasNode(b.vol.super.Set, "b")
	b.vol.mu.Unlock()
	if licensed {
		t.Fatal("b recorded itself as a member before a did")
	}
	refused(t, b, "a")
	a.start()
	if set := nodesOf(a.vol.Status().InSync); len(set) != 1 {
		t.Fatalf("a restarts with the set %v", set)
	}
	a.promote(false) // b is excluded by a's own superblock
	d := a.attach()
	d.write(0, fill(2, rigBlock))
	d.flush()
	a.heal()
	r.members()
	r.inSync("a", "b")
}

// Without the rule each of two nodes that are cut off from each other, and do not know
// it yet, is promoted without force: each relies on the other's connection, waits for it
// in vain, and goes on without it.
func TestTrace10e(t *testing.T) {
	for _, volume := range []string{"new", "used"} {
		for _, cut := range []string{"both ways", "to a", "to b"} {
			t.Run(volume+", cut "+cut, func(t *testing.T) {
				t.Parallel()
				r := newFakeRig(t, nil, "a", "b")
				a, b := r.node("a"), r.node("b")
				r.meet()
				if volume == "used" {
					a.promote(false)
					r.members()
					a.demote()
				}
				r.idle()
				if cut != "to b" {
					r.gate("b", "a").hold()
				}
				if cut != "to a" {
					r.gate("a", "b").hold()
				}
				errs := make(chan error, 2)
				for _, n := range []*rigNode{b, a} {
					go func() { errs <- n.vol.Promote(context.Background(), PromoteOptions{}) }()
				}
				for range 2 {
					var unsafe *UnsafePromotionError
					if err := <-errs; !errors.As(err, &unsafe) {
						t.Errorf("promoted without force, %v\n%s", err, r.describe())
					}
				}
				r.gate("a", "b").drop()
				r.gate("b", "a").drop()
				r.idle()
				b.promote(false)
				r.inSync("b", "a")
			})
		}
	}
}

// Whoever agreed that the other be promoted is not promoted itself, not even by force,
// for as long as the other may be alive; and when it has died, by force.
func TestVoteIsKept(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b := r.node("a"), r.node("b")
	r.meet()
	r.idle()
	r.gate("a", "b").holdAt(FrameVote) // b asks for a vote that does not come
	promoted := make(chan error, 1)
	go func() { promoted <- b.vol.Promote(context.Background(), PromoteOptions{}) }()
	r.eventually("a has agreed", func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		p := a.vol.peers["b"]
		return p.with != nil && p.with.promised
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	for _, force := range []bool{false, true} {
		var unsafe *UnsafePromotionError
		if err := a.vol.Promote(ctx, PromoteOptions{Force: force}); !errors.As(err, &unsafe) || !unsafe.Hopeless {
			t.Fatalf("a is promoted after it agreed to b (by force: %v): %v", force, err)
		}
	}
	b.kill()
	<-promoted
	r.gate("a", "b").drop()
	a.promote(true)
}

// idle waits until every two nodes, all Secondary, are through with their handshake.
func (r *rig) idle() {
	r.t.Helper()
	r.eventually("they are connected", func() bool {
		for _, n := range r.nodes {
			n.vol.mu.Lock()
			busy := n.vol.shakesHands() || slices.ContainsFunc(n.vol.others, func(p *peerState) bool { return p.with == nil })
			n.vol.mu.Unlock()
			if busy {
				return false
			}
		}
		return true
	})
}

// nobody is a network without anybody.
type nobody struct{}

func (nobody) Dial(context.Context, string) (net.Conn, error) {
	return nil, errors.New("nobody is there")
}

// look opens what a crash left of a replica, alone, and closes it as a crash
// would. It returns its end, its history and what its store holds.
func look(t *testing.T, d *fakedisk.FS, node string, peers ...string) (Status, History, []byte) {
	t.Helper()
	v, err := Open(Options{Node: node, Volume: rigVolume, FS: d, Store: openFake(t, d), Peers: peers, Dialer: nobody{}, BootID: "look"})
	if err != nil {
		t.Fatalf("open what a crash left: %v", err)
	}
	s := v.Status()
	v.mu.Lock()
	h := v.super.History
	v.mu.Unlock()
	v.stop()
	v.wg.Wait()
	v.closeFiles()
	return s, h, storeOf(t, d)
}

// everyCrash has f see, from now until the returned function is called, what a
// power loss before each change of the node's disk would leave.
func everyCrash(n *rigNode, f func(op fakedisk.Op, name string, left *fakedisk.FS)) (stop func()) {
	var count atomic.Uint64
	d := n.fake
	d.OnOp(func(op fakedisk.Op, name string) error {
		switch op {
		case fakedisk.OpWrite, fakedisk.OpDatasync, fakedisk.OpRename, fakedisk.OpSyncDir, fakedisk.OpRemove, fakedisk.OpTruncate:
			k := count.Add(1)
			keep := []fakedisk.Policy{fakedisk.LoseAll, fakedisk.KeepAll, fakedisk.KeepSome(k)}
			f(op, name, d.CrashClone(keep[k%3]))
		}
		return nil
	})
	return func() { d.OnOp(nil) }
}

// With a truncation point beside the history, a start after a crash cuts once
// more, and takes what was acknowledged since.
func TestTrace14a(t *testing.T) {
	r, a, b, common := unheardTail(t, 20)
	a.start()
	r.eventually("a is a member again", func() bool { return b.peer("a").Member })
	d := b.attach()
	for i := range int64(20) {
		d.write((32+i)*rigBlock, fill(9, rigBlock))
	}
	d.flush()
	a.powerLoss(fakedisk.LoseAll)
	for range 2 {
		s, _, _ := look(t, a.fake, "a", "b")
		if s.End < common+20 {
			t.Fatalf("ends at %d: what was flushed past LSN %d is lost", s.End, common)
		}
	}
	a.start()
	r.eventually("a is a member again", func() bool { return b.peer("a").Member })
	r.inSync("b", "a")
}

// Without the superblock first a journal that is cut already has a history whose
// last generation begins past its end, which must not read as damage.
func TestTrace14b(t *testing.T) {
	crashInTruncation(t, func(name string) bool { return name != superblockName })
}

// Without the sweep's order (records cut, only then history entries dropped, only
// then a handshake) the dead suffix fits the history again at the next start.
func TestTrace14c(t *testing.T) {
	crashInTruncation(t, func(name string) bool { return name == superblockName })
}

func crashInTruncation(t *testing.T, at func(file string) bool) {
	t.Helper()
	r, a, b, common := unheardTail(t, 10)
	s, old, _ := look(t, a.fake.CrashClone(fakedisk.LoseAll), "a", "b")
	if s.End != common+10 {
		t.Fatalf("a ends at %d", s.End)
	}
	type left struct {
		op   fakedisk.Op
		name string
		disk *fakedisk.FS
	}
	var all []left
	stop := everyCrash(a, func(op fakedisk.Op, name string, d *fakedisk.FS) {
		if at(name) {
			all = append(all, left{op, name, d})
		}
	})
	a.start()
	r.eventually("a is a member again", func() bool { return b.peer("a").Member })
	r.inSync("b", "a")
	stop()
	whole, cut := 0, 0
	for _, l := range all {
		first, h, data := look(t, l.disk, "a", "b")
		again, h2, _ := look(t, l.disk, "a", "b")
		if first.End != again.End || len(h) != len(h2) {
			t.Fatalf("crash at %v of %s: ends at LSN %d with %d generations, after another start at %d with %d", l.op, l.name, first.End, len(h), again.End, len(h2))
		}
		if h.Last().First > first.End {
			t.Fatalf("crash at %v of %s: generation at %d past the end %d", l.op, l.name, h.Last().First, first.End)
		}
		if bytes.IndexByte(data[:8*rigBlock], 200) >= 0 {
			t.Fatalf("crash at %v of %s: the store has what was given up", l.op, l.name)
		}
		if first.End == common+10 && h.Last().ID == old.Last().ID {
			whole++
		} else if cut++; h.At(first.End).ID == old.Last().ID && first.End != common {
			t.Fatalf("crash at %v of %s: cut to LSN %d, the common one is %d", l.op, l.name, first.End, common)
		}
	}
	if whole == 0 || cut == 0 {
		t.Fatalf("%d crashes: %d before the cut, %d after", len(all), whole, cut)
	}
	t.Logf("%d crashes: %d before the cut, %d after", len(all), whole, cut)
}

// TestTrace10f: a write that is cut in two on both nodes is nobody's. The Primary is
// gone, both lost their memory, and each has the first parts of a write whose last never
// came. Whoever is promoted, without force, drops them, and the other has to have none
// either: as they meet, they cannot be told from what was acknowledged.
func TestTrace10f(t *testing.T) {
	for _, lost := range []bool{true, false} {
		r := newFakeRig(t, slowToDrop, "a", "b")
		a, b, c := r.pair()
		c.write(0, fill(1, rigBlock))
		c.flush()
		end := a.vol.Status().End
		r.eventually("b has it", func() bool { return b.vol.Status().End == end })
		a.vol.mu.Lock()
		tag := a.vol.super.History.Last().Tag()
		a.vol.mu.Unlock()
		a.kill()
		b.kill()
		for n, parts := range map[*rigNode]int{a: 2, b: 3} {
			n.cutWrite(tag, parts)
			want := end + LSN(parts) // a Primary that lives may remember that they were acknowledged
			if lost {
				n.boot, want = "another boot", end
			}
			n.start()
			if got := n.vol.Status().End; got != want {
				t.Errorf("memory lost: %v; %s ends at LSN %d, %d is wanted", lost, n.name, got, want)
			}
			n.kill() // before it meets the other
		}
		if lost {
			a.start()
			b.start()
			r.meet()
			a.promote(false)
			r.eventually("both are in sync", func() bool { return len(a.vol.Status().InSync) == 2 })
		}
	}
}

// cutWrite puts the first parts of a write into the journal of a node that is down.
func (n *rigNode) cutWrite(tag uint64, parts int) {
	t := n.rig.t
	t.Helper()
	dir, err := n.fake.Sub(journalDir)
	must(t, err)
	j, st, err := journal.Open(dir, journal.Options{})
	must(t, err)
	var recs []*journal.Record
	crc := j.EndCRC()
	for i := range parts {
		rec := &journal.Record{
			LSN: j.End() + LSN(i+1), Generation: tag, Kind: journal.KindWrite,
			Offset: int64(i+1) * rigBlock, Length: rigBlock, Payload: fill(9, rigBlock),
		}
		rec.PayloadCRC = crc32.Checksum(rec.Payload, journal.Castagnoli)
		rec.Seal(crc)
		recs, crc = append(recs, rec), rec.CRC
	}
	must(t, j.Append(recs, st.Noted, true))
	_, err = j.Sync()
	must(t, err)
	must(t, j.Close())
}
