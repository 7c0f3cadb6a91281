package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

// The invariants of docs/architecture.md, section 4, each by its name. Number 11
// is TestHistoryTellsAll.

// TestInvariant1WALRule: whenever something is written to the store, or synced, a
// power loss that keeps all of the store and nothing else that is unsynced leaves
// a prefix of the changes, for the journal has every byte of them.
func TestInvariant1WALRule(t *testing.T) {
	c := &crasher{t: t, rng: seed(t)}
	c.keep = func() fakedisk.Policy {
		return func(u fakedisk.Unsynced) bool { return u.Kind == fakedisk.OpWrite && u.Name == fakeData }
	}
	c.when = func(op fakedisk.Op, name string) bool { return name == fakeData }
	states := 60
	if underRace {
		states = 15
	}
	c.run(states)
}

// TestInvariant1WALRuleRegions: nor does the store hold a byte of a region whose
// write-intent bit is not durable.
func TestInvariant1WALRuleRegions(t *testing.T) {
	const size = 8 * bitmap.DefaultRegionSize
	d := fakedisk.New(1)
	createFake(t, d, "a", size)
	v, err := Open(Options{Node: "a", Volume: rigVolume, FS: d, Store: openFake(t, d), SyncInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close(context.Background())
	var seen atomic.Int64
	d.OnOp(func(op fakedisk.Op, name string) error {
		if name != fakeData || op == fakedisk.OpRead {
			return nil
		}
		left := d.CrashClone(func(u fakedisk.Unsynced) bool { return u.Kind == fakedisk.OpWrite && u.Name == fakeData })
		in, err := bitmap.OpenIntent(left, intentName, size, 0)
		if err != nil {
			t.Errorf("open the write-intent bitmap: %v", err)
			return nil
		}
		defer in.Close()
		marked := slices.Collect(in.Regions())
		f, err := left.Open(fakeData)
		if err != nil {
			t.Error(err)
			return nil
		}
		defer f.Close()
		// What is durable there already is at rest, and its bit may be cleared.
		settled, err := d.CrashClone(fakedisk.LoseAll).Open(fakeData)
		if err != nil {
			t.Error(err)
			return nil
		}
		defer settled.Close()
		p, q := make([]byte, rigBlock), make([]byte, rigBlock)
		for off := int64(0); off < size; off += bitmap.DefaultRegionSize {
			n, _ := f.ReadAt(p, off)
			clear(q)
			_, _ = settled.ReadAt(q, off) // what it lacks is zeroes
			if !bytes.Equal(p[:n], q[:n]) && !slices.Contains(marked, int(off/bitmap.DefaultRegionSize)) {
				t.Errorf("the store holds data at %d, whose region is not marked", off)
			}
			seen.Add(1)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), hangTime)
	defer cancel()
	if err := v.awaitPromoted(ctx); err != nil {
		t.Fatal(err)
	}
	s, err := v.Attach(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t, s}
	for off := int64(0); off < size; off += bitmap.DefaultRegionSize {
		c.write(off, fill(1, rigBlock))
		c.flush()
	}
	(&rig{t: t}).eventually("everything is applied", func() bool { s := v.Status(); return s.Applied == s.End })
	if seen.Load() == 0 {
		t.Fatal("nothing was seen to be written to the store")
	}
}

// TestInvariant2ApplyWhenStable: as long as one member has not said that it has a
// record durably, no store has it, whoever is asked to apply.
func TestInvariant2ApplyWhenStable(t *testing.T) {
	r := newFakeRig(t, slowToDrop, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	stable := a.vol.Status().End
	r.gate("b", "a").hold()
	w := c.async(0, fill(2, rigBlock))
	f := c.asyncFlush()
	r.eventually("both have it durably", func() bool {
		return a.vol.Status().Durable == stable+1 && b.vol.Status().Durable == stable+1
	})
	for _, n := range []*rigNode{a, b} {
		n.vol.note()
		if err := n.vol.syncNow(); err != nil {
			t.Fatal(err)
		}
		for n.vol.applyRound() {
		}
		if s := n.vol.Status(); s.Applied > stable || s.Stable > stable {
			t.Errorf("%s has applied LSN %d, holds %d for stable; %d is", n.name, s.Applied, s.Stable, stable)
		}
		if got := storeOf(t, n.fake); got[0] != 1 {
			t.Errorf("the store of %s holds %d", n.name, got[0])
		}
	}
	c.pending(w, "the write")
	c.pending(f, "the flush")
	r.gate("b", "a").open()
	c.must(w)
	c.must(f)
	r.inSync("a", "b")
}

// TestInvariant3CommittedReads: a write that a member has not acknowledged is not
// read, by whatever way; once it is read it stays. A new Primary commits its own
// journal's end before it serves.
func TestInvariant3CommittedReads(t *testing.T) {
	r := newFakeRig(t, slowToDrop, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	r.gate("b", "a").hold()
	w := c.async(0, fill(2, rigBlock))
	r.eventually("b has it", func() bool { return b.vol.Status().Durable == a.vol.Status().End })
	p := make([]byte, rigBlock)
	if done, err := c.s.TryReadAt(p, 0); done && (err != nil || p[0] != 1) {
		t.Fatalf("a fast read gives %d, %v", p[0], err)
	}
	if got := c.read(0, rigBlock); got[0] != 1 {
		t.Fatalf("reads %d, which b has not acknowledged", got[0])
	}
	c.pending(w, "the write")
	// B has it, so B as Primary commits it: at once, or a read would show the old
	// value first.
	a.kill()
	r.gate("b", "a").drop()
	b.promote(true)
	if got := b.attach().read(0, rigBlock); got[0] != 2 {
		t.Fatalf("the new Primary reads %d", got[0])
	}
}

// TestInvariant3ReadsUnderLoad: reads of any size at any place, beside writes that
// overlap and the applier, are never older than what was acknowledged when they
// began, nor than an earlier read.
func TestInvariant3ReadsUnderLoad(t *testing.T) {
	rng := seed(t)
	r := newFakeRig(t, func(o *Options) { o.SyncInterval = time.Millisecond }, "a", "b")
	_, _, c := r.pair()
	const cells = 4096
	var acked [cells]atomic.Uint32
	writes := 400
	done := make(chan struct{})
	errs := make(chan error, 3)
	for range 3 {
		seedOf := rng.Uint64()
		go func() { errs <- readCells(c.s, seedOf, acked[:], done) }()
	}
	for n := 1; n <= writes; n++ {
		ln := 1 + rng.Int64N(256)
		ch := numbered{n: uint32(n), op: block.OpWrite, off: rng.Int64N(cells-ln) * crashCell, ln: ln * crashCell}
		req, w := ch.request(), make(waitDone, 1)
		req.Done, req.FUA = w, n%16 == 0
		c.s.Submit([]*block.Request{req})
		c.must(w)
		for i := ch.off / crashCell; i < (ch.off+ch.ln)/crashCell; i++ {
			acked[i].Store(ch.n)
		}
	}
	close(done)
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// readCells reads until done is closed.
func readCells(s block.Session, seed uint64, acked []atomic.Uint32, done chan struct{}) error {
	rng := newRand(seed)
	seen := make([]uint32, len(acked))
	floor := make([]uint32, len(acked))
	for {
		select {
		case <-done:
			return nil
		default:
		}
		n := 1 + rng.IntN(512)
		from := rng.IntN(len(acked) - n)
		for i := from; i < from+n; i++ {
			floor[i] = max(acked[i].Load(), seen[i])
		}
		p := make([]byte, n*crashCell)
		if err := s.ReadAt(p, int64(from)*crashCell); err != nil {
			return err
		}
		for i := from; i < from+n; i++ {
			cell := p[(i-from)*crashCell:][:crashCell]
			got, whole := numberOf(cell, int64(i))
			if !whole {
				return fmt.Errorf("cell %d is torn: it begins with change %d", i, got)
			}
			if got < floor[i] {
				return fmt.Errorf("cell %d reads change %d after %d", i, got, floor[i])
			}
			seen[i] = got
		}
	}
}

// TestInvariant4OneOrder: what several clients submit at once is in both journals
// in one order, record for record.
func TestInvariant4OneOrder(t *testing.T) {
	rng := seed(t)
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	m := newRegisters(t, true)
	l := m.load(a, rng)
	r.eventually("there are records", func() bool { return a.vol.Status().End > 300 })
	l.end()
	c.flush()
	r.inSync("a", "b")
	type name struct {
		lsn LSN
		tag uint64
		crc uint32
	}
	// What both still hold: long writes may have had the oldest trimmed.
	first := max(a.vol.Status().Journal.First, b.vol.Status().Journal.First)
	list := func(n *rigNode) (names []name) {
		err := n.vol.scan(first, n.vol.Status().End, func(r *journal.Record) bool {
			names = append(names, name{r.LSN, r.Generation, r.CRC})
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	x, y := list(a), list(b)
	if len(x) == 0 || len(x) != len(y) {
		t.Fatalf("%d and %d records", len(x), len(y))
	}
	for i := range x {
		if x[i] != y[i] || x[i].lsn != first+LSN(i) {
			t.Fatalf("record %d: %+v in one journal, %+v in the other", first+LSN(i), x[i], y[i])
		}
	}
}

// TestInvariant5RetentionOrBitmap: while a peer is away and the journal overflows,
// every block in which the replicas differ is of a record that the journal still
// has, or is set in the peer's bitmap, as a power loss would leave the two.
func TestInvariant5RetentionOrBitmap(t *testing.T) {
	rng := seed(t)
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigSize/2))
	c.flush()
	r.inSync("a", "b")
	theirs, known := storeOf(t, b.fake), b.vol.Status().End
	b.kill()
	trimmed := false
	for i := range 50 {
		n := 1 + rng.IntN(3<<20)
		c.write(int64(rng.IntN(rigSize-n)), fill(byte(i+2), n))
		c.flush()
		if i%5 != 0 {
			continue
		}
		left := a.fake.CrashClone(fakedisk.KeepSome(rng.Uint64()))
		v, err := Open(Options{Node: "a", Volume: rigVolume, FS: left, Store: openFake(t, left), Peers: []string{"b"}, Dialer: nobody{}, BootID: "look"})
		if err != nil {
			t.Fatal(err)
		}
		trimmed = trimmed || v.journal.First() > known+1
		r.eventually("what is stable is replayed", func() bool {
			v.mu.Lock()
			defer v.mu.Unlock()
			return v.applied >= v.stableNote
		})
		ours := storeOf(t, left)
		var bits *bitmap.Blocks
		for err = journal.ErrTrimmed; errors.Is(err, journal.ErrTrimmed); { // it trims while we look
			bits = v.peers["b"].bits.Snapshot()
			err = v.scan(max(known+1, v.journal.First()), v.journal.End(), func(r *journal.Record) bool {
				bits.Set(r.Offset, r.Length)
				return true
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off < rigSize; off += rigBlock {
			if !bytes.Equal(ours[off:off+rigBlock], theirs[off:off+rigBlock]) && !bits.Test(int64(off)) {
				t.Fatalf("after write %d block %d differs, no record from LSN %d on and no bit says so", i, off/rigBlock, v.journal.First())
			}
		}
		v.stop()
		v.wg.Wait()
		v.closeFiles()
	}
	if !trimmed {
		t.Fatal("the journal never overflowed")
	}
	b.start()
	r.members()
	r.inSync("a", "b")
}

// TestInvariant6MembershipBeforeAck: nothing is acknowledged without a lost member
// before the smaller set is recorded, nor before the generation that says so is
// durable.
func TestInvariant6MembershipBeforeAck(t *testing.T) {
	for _, file := range []string{superblockName, "*.seg"} {
		t.Run(file, func(t *testing.T) {
			r := newFakeRig(t, nil, "a", "b")
			a, b, c := r.pair()
			c.write(0, fill(1, rigBlock))
			c.flush()
			v := a.vol
			s := a.stallAt(fakedisk.OpDatasync, file, func() bool {
				v.mu.Lock()
				defer v.mu.Unlock()
				return v.someLeave() && (file == superblockName || len(v.super.Set) == 1)
			})
			r.gate("a", "b").hold() // b gets nothing of what follows
			w := c.async(0, fill(2, rigBlock))
			f := c.asyncFlush()
			b.kill()
			s.wait(t)
			c.pending(w, "the write")
			c.pending(f, "the flush")
			if got := c.read(0, 1); got[0] != 1 {
				t.Fatalf("reads %d", got[0])
			}
			s.letGo()
			c.must(w)
			c.must(f)
			if set := nodesOf(a.vol.Status().InSync); len(set) != 1 {
				t.Fatalf("acknowledged with the set %v", set)
			}
		})
	}
}

// TestInvariant7Fencing: a replica refuses whatever comes from an epoch older than
// the newest that it has seen, and nothing of it changes.
func TestInvariant7Fencing(t *testing.T) {
	r := newFakeRig(t, patient, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	b.restart()
	r.members()
	v := b.vol
	if err := v.commitSuper(func(sb *Superblock) { sb.Epoch += 5 }); err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	l, super, stable, old := v.peers["a"].link, v.super, v.stable, v.super.Epoch-5
	v.mu.Unlock()
	var refused *refusal
	if err := l.obey(&Proceed{Volume: super.Volume, Epoch: l.mine.Description.Epoch - 1}); !errors.As(err, &refused) || refused.code != CodeOldEpoch {
		t.Errorf("Proceed: %v", err)
	}
	body := func(m Message) []byte { return AppendFrame(nil, m)[FrameHeaderSize:] }
	if err := l.heard(body(&Heartbeat{Stable: stable + 1, Epoch: old})); err == nil {
		t.Error("a heartbeat is listened to")
	}
	if err := l.setUpdate(body(&SetUpdate{SetVersion: super.SetVersion + 1, Epoch: old, Confirmed: true, Set: super.Set[:1]})); err == nil {
		t.Error("a set is recorded")
	}
	// Nor are records taken in: of a session of the newest epoch they would be read.
	v.mu.Lock()
	p := v.peers["a"]
	session := &link{v: v, peer: p, in: reader(nil)}
	p.link = session
	v.mu.Unlock()
	for _, epoch := range []uint64{old, super.Epoch} {
		m := Records{Count: 1, Epoch: epoch}
		if err := session.records(m.Encode(nil)); errors.Is(err, errAgain) != (epoch == old) {
			t.Errorf("records of epoch %d, where %d has been seen: %v", epoch, super.Epoch, err)
		}
	}
	v.mu.Lock()
	p.link = l
	v.mu.Unlock()
	// A write in the old epoch comes in by itself; it is not journaled.
	end := v.Status().End
	w := c.async(0, fill(2, rigBlock))
	r.eventually("a has begun a newer epoch for b's sake", func() bool { return a.vol.Status().Epoch > old+5 })
	c.must(w)
	err := v.scan(end+1, v.Status().End, func(rec *journal.Record) bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		if g := v.super.History.At(rec.LSN); g.Epoch <= old && rec.Kind == journal.KindGeneration {
			t.Errorf("LSN %d of epoch %d is in the journal", rec.LSN, g.Epoch)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestInvariant8OnlyAMemberMayLead: what is to be promoted without force.
func TestInvariant8OnlyAMemberMayLead(t *testing.T) {
	t.Parallel()
	flushed := func(c *client) { c.write(0, fill(1, rigBlock)); c.flush() }
	rows := []struct {
		name     string
		hopeless bool
		// script leaves b where it is to refuse.
		script func(r *rig, a, b *rigNode)
	}{
		{"the peer is away, and both are empty", false, func(r *rig, a, b *rigNode) {
			r.meet()
			a.kill()
			r.eventually("b notices", func() bool { return b.peer("a").Connection != Connected })
		}},
		{"the peer is Primary", true, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			flushed(c)
			b.restart() // so that what it lacks is nothing
			r.members()
		}},
		{"a member is away", false, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			flushed(c)
			a.kill()
			r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
		}},
		{"a member is away, after a restart", false, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			flushed(c)
			a.kill()
			b.restart()
		}},
		{"the peer went on alone", false, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			b.kill()
			flushed(c)
			a.demote()
			b.start()
		}},
		{"the peer went on alone, was met, and is away", false, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			b.kill()
			flushed(c)
			a.demote()
			b.start()
			r.eventually("b is Outdated", func() bool { return b.vol.Status().Disk == Outdated })
			a.kill()
			b.restart()
			if s := b.vol.Status(); s.Disk != Outdated {
				r.t.Errorf("after a restart b is %v", s.Disk)
			}
		}},
		{"split-brain", false, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			a.isolate()
			flushed(c)
			b.promote(true)
			flushed(b.attach())
			a.heal()
			r.splitBrain()
			a.demote()
			b.demote()
		}},
		{"split-brain, and trying again", false, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			a.isolate()
			flushed(c)
			b.promote(true)
			flushed(b.attach())
			a.heal()
			r.splitBrain()
			b.demote()
			a.kill()
			if err := b.vol.Connect("a"); err != nil {
				r.t.Fatal(err)
			}
		}},
		{"StandAlone, though excluded", false, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			flushed(c)
			a.kill()
			b.promote(true)
			flushed(b.attach())
			b.demote()
			if err := b.vol.Disconnect("a"); err != nil {
				r.t.Fatal(err)
			}
		}},
		{"in the middle of a resync", true, func(r *rig, a, b *rigNode) {
			_, _, c := r.pair()
			for i := range 50 {
				c.write(int64(i%8)<<21, fill(byte(i+1), 2<<20))
			}
			b.kill()
			b.create()
			a.setRate(1)
			b.start()
			r.eventually("b is Inconsistent", func() bool { return b.vol.Status().Disk == Inconsistent })
			a.kill()
		}},
		{"failed", true, func(r *rig, a, b *rigNode) {
			r.pair()
			b.vol.fault(errDisk)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := newFakeRig(t, nil, "a", "b")
			a, b := r.node("a"), r.node("b")
			row.script(r, a, b)
			r.eventually("b knows how it stands to a", func() bool {
				p := b.peer("a")
				return a.vol == nil || b.vol.failed() != nil || p.Verdict != "" || p.SplitBrain != nil
			})
			var unsafe *UnsafePromotionError
			err := b.vol.Promote(t.Context(), PromoteOptions{})
			if !errors.As(err, &unsafe) || unsafe.Hopeless != row.hopeless {
				t.Fatalf("%v\n%s", err, r.describe())
			}
			if b.vol.Status().Role != Secondary {
				t.Fatal("promoted nevertheless")
			}
		})
	}
}

// TestInvariant9FailedSync: after one failed sync of whatever file the replica is
// Failed and stays so; its clients get errors and its peer carries on. What
// on-io-error: detach does instead: TestInvariant9Detach.
func TestInvariant9FailedSync(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"*.seg", fakeData, intentName, superblockName} {
		for _, role := range []Role{Primary, Secondary} {
			t.Run(fmt.Sprintf("%v/%s", role, pattern), func(t *testing.T) {
				failedSync(t, pattern, role)
			})
		}
	}
	t.Run("Primary/"+outOfSync, func(t *testing.T) { failedSync(t, outOfSync, Primary) })
}

func failedSync(t *testing.T, pattern string, role Role) {
	r := newFakeRig(t, func(o *Options) { o.OnIOError = PassOn }, "a", "b")
	a, b, c := r.pair()
	bad, good := a, b
	if role == Secondary {
		bad, good = b, a
	}
	want := byte(0)
	if pattern != intentName { // which a volume of one region writes but once
		want = 1
		c.write(0, fill(1, rigBlock))
		c.flush()
		r.inSync("a", "b")
	}
	var failed atomic.Bool
	bad.fake.OnOp(func(op fakedisk.Op, name string) error {
		if match, _ := path.Match(pattern, name); match && op == fakedisk.OpDatasync && failed.CompareAndSwap(false, true) {
			return errDisk
		}
		return nil
	})
	w := c.async(rigBlock, fill(2, rigBlock))
	f := c.asyncFlush()
	switch pattern {
	case fakeData:
		r.eventually("there is something to sync", func() bool {
			_ = bad.vol.takeCheckpoint()
			return failed.Load()
		})
	case superblockName:
		_ = bad.vol.commitSuper(func(*Superblock) {})
	case outOfSync:
		c.must(w)
		good.restart() // when it is a member again its bits are cleared
	}
	r.eventually("it is Failed", func() bool { return bad.vol.Status().Disk == Failed })
	if bad == a {
		if err := <-f; err == nil && (pattern == "*.seg" || pattern == intentName) {
			t.Error("a flush was acknowledged after a failed sync of the journal")
		}
		if err := <-c.async(0, fill(3, rigBlock)); err == nil {
			t.Error("a write is acknowledged by a replica that failed")
		}
		if err := <-c.asyncFlush(); err == nil {
			t.Error("a flush is acknowledged by a replica that failed")
		}
		good.promote(true)
	} else {
		c.must(w)
		c.must(f)
	}
	d := good.attach()
	if got := d.read(0, 1); got[0] != want {
		t.Errorf("reads %d", got[0])
	}
	d.write(0, fill(4, rigBlock))
	d.flush()
	bad.restart()
	if s := bad.vol.Status(); s.Disk != Failed {
		t.Errorf("after a restart it is %v", s.Disk)
	}
	bad.createAgain()
	r.members()
	r.inSync(good.name, bad.name)
}

// outOfSync matches the file under the name that it was made with, too.
const outOfSync = bitmapPrefix + "b" + bitmapSuffix + "*"

// createAgain gives the node a new, empty disk.
func (n *rigNode) createAgain() {
	n.kill()
	n.create()
	n.start()
}

// TestInvariant10SuperblockFirst: a power loss at any operation of the beginning
// of a generation, and of a resync, whatever it leaves of superblock and journal,
// leaves a replica that starts, twice the same, with a history that its journal
// bears out. Truncation: TestTrace14b, TestTrace14c.
func TestInvariant10SuperblockFirst(t *testing.T) {
	t.Parallel()
	t.Run("generation", func(t *testing.T) {
		r := newFakeRig(t, nil, "a", "b")
		a, b, c := r.pair()
		c.write(0, fill(1, rigBlock))
		c.flush()
		r.inSync("a", "b")
		a.kill()
		r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
		crashes := crashesDuring(b, func() { b.promote(true); b.attach().flush() })
		ends := looks(t, crashes, "b", "a")
		if len(ends) < 2 {
			t.Fatalf("%d crashes all end at %v", len(crashes), ends)
		}
	})
	t.Run("resync", func(t *testing.T) {
		r := newFakeRig(t, nil, "a", "b")
		a, b, c := r.pair()
		c.write(0, fill(1, 1<<20))
		c.flush()
		r.inSync("a", "b")
		b.kill()
		for i := range 50 {
			c.write(int64(i%8)<<20, fill(byte(i+2), 2<<20))
		}
		c.flush()
		crashes := crashesDuring(b, func() { b.start(); r.members() })
		looks(t, crashes, "b", "a")
		for i := range 3 { // and from there it goes on
			b.kill()
			b.fake = crashes[len(crashes)*(i+1)/4]
			b.boot += "+"
			b.start()
			r.members()
			r.inSync("a", "b")
		}
		_ = a
	})
}

// crashesDuring is what power losses at the changes of the node's disk while f
// runs would leave.
func crashesDuring(n *rigNode, f func()) []*fakedisk.FS {
	var mu sync.Mutex
	var all []*fakedisk.FS
	stop := everyCrash(n, func(_ fakedisk.Op, _ string, left *fakedisk.FS) {
		mu.Lock()
		defer mu.Unlock()
		if len(all) < 120 {
			all = append(all, left)
		}
	})
	f()
	stop()
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(all) // an operation that began before may add to it still
}

// looks starts each of what crashes left, twice, and returns the ends found.
func looks(t *testing.T, crashes []*fakedisk.FS, node, peer string) map[LSN]int {
	t.Helper()
	ends := map[LSN]int{}
	for i, d := range crashes {
		first, h, _ := look(t, d, node, peer)
		again, h2, _ := look(t, d, node, peer)
		if first.End != again.End || len(h) != len(h2) || first.Disk != again.Disk {
			t.Fatalf("crash %d: ends at LSN %d, %v, after another start at %d, %v", i, first.End, first.Disk, again.End, again.Disk)
		}
		if last := h.Last(); last != nil && last.First > first.End {
			t.Fatalf("crash %d: generation at %d past the end %d", i, last.First, first.End)
		}
		ends[first.End]++
	}
	return ends
}
