package mirror

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// The traces of docs/counterexamples.md that need three replicas.

// trio makes three replicas that are members, a being Primary.
func trio(t *testing.T, opts func(*Options)) (r *rig, a, b, c *rigNode, client *client) {
	t.Helper()
	r = newFakeRig(t, opts, "a", "b", "c")
	a, b, c = r.node("a"), r.node("b"), r.node("c")
	r.meet()
	a.promote(false)
	r.members()
	return r, a, b, c, a.attach()
}

// recorded is the in-sync set that the node's superblock has.
func (n *rigNode) recorded() []string { return nodesOf(n.members()) }

// Without the rule A drops B and acknowledges before C has heard of it: A dies, C is
// away, and B leads by one unforced command, without what was flushed.
func TestTrace11a(t *testing.T) {
	r, a, b, c, w := trio(t, nil)
	w.write(0, fill(1, rigBlock))
	w.flush()
	b.isolate()
	w.write(0, fill(2, rigBlock)) // after b was dropped
	if set := c.recorded(); len(set) != 2 || set[0] != "a" || set[1] != "c" {
		t.Fatalf("a write was acknowledged without b while c has recorded %v", set)
	}
	w.flush()
	a.kill()
	c.kill()
	b.heal()
	refused(t, b, "a")
	c.start()
	r.eventually("b hears of the set without it", func() bool { return b.vol.Status().Disk == Outdated })
	refused(t, b, "c")
	refused(t, c, "a")
	c.promote(true)
	if got := c.attach().read(0, 1); got[0] != 2 {
		t.Fatalf("c reads %d", got[0])
	}
	a.start()
	r.members()
	r.inSync("c", "a", "b")
}

// A drops B, and dies; C leads, and B returns with records that A had sent to nobody
// else: it gives them up, catches up and joins.
func TestTrace11b(t *testing.T) {
	r, a, b, c, w := trio(t, slowToDrop)
	w.write(0, fill(1, 8*rigBlock))
	w.flush()
	r.inSync("a", "b", "c")
	r.gate("a", "c").hold()
	common := c.vol.Status().End
	for i := range int64(5) {
		w.async(i*rigBlock, fill(2, rigBlock))
	}
	r.eventually("b has what c lacks", func() bool { return b.vol.Status().End == common+5 })
	a.sigkill()
	b.isolate()
	c.promote(true)
	d := c.attach()
	d.write(0, fill(3, rigBlock))
	d.flush()
	b.heal()
	r.eventually("b is a member again", func() bool { return c.peer("b").Member })
	a.start()
	r.members()
	r.inSync("c", "a", "b")
	if got := d.read(0, 2*rigBlock); got[0] != 3 || got[rigBlock] != 1 {
		t.Fatalf("c reads %d and %d", got[0], got[rigBlock])
	}
}

// Without the rule C trims its journal as soon as A needs it no more, and keeps
// nothing for B, which is away: A dies, C leads, and B is never brought what it lacks.
func TestTrace11c(t *testing.T) {
	r, a, b, c, w := trio(t, nil)
	w.write(0, fill(1, rigBlock))
	w.flush()
	b.kill()
	first := c.vol.Status().Journal.First
	for round := byte(0); c.vol.Status().Journal.First == first; round++ {
		for off := int64(0); off < rigSize; off += rigSize / 4 {
			w.write(off, fill(2+round, rigSize/4))
		}
		if round == 100 {
			t.Fatalf("c trims nothing\n%s", r.describe())
		}
	}
	w.flush()
	if oos := c.peer("b").OutOfSync; oos == 0 {
		t.Fatal("c let records go that b lacks, and marked nothing")
	}
	a.kill()
	c.promote(true)
	b.start()
	r.eventually("b is a member again", func() bool { return c.peer("b").Member })
	if n := c.peer("b").Resyncs; n != 1 {
		t.Fatalf("b came back after %d resyncs", n)
	}
	a.start()
	r.members()
	r.inSync("c", "a", "b")
}

// Without the rule only the newcomer hears that the set has grown. C holds B for
// excluded, and leads by one unforced command while B goes on alone.
func TestTrace11g(t *testing.T) {
	t.Run("told", func(t *testing.T) {
		r, _, b, _, _ := trio(t, nil)
		b.restart()
		r.members() // c among them
	})
	t.Run("heard", func(t *testing.T) {
		r, a, b, c, w := trio(t, slowToDrop)
		b.kill()
		w.write(0, fill(1, rigBlock))
		r.eventually("b is dropped", func() bool { return len(a.recorded()) == 2 && len(c.recorded()) == 2 })
		joins := a.stallAt(fakedisk.OpDatasync, superblockName, func() bool {
			a.vol.mu.Lock()
			defer a.vol.mu.Unlock()
			p := a.vol.joiner
			return p != nil && p.with != nil && p.with.joinReady >= a.vol.joinLSN
		})
		r.gate("b", "c").hold() // nor does c hear it of b
		b.start()
		joins.wait(t)
		r.gate("a", "c").hold()
		joins.letGo()
		a.fake.OnOp(nil)
		r.eventually("b is told", func() bool { return len(b.recorded()) == 3 })
		if set := c.recorded(); len(set) != 2 {
			t.Fatalf("c has recorded %v", set)
		}
		r.gate("b", "c").drop()
		w.s.Close()
		a.sigkill() // before it can drop anybody
		b.isolate()
		b.promote(true)
		d := b.attach()
		d.write(0, fill(2, rigBlock))
		d.flush()
		a.start()
		r.eventually("c hears it of a", func() bool { return len(c.recorded()) == 3 })
		refused(t, c, "b")
		refused(t, a, "b")
		b.heal()
		r.members()
		r.inSync("b", "a", "c")
	})
}

// Without the rule what two Secondaries found out of each other when they met counts
// for ever: B was empty then, and is refused by force and all, though it is complete.
func TestTrace11h(t *testing.T) {
	r, a, b, _, w := trio(t, nil)
	w.write(0, fill(1, rigBlock))
	w.flush()
	b.kill()
	b.createFake()
	b.start()
	r.members()
	r.inSync("a", "b", "c")
	w.write(0, fill(2, rigBlock))
	w.flush()
	a.kill()
	b.promote(true)
	if got := b.attach().read(0, 1); got[0] != 2 {
		t.Fatalf("b reads %d", got[0])
	}
	a.start()
	r.members()
	r.inSync("b", "a", "c")
}

// Without the rule two replicas in the middle of a resync refuse each other for good:
// once they are complete, and their source is lost, neither brings the other up to
// date.
func TestTrace11i(t *testing.T) {
	var rate atomic.Int64
	r, a, b, c, w := trio(t, func(o *Options) { o.ResyncRate = rate.Load() })
	b.kill()
	c.kill()
	first := a.vol.Status().Journal.First
	for round := byte(0); a.vol.Status().Journal.First == first; round++ {
		for off := int64(0); off < rigSize; off += rigSize / 4 {
			w.write(off, fill(2+round, rigSize/4))
		}
		if round == 100 {
			t.Fatalf("a trims nothing\n%s", r.describe())
		}
	}
	w.flush()
	a.kill()
	rate.Store(1 << 10)
	a.start()
	a.promote(false)
	b.start()
	c.start()
	r.eventually("both are in the middle of a resync", func() bool {
		return b.vol.Status().Disk == Inconsistent && c.vol.Status().Disk == Inconsistent
	})
	a.kill()
	r.eventually("b and c meet", func() bool {
		return b.peer("c").Verdict == NoSource.String() && c.peer("b").Verdict == NoSource.String()
	})
	rate.Store(0)
	a.start()
	r.meet()
	a.promote(false)
	r.members()
	a.kill()
	b.promote(true)
	b.attach().write(0, fill(1, rigBlock))
	r.eventually("c follows b", func() bool { return b.peer("c").Member && c.vol.Status().End == b.vol.Status().End })
	a.start()
	r.members()
	r.inSync("b", "a", "c")
}

// Without the rule a refusal between two Secondaries is for good, though a Primary
// brings both up to date: A, which takes its last records back, is never met by C,
// which lost its memory since and cannot know that it never had them.
func TestTrace11j(t *testing.T) {
	r, a, b, c, w := trio(t, slowToDrop)
	w.write(0, fill(1, rigBlock))
	w.flush()
	r.inSync("a", "b", "c")
	r.gate("a", "b").hold()
	r.gate("a", "c").hold()
	w.async(0, fill(2, rigBlock))
	r.eventually("a has a record of its own", func() bool { return a.vol.Status().Durable > b.vol.Status().End })
	a.sigkill()
	a.isolate()
	b.promote(true)
	d := b.attach()
	d.write(rigBlock, fill(3, rigBlock))
	d.flush()
	c.powerLoss(fakedisk.LoseAll)
	c.start()
	r.eventually("c is a member", func() bool {
		c.vol.mu.Lock()
		self := c.vol.self()
		c.vol.mu.Unlock()
		return setHas(b.members(), self) && setHas(c.members(), self)
	})
	b.isolate()
	a.heal()
	a.start()
	r.eventually("a and c refuse each other", func() bool {
		return a.peer("c").Connection == StandAlone && c.peer("a").Connection == StandAlone
	})
	b.heal()
	r.members()
	r.inSync("b", "a", "c")
	b.kill()
	r.eventually("a and c meet", func() bool { return a.peer("c").Verdict == InSync.String() && c.peer("a").Verdict == InSync.String() })
}

// TestLosingASecondary: a member that follows its Primary is not cut off when it
// loses sight of another Secondary.
func TestLosingASecondary(t *testing.T) {
	r, a, b, c, w := trio(t, nil)
	b.isolate()
	r.eventually("b is gone", func() bool {
		return len(a.recorded()) == 2 && len(c.recorded()) == 2 && c.peer("b").Connection != Connected
	})
	w.write(0, fill(1, rigBlock))
	w.flush()
	b.heal()
	r.members()
	r.inSync("a", "b", "c")
}

// What a Secondary concludes from the set in a peer's hello holds only as long as
// no Primary has told it of another one.
func TestExclusionOvertaken(t *testing.T) {
	r := newRig(t, nil, "a", "b")
	_, b, _ := r.pair()
	v := b.vol
	super := func() Superblock {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.super
	}
	now := super()
	other := []Member{{Node: "c", Incarnation: 1}}
	for name, l := range map[string]*link{
		"told of a set without it": {
			meeting: meeting{theirs: Description{Node: "c", Role: Secondary, SetVersion: now.SetVersion, Set: other}},
		},
		"met one that has more": {
			meeting: meeting{theirs: Description{Node: "c", Role: Secondary, Set: other}, verdict: Comparison{Verdict: WeAreBehind}},
		},
		"told of a set that its generation announced": {
			meeting: meeting{theirs: Description{Node: "c", Role: Secondary, SetVersion: now.SetVersion, Set: append(other, now.Set...)},
				verdict: Comparison{Verdict: WeAreBehind}},
		},
	} {
		l.v = v
		version := now.SetVersion - 1
		if name == "told of a set that its generation announced" {
			version = now.SetVersion
		}
		l.mine.Description = Description{Node: "b", Role: Secondary, SetVersion: version,
			Set: []Member{{Node: "b", Incarnation: now.Incarnation}}, History: now.History}
		if err := l.heedExclusion(); !errors.Is(err, errAgain) {
			t.Errorf("%s: %v", name, err)
		}
		if got := super(); got.Excluded || got.Disk != UpToDate {
			t.Errorf("%s: excluded %v, disk %v", name, got.Excluded, got.Disk)
		}
	}
}
