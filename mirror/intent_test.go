package mirror

import (
	"slices"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// TestWriteIntentSettles: a working set that is written to at random is marked
// once; from then on no write waits for the write-intent bitmap.
func TestWriteIntentSettles(t *testing.T) {
	rng := seed(t)
	r := newRegionRig(t, patient)
	a, b, c := r.pair()
	const set = 8 // regions
	round := func() (syncs [2]int) {
		for i, n := range []*rigNode{a, b} {
			n.fake.OnOp(func(op fakedisk.Op, name string) error {
				if op == fakedisk.OpDatasync && name == intentName {
					syncs[i]++
				}
				return nil
			})
		}
		for i := range 40 {
			at := int64(rng.IntN(set))
			if i < set {
				at = int64(i)
			}
			c.write(region(at)+int64(rng.IntN(rigRegion/rigBlock))*rigBlock, fill(byte(i+1), rigBlock))
			c.flush()
		}
		for _, n := range []*rigNode{a, b} {
			r.eventually("everything is checkpointed", func() bool {
				n.vol.note()
				if n.vol.syncNow() != nil || n.vol.takeCheckpoint() != nil {
					t.Fatal(n.vol.failed())
				}
				kick(n.vol.applyKick)
				s := n.vol.Status()
				return s.Checkpoint == s.End
			})
			n.vol.clearIntent()
			n.fake.OnOp(nil)
		}
		return syncs
	}
	if first := round(); first[0] < set || first[1] < set {
		t.Fatalf("%v syncs of the write-intent bitmaps while %d regions are written to for the first time", first, set)
	}
	for i := range 5 {
		if again := round(); again != [2]int{} {
			t.Errorf("round %d: %v syncs of the write-intent bitmaps", i, again)
		}
	}
	for _, n := range []*rigNode{a, b} {
		n.vol.clearIntent() // nothing was written since
		if s := n.vol.Status(); s.InDoubt != 0 {
			t.Errorf("%s: %d bytes are in doubt of a volume that is at rest", n.name, s.InDoubt)
		}
	}
}

// TestIntentKeepsWhatAPeerLacks: while a peer is away the marks stay, although
// everything is in the store.
func TestIntentKeepsWhatAPeerLacks(t *testing.T) {
	r := newRegionRig(t, nil)
	a, b, c := r.pair()
	r.whole(c)
	b.kill()
	r.dropped(a, b)
	c.write(region(5), fill(101, rigBlock))
	c.flush()
	r.eventually("it is checkpointed", func() bool { s := a.vol.Status(); return s.Checkpoint == s.End })
	for range 3 {
		a.vol.clearIntent()
	}
	if !slices.Contains(slices.Collect(a.vol.intent.Regions()), 5) {
		t.Error("region 5 is not in doubt, and the peer lacks a write of it")
	}
	b.start()
	r.members()
	r.atRest()
}

// TestInvariant1DurableOnceMarked: no record counts as durable before its region's
// mark is, whatever is written while the journal or the bitmap is being synced.
func TestInvariant1DurableOnceMarked(t *testing.T) {
	r := newRegionRig(t, patient)
	a, _, c := r.pair()
	next := int64(1)
	var late []waitDone
	a.fake.OnOp(func(op fakedisk.Op, name string) error {
		if op == fakedisk.OpDatasync && name == intentName && next < 40 {
			late = append(late, c.async(region(next), fill(9, rigBlock)))
			next++
		}
		return nil
	})
	c.write(0, fill(1, rigBlock))
	for range 20 {
		if err := a.vol.syncNow(); err != nil {
			t.Fatal(err)
		}
		a.checkMarked(t)
	}
	a.fake.OnOp(nil)
	if next < 10 {
		t.Fatalf("only %d writes came in between", next)
	}
	for _, w := range late {
		c.must(w)
	}
}

// checkMarked: a power loss now leaves the mark of every record that counts as
// durable and is not checkpointed.
func (n *rigNode) checkMarked(t *testing.T) {
	t.Helper()
	v := n.vol
	v.mu.Lock()
	durable, checkpoint := v.durable, v.checkpoint
	want := map[int]bool{}
	for l := max(checkpoint+1, v.queue.first); l <= durable; l++ {
		if e := v.queue.at(l); e != nil && e.rec.Length > 0 {
			want[int(e.rec.Offset/rigRegion)] = true
		}
	}
	v.mu.Unlock()
	in, err := bitmap.OpenIntent(n.fake.CrashClone(fakedisk.LoseAll), intentName, rigSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	marked := slices.Collect(in.Regions())
	for region := range want {
		if !slices.Contains(marked, region) {
			t.Fatalf("LSN %d counts as durable, and region %d of a record up to it is not marked: %v", durable, region, marked)
		}
	}
}

// TestInvariant1RecoveredRegions: a record that reached the journal's file and
// not its disk, nor its mark, is marked by the start that finds it.
func TestInvariant1RecoveredRegions(t *testing.T) {
	r := newRegionRig(t, func(o *Options) { o.SyncInterval = time.Hour; o.PeerTimeout = time.Minute })
	a, b, c := r.pair()
	c.write(region(6), fill(1, rigBlock)) // committed, and synced by nobody
	a.fake = a.fake.KillClone()
	a.kill()
	if err := a.fake.Remove(intentName); err != nil { // as if its page had never been written
		t.Fatal(err)
	}
	a.newIntent(t)
	b.kill()
	a.start()
	a.checkMarked(t)
	if !slices.Contains(slices.Collect(a.vol.intent.Regions()), 6) {
		t.Error("the region of a record in the journal is not marked")
	}
}
