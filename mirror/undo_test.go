package mirror

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

// TestP3Rollback is P3 for a bitmap resync: its source is cut off at any point of
// it, under live writes, and now and then the target loses its power too. Rolled
// back, the target is the image that it had before, bit for bit; and when the
// source comes back, it is resynced, and equal.
func TestP3Rollback(t *testing.T) {
	fewHeld(t)
	rng := seed(t)
	rounds := 4
	if testing.Short() || underRace {
		rounds = 2
	}
	u := newUndoRig(t, rng, slowResync)
	inTheMiddle := 0
	for range rounds {
		stop := u.liveWrites(u.c, rng)
		cut := u.gate("a", "b").sent.Load() + rng.Int64N(resyncArea)
		u.b.start()
		u.eventually("so much was sent", func() bool {
			return u.gate("a", "b").sent.Load() > cut || u.a.peer("b").Member
		})
		if rng.IntN(2) == 0 {
			u.a.powerLoss(fakedisk.KeepSome(rng.Uint64()))
		} else {
			u.a.kill()
		}
		stop()
		if rng.IntN(2) == 0 {
			u.b.powerLoss(fakedisk.KeepSome(rng.Uint64()))
			u.b.start()
		}
		if u.b.vol.Status().Disk == Inconsistent {
			inTheMiddle++
			if plan := u.b.rollback(); plan.Base.LSN != u.base || plan.Source != "a" {
				t.Errorf("the plan is %+v", plan)
			}
			u.isImage()
		}
		u.comesBack()
		u.leave(rng)
	}
	if inTheMiddle == 0 {
		t.Error("no resync was cut off")
	}
	t.Logf("%d of %d resyncs were cut off and rolled back", inTheMiddle, rounds)
}

// A replica that was rolled back is what it was: an operator may promote it by
// force, and its clients read the old image.
func TestRolledBackIsPromoted(t *testing.T) {
	rng := seed(t)
	u := newUndoRig(t, rng, slowerResync)
	u.b.start()
	u.resyncing()
	err := u.b.vol.Promote(t.Context(), PromoteOptions{Force: true})
	var unsafe *UnsafePromotionError
	if !errors.As(err, &unsafe) || !unsafe.Hopeless {
		t.Fatalf("an Inconsistent replica is promoted: %v", err)
	}
	u.a.kill()
	if err := u.b.vol.Promote(t.Context(), PromoteOptions{Force: true}); err == nil || !strings.Contains(err.Error(), "lockstep rollback data") {
		t.Fatalf("the way back is not named: %v", err)
	}
	u.b.rollback()
	u.isImage()
	if err := u.b.vol.Promote(t.Context(), PromoteOptions{}); !errors.As(err, &unsafe) || unsafe.Hopeless {
		t.Fatalf("it is promoted without force: %v", err)
	}
	u.b.promote(true)
	c := u.b.attach()
	mustEqualImage(t, c.read(0, rigSize), u.image)
	c.write(0, fill(7, rigBlock))
	c.flush()
}

// TestTrace8a: a block that waits for others to be written does not come over a
// record that is newer than it, however early that is stable.
func TestTrace8a(t *testing.T) {
	rng := seed(t)
	u := newUndoRig(t, rng, nil)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			u.c.must(u.c.async(int64(i%4)*rigBlock+resyncArea-4*rigBlock, fill(byte(i), rigBlock)))
			if i%2 == 0 {
				u.c.flush()
			}
		}
	}()
	u.b.start()
	u.eventually("b is a member", func() bool { return u.a.peer("b").Member })
	close(stop)
	<-done
	u.c.flush()
	u.inSync("a", "b")
}

// Of two batches that are held the older one says how far the applier may go: the
// receiver fills one while the other is written.
func TestHeldBatches(t *testing.T) {
	r := newRig(t, nil, "a")
	v, u := r.node("a").vol, &resyncTarget{filling: &heldBatch{}}
	expect := func(what string, held bool, at LSN) {
		t.Helper()
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.held != held || held && v.heldAt != at {
			t.Errorf("%s: held %v, at LSN %d", what, v.held, v.heldAt)
		}
	}
	hold := func(at LSN) {
		v.mu.Lock()
		stable := v.stable
		v.stable = at
		v.mu.Unlock()
		v.hold(u)
		v.mu.Lock()
		v.stable = stable
		v.mu.Unlock()
	}
	hold(3)
	hold(7)
	expect("two batches", true, 3)
	v.letGo(u)
	expect("the older one is written", true, 7)
	hold(9)
	v.letGo(u)
	expect("and the next", true, 9)
	v.letGo(u)
	expect("all are written", false, 0)
	hold(9)
	(&link{v: v, target: targetState{resync: u}}).dropHeld()
	expect("the session is over", false, 0)
}

// While blocks are held, the applier does not pass what was stable when the first
// of them came (8a).
func TestTrace8aApplierWaits(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	_, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	v := b.vol
	v.mu.Lock()
	v.held, v.heldAt = true, v.stable
	at := v.stable
	v.mu.Unlock()
	c.write(0, fill(2, rigBlock))
	c.flush()
	r.eventually("b knows that it is stable, and has noted it", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.stableNote > at
	})
	v.applyRound()
	if s := v.Status(); s.Applied != at {
		t.Errorf("LSN %d is applied, and a block is held since LSN %d", s.Applied, at)
	}
	v.mu.Lock()
	v.held = false
	v.mu.Unlock()
	kick(v.applyKick)
	r.inSync("a", "b")
}

// TestTrace8b: the image is that of all records up to the base, of which some were
// in b's journal only; and what live writes overwrite is kept as well as what the
// resync does.
func TestTrace8b(t *testing.T) {
	rng := seed(t)
	u := newUndoRig(t, rng, slowResync)
	u.b.start()
	u.members()
	u.inSync("a", "b")
	// b holds these and does not apply them.
	s := u.b.stallAt(fakedisk.OpWrite, fakeData, nil)
	u.c.write(resyncArea+3*rigBlock, randomly(rng, 5*rigBlock))
	u.c.write(0, randomly(rng, rigBlock))
	u.c.flush()
	s.wait(t)
	u.image = storeOf(t, u.a.fake)
	u.eventually("a has applied it", func() bool { s := u.a.vol.Status(); return s.Applied == s.End })
	u.image, u.base = storeOf(t, u.a.fake), u.b.vol.Status().End
	u.b.powerLossIn(s, fakedisk.KeepAll)
	u.b.fake.OnOp(nil)
	if got := storeOf(t, u.b.fake); string(got) == string(u.image) {
		t.Fatal("b has applied everything, and this tests nothing")
	}
	u.dropped(u.a, u.b)
	u.overflow(u.c, rng)
	u.b.start()
	u.eventually("the resync is under way", func() bool { return u.b.vol.Status().Undo != nil })
	live := int64(rigSize - 64*rigBlock) // no block of the resync
	if u.a.vol.peers["b"].bits.Test(live) {
		t.Fatal("the block is in the resync")
	}
	u.c.write(live, randomly(rng, 8*rigBlock))
	u.c.flush()
	u.eventually("b has applied the live write", func() bool {
		return string(storeOf(t, u.b.fake)[live:live+8*rigBlock]) != string(u.image[live:live+8*rigBlock])
	})
	u.a.kill()
	u.b.rollback()
	u.isImage()
	u.comesBack()
}

// TestTrace8c: the source does not forget the bits of blocks that it sent: a target
// that is rolled back has lost them. One that is not goes on where it was.
func TestTrace8c(t *testing.T) {
	fewHeld(t)
	for _, back := range []bool{true, false} {
		u := newUndoRig(t, seed(t), slowResync)
		u.b.start()
		u.eventually("blocks are acknowledged", func() bool {
			p := u.a.peer("b").Progress
			return p != nil && p.Records > 0 && p.Done > 0
		})
		u.b.isolate()
		u.eventually("the session ends", func() bool {
			return u.b.peer("a").Replication != SyncTarget && u.a.peer("b").Replication != SyncSource
		})
		sent := u.gate("a", "b").sent.Load()
		if back {
			u.b.rollback()
			u.isImage()
		}
		u.b.heal()
		if err := u.b.vol.Connect("a"); err != nil {
			t.Fatal(err)
		}
		u.members()
		u.inSync("a", "b")
		if sent = u.gate("a", "b").sent.Load() - sent; back != (sent >= resyncArea) {
			t.Errorf("rolled back %v: %d bytes were sent once more, of %d", back, sent, resyncArea)
		}
		if p := u.a.peer("b"); p.OutOfSync != 0 || p.Resyncs != 1 {
			t.Errorf("%d bytes are out of sync after %d resyncs", p.OutOfSync, p.Resyncs)
		}
	}
}

// What was sent and not acknowledged when a session ends is sent again: the target
// may not have it (8c).
func TestTrace8cUnacknowledged(t *testing.T) {
	fewHeld(t)
	u := newUndoRig(t, seed(t), func(o *Options) { // without checksums: or none is sent without an answer
		slowerResync(o)
		slowToDrop(o)
		o.NoResyncChecksums = true
	})
	u.b.start()
	u.eventually("blocks are acknowledged", func() bool {
		p := u.a.peer("b").Progress
		return p != nil && p.Done > 0
	})
	v := u.a.vol
	v.mu.Lock()
	p := v.peers["b"]
	r := p.link.source.resync
	v.mu.Unlock()
	u.gate("b", "a").hold()
	sent, acked := int64(0), int64(0)
	u.eventually("more is sent than is acknowledged", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		sent, acked = r.sentBytes, r.ackedBytes
		return sent > acked+1<<20
	})
	u.b.isolate()
	u.gate("b", "a").drop()
	p.awaitEnd()
	for off := acked; off < resyncArea; off += rigBlock {
		if !p.remaining.Load().Test(off) {
			t.Fatalf("the block at %d was sent, of %d bytes acknowledged and %d sent, and is not sent again", off, acked, sent)
		}
	}
	if p.remaining.Load().Test(0) {
		t.Error("what was acknowledged is sent again")
	}
	u.b.heal()
	u.members()
	u.inSync("a", "b")
}

// TestTrace8d: what a replica that was rolled back claims: its history up to the
// base, that others went on, and nothing of what it acknowledged since, which is why
// it is another incarnation.
func TestTrace8d(t *testing.T) {
	u := newUndoRig(t, seed(t), slowerResync)
	u.b.start()
	u.resyncing()
	before := u.b.vol.Status().Incarnation
	u.c.write(rigSize-rigBlock, fill(9, rigBlock))
	u.c.flush()
	u.eventually("b acknowledges what is past its base", func() bool { return u.a.peer("b").Durable > u.base })
	u.b.rollback()
	v := u.b.vol
	v.mu.Lock()
	d := v.describe(v.peers["a"]).Description
	v.mu.Unlock()
	if d.Resync != nil || d.Disk != Outdated || !d.Excluded || d.End != u.base || d.Stable > u.base || d.Durable > u.base ||
		d.Incarnation == before || d.History.Last().First > u.base {
		t.Errorf("it claims %+v", d)
	}
	// Nor is it taken for one whose disk went back in time (20b).
	if err := v.Connect("a"); err != nil {
		t.Fatal(err)
	}
	u.members()
	u.inSync("a", "b")
}

// TestTrace8e: what the target of a resync acknowledges lets no record go from the
// source's journal without its blocks: rolled back, the target lacks them.
func TestTrace8e(t *testing.T) {
	rng := seed(t)
	u := newUndoRig(t, rng, func(o *Options) { o.ResyncRate = 1 << 20 })
	u.b.start()
	u.resyncing()
	live := int64(rigSize - rigBlock)
	u.c.write(live, fill(9, rigBlock))
	u.c.flush()
	lsn := u.a.vol.Status().End
	u.eventually("b acknowledges it", func() bool { return u.a.peer("b").Durable >= lsn })
	for i := 0; u.a.vol.Status().Journal.First <= lsn; i++ {
		if i > 400 {
			t.Fatalf("the journal does not overflow\n%s", u.describe())
		}
		u.c.write(int64(i%4)<<20, randomly(rng, 1<<20))
	}
	if !u.a.vol.peers["b"].bits.Test(live) {
		t.Error("the record left the journal, and its block is in no bitmap")
	}
	if s := u.b.vol.Status(); s.Disk != Inconsistent {
		t.Fatalf("the resync is through already: %v", s.Disk)
	}
	u.a.kill()
	u.b.rollback()
	u.isImage()
	u.nodes["a"].rig.opts = nil
	u.comesBack()
}

// TestRollbackIsRefused where there is nothing to go back to, and changes nothing.
func TestRollbackIsRefused(t *testing.T) {
	refused := func(n *rigNode, why string) {
		t.Helper()
		before := n.vol.Status()
		_, err := n.vol.Rollback(context.Background())
		var r *RollbackRefusedError
		if !errors.As(err, &r) || !strings.Contains(err.Error(), why) {
			t.Fatalf("rollback of %s: %v", n.name, err)
		}
		if after := n.vol.Status(); after.Disk != before.Disk || after.End != before.End || after.Peers[0].Connection == StandAlone {
			t.Errorf("a rollback that was refused changed %s: %+v", n.name, after)
		}
	}
	rng := seed(t)
	u := newUndoRig(t, rng, func(o *Options) { o.ResyncRate, o.ResyncUndo = 8<<20, UndoOff })
	refused(u.a, "no resync")
	u.b.start()
	u.eventually("the resync is under way", func() bool { return u.b.vol.Status().Disk == Inconsistent })
	if s := u.b.vol.Status(); s.Undo != nil {
		t.Errorf("resync-undo is off, and there is an undo: %+v", s.Undo)
	}
	refused(u.b, "resync-undo off")
	u.members()
	u.inSync("a", "b")
	refused(u.b, "no resync")
}

// An undo that was begun is given up by the operator's word, and not otherwise.
func TestUndoIsTurnedOff(t *testing.T) {
	off := false
	u := newUndoRig(t, seed(t), func(o *Options) {
		slowerResync(o)
		if off {
			o.ResyncUndo = UndoOff
		}
	})
	u.b.start()
	u.resyncing()
	u.b.restart()
	if u.b.vol.Status().Undo == nil {
		t.Fatal("a restart lost the undo")
	}
	off = true
	u.b.restart()
	if s := u.b.vol.Status(); s.Undo != nil || s.Disk != Inconsistent {
		t.Errorf("%v, undo %+v", s.Disk, s.Undo)
	}
	u.members()
	u.inSync("a", "b")
}

// The file of an undo that is over is removed beside the session: the replica is a
// member, and its acknowledgements count, while the removal takes its time. And nobody
// makes the next undo, of the same name, meanwhile.
func TestUndoIsRemovedAside(t *testing.T) {
	fewHeld(t)
	rng := seed(t)
	u := newUndoRig(t, rng, slowResync)
	u.b.fake.OnOp(func(op fakedisk.Op, name string) error {
		if v := u.b.vol; op == fakedisk.OpCreate && name == undoName+".new" && v.undoFile.TryLock() {
			v.undoFile.Unlock()
			t.Error("an undo is made, and nothing keeps the removal of the one before away from its file")
		}
		return nil
	})
	u.b.start()
	u.resyncing()
	s := u.b.stallAt(fakedisk.OpRemove, undoName, nil)
	u.members()
	s.wait(t)
	u.c.write(0, randomly(rng, rigBlock))
	u.c.flush()
	if s := u.a.vol.Status(); len(s.InSync) != 2 {
		t.Errorf("the in-sync set is %v once a flush was answered", s.InSync)
	}
	if v := u.b.vol; v.undoFile.TryLock() {
		v.undoFile.Unlock()
		t.Error("the file is being removed, and another could be made")
	}
	s.letGo()
	u.inSync("a", "b")
	u.undoGone()
}

// TestResyncPauses when what it overwrites cannot be kept: nothing is lost, and it
// goes on under a higher limit.
func TestResyncPauses(t *testing.T) {
	for what, limit := range map[string]int64{"before the first block": 64 << 10, "in the middle": 2 << 20} {
		rng := seed(t)
		set, area := limit, int64(resyncArea)
		if limit > 1<<20 {
			area = 1 << 20 // the space for that is there
		}
		u := newUndoRigOf(t, rng, area, func(o *Options) {
			o.ResyncRate = 32 << 10 // the writes below are faster, however busy the machine is
			if o.Node == "b" {
				o.ResyncUndo = set
			}
		})
		u.b.start()
		if limit > 1<<20 {
			u.eventually("the undo is there", func() bool { return u.b.vol.Status().Undo != nil })
			for off := int64(0); off < rigSize && u.b.peer("a").Connection != StandAlone; off += 1 << 20 {
				u.c.must(u.c.async(off, randomly(rng, 1<<20)))
			}
		}
		u.eventually("the resync is paused "+what, func() bool { return u.b.peer("a").Connection == StandAlone })
		if s := u.b.vol.Status(); s.Undo == nil || !strings.Contains(s.Undo.Problem, "resync-undo") || !strings.Contains(s.Peers[0].Problem, "resync-undo") ||
			s.Undo.Used > limit || s.Disk != Inconsistent {
			t.Fatalf("%s: undo %+v, problem %q", what, s.Undo, s.Peers[0].Problem)
		}
		if limit < 1<<20 {
			if n := u.b.vol.Status().Undo.Preserved; n != 0 {
				t.Errorf("%d bytes were overwritten", n)
			}
			u.b.rollback()
			u.isImage()
		}
		set = 0
		u.a.kill()
		u.nodes["a"].rig.opts = nil
		u.a.start()
		u.a.promote(true)
		u.b.restart()
		u.members()
		u.inSync("a", "b")
	}
}

// A replica that lost its journal in the middle of a resync is repaired, and can be
// rolled back still: its undo does not need the journal.
func TestRollbackAfterRepair(t *testing.T) {
	u := newUndoRig(t, seed(t), slowerResync)
	u.b.start()
	u.resyncing()
	u.a.kill()
	u.b.kill()
	u.b.loseJournal()
	u.b.repair(false)
	u.b.start()
	u.b.rollback()
	u.isImage()
	u.nodes["a"].rig.opts = nil
	u.comesBack()
}

// An undo that is damaged ends the way back, says so, and the resync goes on.
func TestUndoIsDamaged(t *testing.T) {
	u := newUndoRig(t, seed(t), slowerResync)
	u.b.start()
	u.resyncing()
	u.b.kill()
	for _, at := range []int64{0, 4096} {
		if err := u.b.fake.Flip(undoName, at, 8, 8); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := Check(u.b.fake, CheckOptions{}); err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].File, undoName) {
		t.Errorf("Check: %+v, %v", r.Problems, err)
	}
	v, err := Open(u.b.options())
	if err != nil {
		t.Fatal(err)
	}
	u.b.mu.Lock()
	u.b.vol = v
	u.b.mu.Unlock()
	var r *RollbackRefusedError
	if _, err := v.Rollback(t.Context()); !errors.As(err, &r) {
		t.Errorf("rolled back without an undo: %v", err)
	}
	u.members()
	u.inSync("a", "b")
}

// Where the common point is in the middle of a write, the image is what lies before
// that write: its parts are never applied without the last one, but in a resync.
func TestRollbackOfACutWrite(t *testing.T) {
	rng := seed(t)
	u := newUndoRig(t, rng, slowerResync)
	u.a.kill()
	u.nodes["a"].rig.opts = nil
	u.a.start()
	u.a.promote(true)
	u.c = u.a.attach()
	u.b.start()
	u.members()
	u.inSync("a", "b")
	u.image, u.base = storeOf(t, u.a.fake), u.b.vol.Status().End
	v := u.b.vol
	s := u.b.stallAt(fakedisk.OpWrite, "*.seg*", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.end > u.base
	})
	w := u.c.async(resyncArea, randomly(rng, 6<<20)) // six records
	s.wait(t)
	boot := u.b.boot
	u.b.powerLossIn(s, fakedisk.KeepAll)
	u.b.boot = boot // only the process died: one that lost its memory drops a cut write
	u.b.fake.OnOp(nil)
	u.dropped(u.a, u.b)
	u.c.must(w)
	u.rig.opts = slowerResync
	u.a.restart()
	u.a.promote(true)
	u.c = u.a.attach()
	dir, err := u.b.fake.Sub(journalDir)
	must(t, err)
	j, _, err := journal.Open(dir, journal.Options{})
	must(t, err)
	end := j.End()
	must(t, j.Close())
	if end <= u.base || end >= u.base+6 {
		t.Fatalf("b has the records up to LSN %d, and the write is that after LSN %d", end, u.base)
	}
	for i := 0; u.a.vol.Status().Journal.First <= end+1; i++ {
		u.c.write(int64(i%8)<<20, randomly(rng, 1<<20))
	}
	u.c.flush()
	u.b.start()
	u.resyncing()
	u.a.kill()
	if got := u.b.vol.Status(); got.Undo.Base.LSN != u.base {
		t.Fatalf("the undo goes back to LSN %d, not %d", got.Undo.Base.LSN, u.base)
	}
	u.b.rollback()
	u.isImage()
	u.nodes["a"].rig.opts = nil
	u.comesBack()
}
