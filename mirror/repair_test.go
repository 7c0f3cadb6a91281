package mirror

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A Secondary loses its journal while the Primary goes on: it is refused as it
// is, and comes back by a resync of the regions that were marked and of what the
// Primary wrote meanwhile.
func TestRepairSecondary(t *testing.T) {
	for _, row := range []struct {
		name string
		lose func(n *rigNode)
	}{
		{"missing", (*rigNode).loseJournal},
		{"damaged", (*rigNode).damageJournal},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRegionRig(t, nil)
			a, b, c := r.pair()
			r.whole(c)
			c.write(region(3), fill(101, rigBlock))
			c.flush()
			b.kill()
			row.lose(b)
			c.write(region(7)+rigBlock, fill(102, rigBlock))
			c.flush()
			r.dropped(a, b)
			old := b.incarnation()
			plan := b.repair(false)
			if plan.InDoubt < rigRegion || plan.InDoubt > 4*rigRegion || len(plan.Sources) != 1 {
				t.Errorf("the plan: %+v", plan)
			}
			sent := r.gate("a", "b").sent.Load()
			b.start()
			if s := b.vol.Status(); s.Disk == UpToDate || s.Disk == Consistent || s.Incarnation == old {
				t.Errorf("after the repair: %v, incarnation %x, before it %x", s.Disk, s.Incarnation, old)
			}
			r.members()
			r.inSync("a", "b")
			sent = r.gate("a", "b").sent.Load() - sent
			if p := a.peer("b"); p.Resyncs != 1 || p.OutOfSync != 0 {
				t.Errorf("%d resyncs, %d bytes out of sync", p.Resyncs, p.OutOfSync)
			}
			if sent < 2*rigBlock || sent > plan.InDoubt+1<<20 {
				t.Errorf("%d bytes crossed, with %d in doubt and %d in the volume", sent, plan.InDoubt, rigSize)
			}
			t.Logf("%d bytes crossed, %d were in doubt, the volume has %d", sent, plan.InDoubt, rigSize)
			r.atRest()
		})
	}
}

// incarnation is what the superblock of a node that is down says.
func (n *rigNode) incarnation() uint64 {
	f, sb, err := OpenSuperblock(n.fake)
	if err != nil {
		n.rig.t.Fatal(err)
	}
	f.Close()
	return sb.Incarnation
}

// The Primary loses its journal, with records in it that its peer never had, and
// with some that are in its store but not yet synced there.
func TestRepairPrimary(t *testing.T) {
	r := newRegionRig(t, slowToDrop)
	a, b, c := r.pair()
	r.whole(c)
	c.write(region(5), fill(101, rigBlock))
	c.flush()
	r.eventually("it is applied", func() bool { return a.vol.Status().Applied == a.vol.Status().End })
	r.gate("a", "b").hold()
	lost := c.async(region(9), fill(102, rigBlock))
	r.eventually("it is in the Primary's journal", func() bool { return a.vol.Status().Durable == a.vol.Status().End })
	c.pending(lost, "a write that only the Primary has")
	a.powerLoss(fakedisk.KeepSome(1))
	a.loseJournal()
	r.eventually("b notices", func() bool { return b.peer("a").Connection != Connected })
	b.promote(true)
	d := b.attach()
	d.write(region(11), fill(103, rigBlock))
	d.flush()
	a.repair(false)
	sent := r.gate("b", "a").sent.Load()
	a.start()
	soon, cancel := context.WithTimeout(t.Context(), time.Second) // the peer is Primary, and nobody waits until it is not
	defer cancel()
	if err := a.vol.Promote(soon, PromoteOptions{Force: true}); err == nil {
		t.Fatal("a replica without its journal was promoted")
	}
	r.members()
	r.inSync("b", "a")
	if got := d.read(region(9), rigBlock); got[0] != 10 {
		t.Errorf("region 9 holds %d: a write that nobody was answered for came back", got[0])
	}
	if sent = r.gate("b", "a").sent.Load() - sent; sent > 6*rigRegion {
		t.Errorf("%d bytes crossed", sent)
	}
}

// The only copy loses its journal: nothing but an operator's word makes what its
// store holds the volume again, and the old peer is then no copy of it.
func TestRepairOnlyCopy(t *testing.T) {
	r := newRegionRig(t, nil)
	a, b, c := r.pair()
	r.whole(c)
	b.kill()
	r.dropped(a, b)
	c.write(region(2), fill(101, rigBlock))
	c.flush()
	r.eventually("it is checkpointed", func() bool { s := a.vol.Status(); return s.Checkpoint == s.End })
	a.kill()
	a.loseJournal()
	a.mustRefuseRepair(false, "only copy")
	plan := a.repair(true)
	if len(plan.Loses) == 0 || len(plan.Sources) != 0 {
		t.Errorf("the plan: %+v", plan)
	}
	a.start()
	if s := a.vol.Status(); s.Disk != Consistent {
		t.Errorf("after the forced repair: %v", s.Disk)
	}
	a.promote(false)
	d := a.attach()
	if got := d.read(region(2), rigBlock); !bytes.Equal(got, fill(101, rigBlock)) {
		t.Errorf("region 2 begins with %d: the store had 101", got[0])
	}
	b.start()
	r.eventually("the peer is refused", func() bool { return a.peer("b").Verdict == Unrelated.String() || a.peer("b").Connection == StandAlone })
	if b.vol.Status().Disk == UpToDate || a.peer("b").Member {
		t.Error("the old peer counts as a copy of what only a's store has")
	}
	b.refill(a)
	r.inSync("a", "b")
	r.atRest()
}

// Both lose their journals: neither can bring the other up to date, until an
// operator takes one for the truth.
func TestRepairBothLost(t *testing.T) {
	r := newRegionRig(t, nil)
	a, b, c := r.pair()
	r.whole(c)
	c.write(region(4), fill(101, rigBlock))
	c.flush()
	a.kill()
	b.kill()
	for _, n := range []*rigNode{a, b} {
		n.loseJournal()
		n.repair(false)
		n.start()
	}
	r.eventually("they find that neither is a source", func() bool {
		return a.peer("b").Verdict == NoSource.String() && b.peer("a").Verdict == NoSource.String() && a.peer("b").Reason != "" && b.peer("a").Reason != ""
	})
	for _, n := range []*rigNode{a, b} {
		var unsafe *UnsafePromotionError
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := n.vol.Promote(soon, PromoteOptions{Force: true}); !errors.As(err, &unsafe) || !unsafe.Hopeless {
			t.Fatalf("promote %s: %v", n.name, err)
		}
	}
	a.kill()
	a.mustRefuseRepair(false, "given up already")
	a.repair(true)
	a.start()
	b.kill()
	a.promote(true)
	b.refill(a)
	r.inSync("a", "b")
}

// With the write-intent bitmap lost as well, every region is in doubt.
func TestRepairWithoutIntent(t *testing.T) {
	r := newRegionRig(t, func(o *Options) { o.NoResyncChecksums = true }) // what is compared is copied, and can be counted
	_, b, c := r.pair()
	r.whole(c)
	b.kill()
	b.loseJournal()
	if err := b.fake.Flip(intentName, 0, 8192, 1000); err != nil {
		t.Fatal(err)
	}
	c.write(region(4), fill(101, rigBlock))
	c.flush()
	if plan := b.repair(false); plan.InDoubt != rigSize {
		t.Errorf("%d bytes are in doubt", plan.InDoubt)
	}
	sent := r.gate("a", "b").sent.Load()
	b.start()
	r.members()
	r.inSync("a", "b")
	if sent = r.gate("a", "b").sent.Load() - sent; sent < rigSize {
		t.Errorf("%d bytes crossed, and all of %d may differ", sent, rigSize)
	}
}

// A replica that is the target of a resync already keeps the base that it began
// from: what a peer's bitmap says of an older replica does not count for it.
func TestRepairInAResync(t *testing.T) {
	r := newRegionRig(t, nil)
	_, b, c := r.pair()
	r.whole(c)
	b.kill()
	b.create() // an empty disk
	b.newIntent(t)
	s := b.stallAt(fakedisk.OpDatasync, fakeData, nil)
	b.start()
	s.wait(t)
	b.powerLossIn(s, fakedisk.LoseAll)
	b.loseJournal()
	b.repair(false)
	if _, sb, err := OpenSuperblock(b.fake); err != nil || sb.Resync == nil || sb.Resync.JournalLost || sb.Resync.Base.LSN != 0 {
		t.Fatalf("the resync mark is %+v (%v)", sb.Resync, err)
	}
	b.start()
	r.members()
	r.inSync("a", "b")
}

// A replica that never was a member speaks for nobody's acknowledgements: a
// peer's bitmap may be about another one before it, and all is in doubt.
func TestRepairOfAReplicaThatNeverJoined(t *testing.T) {
	r := newRegionRig(t, nil)
	_, b, c := r.pair()
	r.whole(c)
	b.kill()
	f, sb, err := OpenSuperblock(b.fake)
	if err != nil {
		t.Fatal(err)
	}
	sb.Set = nil
	if err := errors.Join(f.Commit(&sb), f.Close()); err != nil {
		t.Fatal(err)
	}
	b.loseJournal()
	if plan := b.repair(false); plan.InDoubt != rigSize {
		t.Errorf("%d bytes are in doubt", plan.InDoubt)
	}
	b.start()
	r.members()
	r.inSync("a", "b")
}

// A replica that failed (invariant 9) comes back the same way.
func TestRepairFailed(t *testing.T) {
	r := newRegionRig(t, nil)
	a, b, c := r.pair()
	r.whole(c)
	b.fake.OnOp(func(op fakedisk.Op, name string) error {
		if op == fakedisk.OpDatasync && name == fakeData {
			return errDisk
		}
		return nil
	})
	c.write(region(6), fill(101, rigBlock))
	c.flush()
	r.eventually("b has failed, and noted it", func() bool {
		b.vol.mu.Lock()
		defer b.vol.mu.Unlock()
		return b.vol.super.Disk == Failed
	})
	b.fake.OnOp(nil)
	if _, err := b.vol.PlanRepair(RepairOptions{}); err != nil {
		t.Errorf("the plan of a failed replica: %v", err)
	}
	b.powerLoss(fakedisk.LoseAll)
	r.dropped(a, b)
	b.repair(false)
	b.start()
	r.members()
	r.inSync("a", "b")
	if p := a.peer("b"); p.Resyncs != 1 {
		t.Errorf("%d resyncs", p.Resyncs)
	}
	if _, err := b.vol.PlanRepair(RepairOptions{Force: true}); err == nil {
		t.Error("there is a plan for a replica that is whole")
	}
	b.kill()
	b.mustRefuseRepair(true, "nothing to repair")
}

// TestRepairIsResumed: the target, or the source, dies in the middle of the
// resync after a repair; what was in doubt still is.
func TestRepairIsResumed(t *testing.T) {
	for _, victim := range []string{"target", "source"} {
		t.Run(victim, func(t *testing.T) {
			r := newRegionRig(t, nil)
			a, b, c := r.pair()
			r.whole(c)
			for i := range int64(8) {
				c.write(region(2*i), fill(byte(101+i), rigRegion))
			}
			c.flush()
			b.powerLoss(fakedisk.LoseAll)
			b.loseJournal()
			r.dropped(a, b)
			c.write(region(20), fill(120, rigRegion))
			c.flush()
			b.repair(false)
			s := b.stallAt(fakedisk.OpWrite, fakeData, nil)
			b.start()
			s.wait(t)
			if victim == "target" {
				b.powerLossIn(s, fakedisk.KeepSome(7))
				b.start()
			} else {
				a.powerLoss(fakedisk.LoseAll)
				s.letGo()
				b.fake.OnOp(nil)
				a.start()
				r.eventually("they meet again", func() bool { return a.peer("b").Verdict != "" })
				a.promote(false)
			}
			r.members()
			r.inSync("a", "b")
			if got := a.attach().read(region(2), rigBlock); got[0] != 102 {
				t.Errorf("region 2 holds %d", got[0])
			}
		})
	}
}

// TestResyncShowsWhatIsCommitted: a source that was promoted just now has not
// committed its journal's end yet, and the stream will not bring that: no block is
// read before.
func TestResyncShowsWhatIsCommitted(t *testing.T) {
	r := newRegionRig(t, nil)
	a, b, c := r.pair()
	r.whole(c)
	b.kill()
	b.loseJournal()
	c.must(c.submit(writeReq(0, fill(90, rigBlock)))) // committed by b's journal, which is lost
	a.kill()
	b.repair(false)
	a.start()
	b.start()
	r.meet()
	s := a.stallAt(fakedisk.OpDatasync, "*.seg", nil)
	promoted := make(chan error, 1)
	go func() { promoted <- a.vol.Promote(context.Background(), PromoteOptions{Force: true}) }()
	s.wait(t)
	r.eventually("the resync begins", func() bool { return a.peer("b").Replication == SyncSource })
	sent := r.gate("a", "b").sent.Load()
	r.eventually("the sender has had its turn", func() bool { return r.gate("a", "b").sent.Load() > sent })
	if p := a.peer("b").Progress; p == nil || p.Records > 0 || r.gate("a", "b").sent.Load() > sent+rigBlock {
		t.Errorf("blocks were sent before anything was committed: %+v", p)
	}
	s.letGo()
	if err := <-promoted; err != nil {
		t.Fatal(err)
	}
	r.members()
	r.inSync("a", "b")
}

// TestInvariant10Repair: a power loss at any operation of a repair leaves a
// replica that cannot be opened and can be repaired, or one that is Inconsistent;
// either is resynced. Its sweep of the disk's operations is over both kinds of
// repair; a forced one leaves what it found or the only copy.
func TestInvariant10Repair(t *testing.T) {
	r := newRegionRig(t, nil)
	a, b, c := r.pair()
	r.whole(c)
	c.write(region(3), fill(101, rigRegion))
	c.flush()
	b.kill()
	r.dropped(a, b)
	c.write(region(8), fill(102, rigRegion))
	c.flush()
	a.kill()
	b.damageJournal()
	source, target := a.fake, b.fake.CrashClone(fakedisk.KeepAll)
	for _, force := range []bool{false, true} {
		b.fake = target.CrashClone(fakedisk.KeepAll)
		crashes := crashesDuring(b, func() { b.repair(force) })
		if len(crashes) < 10 {
			t.Fatalf("%d crashes", len(crashes))
		}
		step := 1
		if underRace {
			step = 5
		}
		lost, opened := 0, 0
		for i := 0; i < len(crashes); i += step {
			b.fake = crashes[i]
			v, err := Open(b.options())
			switch {
			case errors.Is(err, ErrJournalLost):
				lost++
				b.repair(force)
			case err != nil:
				t.Fatalf("crash %d: %v", i, err)
			default:
				opened++
				if s := v.Status(); force != (s.Disk == Consistent) || !force && s.Disk != Inconsistent {
					t.Fatalf("crash %d: opens as %v, forced %v", i, s.Disk, force)
				}
				v.stop()
				v.wg.Wait()
				v.closeFiles()
			}
			if i%4 != 0 {
				continue
			}
			a.fake = source.CrashClone(fakedisk.KeepAll)
			a.start()
			b.start()
			if force {
				b.promote(true)
				if got := b.attach().read(region(3), rigBlock); got[0] != 101 && got[0] != 4 {
					t.Fatalf("crash %d: region 3 holds %d", i, got[0])
				}
			} else {
				a.promote(true)
				r.members()
				r.inSync("a", "b")
			}
			a.kill()
			b.kill()
		}
		if lost == 0 {
			t.Errorf("%d crashes, of which none came before the new journal", len(crashes))
		}
		t.Logf("forced %v: %d crashes left no journal, %d the new one", force, lost, opened)
	}
}

// TestRepairRandom: whoever of two loses its journal, whatever a power loss or a
// kill leaves besides, a repair makes both equal again, and nothing that was
// flushed is lost.
func TestRepairRandom(t *testing.T) {
	rng := seed(t)
	r := newRegionRig(t, nil)
	nodes := []*rigNode{r.node("a"), r.node("b")}
	r.meet()
	primary, other := nodes[0], nodes[1]
	primary.promote(false)
	r.members()
	var flushed, now [rigSize / rigBlock]byte
	rounds := 12
	if underRace {
		rounds = 3
	}
	full := 0
	for round := range rounds {
		c := primary.attach()
		work := func(n int) {
			for range n {
				at, v := rng.IntN(len(now)), byte(1+rng.IntN(255))
				if rng.IntN(3) > 0 {
					at %= 256 // mostly the same
				}
				c.write(int64(at)*rigBlock, fill(v, rigBlock))
				now[at] = v
			}
			c.flush()
			flushed = now
		}
		work(100)
		if rng.IntN(3) == 0 {
			r.atRest()
			work(rng.IntN(10))
		}
		victim := nodes[rng.IntN(2)]
		var late []waitDone
		for range rng.IntN(20) { // unanswered
			late = append(late, c.async(int64(256+rng.IntN(100))*rigBlock, fill(200, rigBlock)))
		}
		if rng.IntN(2) == 0 {
			victim.powerLoss(fakedisk.KeepSome(rng.Uint64()))
		} else {
			victim.kill()
		}
		_ = late
		if rng.IntN(2) == 0 {
			victim.loseJournal()
		} else {
			victim.damageJournal()
		}
		if victim == primary {
			r.eventually("the peer notices", func() bool { return other.peer(primary.name).Connection != Connected })
			primary, other = other, primary
			primary.promote(true)
		}
		c = primary.attach()
		for i := range int64(100) { // settle what was unanswered
			c.write((256+i)*rigBlock, fill(7, rigBlock))
			now[256+i] = 7
		}
		work(rng.IntN(50))
		if plan := victim.repair(false); plan.InDoubt == rigSize {
			full++
		}
		victim.start()
		work(rng.IntN(50))
		r.members()
		r.inSync(primary.name, other.name)
		image := storeOf(t, other.fake)
		for i, want := range flushed {
			if image[i*rigBlock] != want {
				t.Fatalf("round %d: block %d holds %d, and %d was flushed", round, i, image[i*rigBlock], want)
			}
		}
	}
	if full > rounds/2 {
		t.Errorf("%d of %d repairs had everything in doubt", full, rounds)
	}
}
