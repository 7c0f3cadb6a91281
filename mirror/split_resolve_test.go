package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// How a split-brain ends.

// view is what a replica would serve, read without changing it.
func (n *rigNode) view() []byte {
	n.rig.t.Helper()
	p := make([]byte, rigSize)
	n.vol.mu.Lock()
	primary := n.vol.role == Primary
	n.vol.mu.Unlock()
	if primary {
		c := n.attach()
		defer c.s.Close()
		copy(p, c.read(0, rigSize))
		return p
	}
	i, c, _ := n.image()
	copy(p, c.read(0, rigSize))
	i.Close()
	return p
}

// resolve is what an operator types on a node.
func (n *rigNode) resolve(keep string) SplitPlan {
	n.rig.t.Helper()
	plan, err := n.vol.ResolveSplit(n.rig.t.Context(), ResolveOptions{Keep: keep})
	if err != nil {
		n.rig.t.Fatalf("resolve on %s: %v\n%s", n.name, err, n.rig.describe())
	}
	return plan
}

// follow does what a plan says is left to do. Its promotions wait for the nodes to
// meet.
func (r *rig) follow(steps []SplitStep) {
	r.t.Helper()
	for _, s := range steps {
		n := r.node(s.Node)
		switch words := strings.Fields(s.Command); words[1] {
		case "connect":
			if err := n.vol.Connect(""); err != nil {
				r.t.Fatal(err)
			}
		case "promote":
			r.eventually("the two met", func() bool { return n.vol.Status().Peers[0].Verdict != "" })
			n.promote(false)
		case "split":
			r.follow(n.resolve(words[5]).Next)
		default:
			r.t.Fatalf("what is %q?", s.Command)
		}
	}
}

// isEqual waits until both are members and compares their stores with want.
func (r *rig) isEqual(winner, loser string, want []byte) {
	r.t.Helper()
	r.eventually(loser+" is a member again", func() bool { return r.node(winner).peer(loser).Member })
	r.inSync(winner, loser)
	for _, n := range r.nodes {
		got := storeOf(r.t, n.fake)
		for i := 0; i < rigSize; i += rigBlock {
			if !bytes.Equal(got[i:i+rigBlock], want[i:i+rigBlock]) {
				r.t.Fatalf("block %d of %s is not the winner's: %d instead of %d", i/rigBlock, n.name, got[i], want[i])
			}
		}
	}
	for _, n := range r.nodes {
		if list, err := n.vol.SplitBrains(); err != nil || len(list) > 0 {
			r.t.Fatalf("%s still knows of a split-brain: %+v, %v", n.name, list, err)
		}
	}
}

// keepsLosing: what the loser had is kept in one snapshot, byte for byte.
func (n *rigNode) keepsLosing(want []byte) {
	t := n.rig.t
	t.Helper()
	list := n.vol.Snapshots()
	if len(list) != 1 || list[0].Peer == "" || list[0].Lost != "" {
		t.Fatalf("%s keeps %+v\n%s", n.name, list, n.rig.describe())
	}
	mustBe(t, "the losing side", n.snapshotView(list[0].Name), want)
	for _, other := range n.rig.nodes {
		if list := other.vol.Snapshots(); other != n && len(list) > 0 {
			t.Fatalf("%s keeps %+v", other.name, list)
		}
	}
}

// A divergence is a way in which two sides part further.
type divergence struct {
	name string
	do   func(t *testing.T, r *rig, a, b *rigNode)
}

var divergences = []divergence{
	{"a few writes each", func(t *testing.T, _ *rig, a, b *rigNode) {
		rng := seed(t)
		wa, wb := newSplitWriter(a), newSplitWriter(b)
		wa.random(rng, 1+rng.IntN(60))
		wb.random(rng, 1+rng.IntN(60))
		wa.c.flush()
		wb.c.flush()
	}},
	{"unflushed, and killed", func(t *testing.T, _ *rig, a, b *rigNode) {
		rng := seed(t)
		for _, n := range []*rigNode{a, b} {
			newSplitWriter(n).random(rng, 1+rng.IntN(20))
			n.restart()
			n.promote(true)
			newSplitWriter(n).random(rng, 1+rng.IntN(20))
		}
	}},
	{"past both journals", func(t *testing.T, r *rig, a, b *rigNode) {
		for i, n := range []*rigNode{a, b} {
			w := newSplitWriter(n)
			for k := range int64(70) {
				w.write((k%5+int64(3*i))<<20, fill(byte(k+int64(i)), 1<<20))
			}
			w.c.flush()
			r.eventually(n.name+" has trimmed its journal", func() bool {
				kick(n.vol.checkpointKick)
				return n.vol.Status().Journal.First > 30
			})
		}
	}},
	{"and was promoted again and again", func(t *testing.T, _ *rig, a, b *rigNode) {
		rng := seed(t)
		for range 3 {
			for _, n := range []*rigNode{a, b} {
				newSplitWriter(n).random(rng, 1+rng.IntN(9))
				n.demote()
				n.promote(true)
			}
		}
	}},
}

// However the two diverged, whoever is kept, and on whichever node that is said:
// in the end both have the kept one's bytes, and a resync brings no more than what
// either wrote.
func TestResolveSplitBrain(t *testing.T) {
	t.Parallel()
	for _, d := range divergences {
		for _, keep := range []string{"a", "b"} {
			for _, on := range []string{"a", "b"} {
				if underRace && (on == "a") != (len(d.name)%2 == 0) {
					continue // make plain runs all
				}
				t.Run(fmt.Sprintf("%s, keep %s on %s", d.name, keep, on), func(t *testing.T) {
					t.Parallel()
					r, a, b := parted(t, nil)
					d.do(t, r, a, b)
					want := r.node(keep).view()
					a.heal()
					r.splitBrain()
					loser := a
					if keep == "a" {
						loser = b
					}
					if on == loser.name { // an operator may demote first, or not
						loser.demote()
					}
					losing := loser.view()
					before := r.node(on).split()
					plan := r.node(on).resolve(keep)
					lost := &before.Theirs
					if on == loser.name {
						lost = &before.Ours
					}
					if plan.Lost.Node != loser.name || plan.Lost.Writes != lost.Writes || !slices.Equal(plan.Lost.Ranges, lost.Ranges) || !strings.HasPrefix(plan.Preserved, "split-") {
						t.Fatalf("the plan is %+v, the losing side %+v", plan, lost)
					}
					r.follow(plan.Next)
					r.isEqual(keep, loser.name, want)
					if n := r.node(keep).peer(loser.name).Resyncs; n != 1 {
						t.Fatalf("%d resyncs", n)
					}
					loser.keepsLosing(losing)
					// And the volume works.
					c := r.node(keep).attach()
					c.write(0, fill(77, 64*rigBlock))
					c.flush()
					r.inSync(keep, loser.name)
					loser.keepsLosing(losing)
				})
			}
		}
	}
}

// What a resync copies is what either side wrote, and no more.
func TestResolveCopiesTheUnion(t *testing.T) {
	r, a, b := parted(t, nil)
	wa, wb := newSplitWriter(a), newSplitWriter(b)
	wa.write(100*rigBlock, fill(2, 3*rigBlock))
	wb.write(102*rigBlock, fill(3, 4*rigBlock))
	wb.write(200*rigBlock, fill(4, rigBlock))
	wa.c.flush()
	wb.c.flush()
	a.heal()
	r.splitBrain()
	b.demote()
	v := b.vol
	synced := b.stallAt(fakedisk.OpDatasync, fakeData, func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.super.Disk == Inconsistent
	})
	r.follow(b.resolve("a").Next)
	synced.wait(t) // b has the blocks, and is about to make them durable
	a.vol.mu.Lock()
	total := a.vol.peers["b"].link.source.resync.total
	a.vol.mu.Unlock()
	synced.letGo()
	if total != 7*rigBlock {
		t.Fatalf("%d bytes were to be copied", total)
	}
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	r.inSync("a", "b")
}

// What was shown is what is given up: a loser that wrote more since, or one that is
// Primary elsewhere, is not overwritten on an older word, and nothing is without
// one that says that writes may be lost.
func TestResolveRefusals(t *testing.T) {
	r, a, b := parted(t, nil)
	refused := func(n *rigNode, o ResolveOptions, want string) {
		t.Helper()
		_, err := n.vol.ResolveSplit(t.Context(), o)
		var e *ResolveRefusedError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused(a, ResolveOptions{Keep: "a", DiscardLosingWrites: true}, "no split-brain is known")
	wa, wb := newSplitWriter(a), newSplitWriter(b)
	wa.write(0, fill(2, rigBlock))
	wb.write(0, fill(3, rigBlock))
	wa.c.flush()
	wb.c.flush()
	a.heal()
	r.splitBrain()
	refused(a, ResolveOptions{Keep: "c", DiscardLosingWrites: true}, "keep a or b")
	if p, err := a.vol.PlanResolve(ResolveOptions{Keep: "a"}); err != nil || p.Lost.Node != "b" || p.Lost.Writes != 1 || p.Demotes || p.Since.IsZero() ||
		len(p.Next) != 1 || p.Next[0] != (SplitStep{"b", "lockstep split resolve data --keep a"}) {
		t.Errorf("the plan is %+v, %v", p, err)
	}
	if p, err := b.vol.PlanResolve(ResolveOptions{Keep: "a"}); err != nil || !p.Demotes || len(p.Next) != 1 || p.Next[0] != (SplitStep{"a", "lockstep connect data"}) {
		t.Errorf("the plan is %+v, %v", p, err)
	}
	stillSplit := func(want string) {
		t.Helper()
		r.eventually("they refuse each other: "+want, func() bool {
			x, y := a.peer("b"), b.peer("a")
			return x.Connection == StandAlone && y.Connection == StandAlone && strings.Contains(x.SplitBrain.Reason, want)
		})
		if a.view()[0] != 2 || b.view()[0] != 3 {
			t.Fatal("somebody's writes are gone")
		}
	}
	// b is Primary: a's word does not demote it.
	a.resolve("a")
	r.connect()
	stillSplit("is Primary: demote it there")
	// b writes more than a's operator saw, and is demoted only then.
	wb.write(rigBlock, fill(4, rigBlock))
	wb.c.flush()
	b.demote()
	a.resolve("a")
	r.connect()
	stillSplit("lockstep split resolve")
	// Now a has seen it. But b's operator wants the other side.
	plan := a.resolve("a")
	if plan.Lost.Writes != 2 {
		t.Fatalf("b loses %d writes", plan.Lost.Writes)
	}
	a.isolate() // so that both words are given before they meet
	b.vol.mu.Lock()
	h := b.vol.super.History
	p := b.vol.peers["a"]
	d := &p.split.hello.Description
	p.keep = &keepWord{keep: "b", common: h.Position(p.split.result.Common), end: d.History.Position(d.End)}
	b.vol.mu.Unlock()
	a.heal()
	r.connect()
	stillSplit("an operator wants each side kept")
	a.demote() // a Secondary may be the loser, and is asked for on b
	want := b.view()
	b.resolve("b")
	r.follow([]SplitStep{{"a", "lockstep connect data"}})
	stillSplit("an operator wants each side kept") // a's word is still there
	if err := a.vol.Disconnect(""); err != nil {
		t.Fatal(err)
	}
	r.follow(b.resolve("b").Next)
	r.isEqual("b", "a", want)
}

// A side that wrote nothing gives way by itself once it is not Primary, and is not
// kept against that.
func TestResolveNothingWritten(t *testing.T) {
	r, a, b, c := forcedInVain(t, nil)
	a.heal()
	r.splitBrain()
	if _, err := b.vol.PlanResolve(ResolveOptions{Keep: "b"}); err != nil {
		t.Fatalf("a Primary that wrote nothing: %v", err)
	}
	b.demote()
	var e *ResolveRefusedError
	if _, err := b.vol.PlanResolve(ResolveOptions{Keep: "b"}); !errors.As(err, &e) || !strings.Contains(err.Error(), "gives way by itself") {
		t.Fatalf("a Secondary that wrote nothing: %v", err)
	}
	r.follow(b.resolve("a").Next)
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	if n := a.peer("b").Resyncs; n != 0 {
		t.Fatalf("%d resyncs", n)
	}
	c.flush()
	r.inSync("a", "b")
}

// With the policies that an operator set it ends without him. A Primary that a
// policy gives up loses its clients first.
func TestPoliciesSettle(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		policies SplitPolicies
		demote   string // nodes that are Secondary when they meet
		winner   string // "" none
	}{
		{SplitPolicies{ZeroPri: "discard-younger-primary"}, "ab", "a"},
		{SplitPolicies{ZeroPri: "discard-older-primary"}, "ab", "b"},
		{SplitPolicies{ZeroPri: "discard-node-a"}, "ab", "b"},
		{SplitPolicies{ZeroPri: "discard-zero-changes"}, "ab", ""},
		{SplitPolicies{ZeroPri: "discard-younger-primary"}, "b", ""},
		{SplitPolicies{OnePri: "discard-secondary"}, "b", "a"},
		{SplitPolicies{OnePri: "discard-secondary"}, "a", "b"},
		{SplitPolicies{OnePri: "discard-secondary"}, "", ""},
		{SplitPolicies{ZeroPri: "discard-younger-primary", OnePri: "consensus"}, "b", "a"},
		{SplitPolicies{ZeroPri: "discard-younger-primary", OnePri: "consensus"}, "a", ""},
		{SplitPolicies{ZeroPri: "discard-younger-primary", OnePri: "call-pri-lost-after-sb"}, "a", "a"},
		{SplitPolicies{ZeroPri: "discard-older-primary", TwoPri: "call-pri-lost-after-sb"}, "", "b"},
		{SplitPolicies{ZeroPri: "discard-younger-primary", TwoPri: "call-pri-lost-after-sb"}, "", "a"},
	} {
		name := fmt.Sprintf("%s %s %s, Secondary %s", row.policies.ZeroPri, row.policies.OnePri, row.policies.TwoPri, row.demote)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, a, b := parted(t, func(o *Options) { o.Split = row.policies })
			rng := seed(t)
			writers := map[string]*splitWriter{"a": newSplitWriter(a), "b": newSplitWriter(b)}
			views := map[string][]byte{}
			for _, n := range []*rigNode{a, b} {
				w := writers[n.name]
				w.random(rng, 1+rng.IntN(20))
				w.c.flush()
				if strings.Contains(row.demote, n.name) {
					w.c.s.Close()
					n.demote()
				}
				views[n.name] = n.view()
			}
			loser := map[string]string{"a": "b", "b": "a"}[row.winner]
			var revoked chan error
			if loser != "" && !strings.Contains(row.demote, loser) {
				revoked = make(chan error, 1)
				if _, err := r.node(loser).vol.Attach(t.Context(), func(err error) { revoked <- err }); err != nil {
					t.Fatal(err)
				}
			}
			a.heal()
			if row.winner == "" {
				r.splitBrain()
				for _, n := range []*rigNode{a, b} {
					if !bytes.Equal(n.view(), views[n.name]) {
						t.Fatalf("%s has changed", n.name)
					}
				}
				return
			}
			if revoked != nil {
				revokedWith(t, revoked, "demoted")
			}
			if strings.Contains(row.demote, row.winner) {
				w := r.node(row.winner)
				r.eventually("it is settled", func() bool { return w.peer(loser).Verdict == "PeerBehind" })
				w.promote(false)
			}
			r.isEqual(row.winner, loser, views[row.winner])
			r.node(loser).keepsLosing(views[loser])
		})
	}
}

// Policies that differ settle nothing.
func TestPoliciesThatDiffer(t *testing.T) {
	r, a, b := parted(t, func(o *Options) {
		if o.Split = (SplitPolicies{OnePri: "discard-secondary"}); o.Node == "b" {
			o.Split.OnePri = "call-pri-lost-after-sb"
		}
	})
	for i, n := range []*rigNode{a, b} {
		w := newSplitWriter(n)
		w.write(0, fill(byte(2+i), rigBlock))
		w.c.flush()
	}
	b.demote()
	a.heal()
	r.splitBrain()
	if s := a.peer("b").SplitBrain; !strings.Contains(s.Reason, "different policies") {
		t.Errorf("%s", s.Reason)
	}
}

// aboutToResolve: a is Primary and b is not, each wrote, both are StandAlone, and
// b is to lose.
func aboutToResolve(t *testing.T) (r *rig, a, b *rigNode, want, losing []byte) {
	t.Helper()
	rng := seed(t)
	r, a, b = parted(t, nil)
	wa, wb := newSplitWriter(a), newSplitWriter(b)
	wa.random(rng, 40)
	wb.random(rng, 40)
	wa.c.flush()
	wb.c.flush()
	wa.c.s.Close()
	wb.c.s.Close()
	want, losing = a.view(), b.view()
	b.demote()
	a.heal()
	r.splitBrain()
	return r, a, b, want, losing
}

// settleAgain ends what a crash left: two that go on by themselves, or a split-brain
// of which the loser has all that it wrote.
func (r *rig) settleAgain(want, losing []byte) {
	r.t.Helper()
	a, b := r.node("a"), r.node("b")
	one := func() bool { return a.peer("b").Member && b.vol.Status().Disk == UpToDate } // no start is that
	r.eventually("they are one, or a split-brain", func() bool {
		return one() || a.peer("b").SplitBrain != nil && b.peer("a").Connection == StandAlone && a.peer("b").Connection == StandAlone
	})
	if !one() {
		if !bytes.Equal(b.view(), losing) {
			r.t.Fatal("what the loser wrote is gone, and it was not resynced")
		}
		r.follow(b.resolve("a").Next)
	}
	r.isEqual("a", "b", want)
	b.keepsLosing(losing)
}

// TestP4CrashStates: every state that a crash of the loser can leave opens, twice the
// same, and ends well: both sides are there.
func TestP4CrashStates(t *testing.T) {
	t.Parallel()
	r, a, b, want, losing := aboutToResolve(t)
	end := b.vol.Status().End
	crashes := crashesDuring(b, func() {
		r.follow(b.resolve("a").Next)
		r.isEqual("a", "b", want)
	})
	b.keepsLosing(losing)
	every := 1
	if underRace {
		every = 8
	}
	for i := 0; i < len(crashes); i += every {
		bothSidesAreThere(t, crashes[i], losing)
	}
	ends := looks(t, crashes, "b", "a")
	if ends[end] == 0 || len(ends) < 2 {
		t.Fatalf("%d crashes end at %v; the loser ended at LSN %d", len(crashes), ends, end)
	}
	for i := range 6 {
		if list, err := a.vol.SplitBrains(); err != nil || len(list) > 0 {
			t.Fatalf("a says %+v, %v", list, err)
		}
		b.kill()
		b.fake = crashes[len(crashes)*i/6]
		b.boot += "+"
		b.start()
		r.settleAgain(want, losing)
	}
}

// bothSidesAreThere: whatever a crash left of the loser's disk has its side, as a
// snapshot or as it was. (The winner's side is the winner's.)
func bothSidesAreThere(t *testing.T, d *fakedisk.FS, losing []byte) {
	t.Helper()
	d = d.CrashClone(fakedisk.KeepAll) // others start it, too
	v, err := Open(Options{Node: "b", Volume: rigVolume, FS: d, Store: openFake(t, d), Peers: []string{"a"}, Dialer: nobody{}, BootID: "look"})
	if err != nil {
		t.Fatalf("open what a crash left: %v", err)
	}
	defer v.Close(t.Context())
	if list := v.Snapshots(); len(list) > 0 {
		mustBe(t, "the losing side", snapshotOf(t, v, list[0].Name), losing)
		return
	}
	i, err := v.OpenImage(t.Context())
	if err != nil {
		t.Fatalf("it is not kept, and: %v", err)
	}
	defer i.Close()
	s, err := i.Attach(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, rigSize)
	if err := s.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	mustBe(t, "what was not given up", p, losing)
}

// What the loser wrote is part of the winner's bitmap, durably, before the loser is
// Inconsistent: the winner dies just then, and knows it all the same.
func TestWinnerDiesAsTheLoserGivesUp(t *testing.T) {
	r, a, b, want, losing := aboutToResolve(t)
	reset := b.stallAt(fakedisk.OpDatasync, "*.seg*", func() bool {
		b.vol.mu.Lock()
		defer b.vol.mu.Unlock()
		return b.vol.super.Disk == Inconsistent
	})
	r.follow(b.resolve("a").Next)
	reset.wait(t) // its journal begins anew, and no block was sent yet
	a.powerLoss(fakedisk.LoseAll)
	reset.letGo()
	a.start()
	a.promote(true)
	r.isEqual("a", "b", want)
	b.keepsLosing(losing)
}

// What both hold comes into the loser's store before its journal is given up, also
// what it has not applied by then: nobody copies it.
func TestCommonRecordsComeFirst(t *testing.T) {
	t.Parallel()
	n, size := int64(4*applyRecords), int64(256) // several rounds of the applier
	if underRace {
		n /= 2 // to read them back takes long there
	}
	r := newFakeRig(t, patient, "a", "b")
	a, b, c := r.pair()
	var ws []waitDone
	for i := range n {
		ws = append(ws, c.async(i*size, fill(byte(1+i%250), int(size))))
	}
	for _, w := range ws {
		c.must(w)
	}
	r.eventually("b has them", func() bool { return b.vol.Status().End == a.vol.Status().End })
	if s := b.vol.Status(); s.End-s.Applied < LSN(n) {
		t.Fatalf("b has applied %d of %d", s.Applied, s.End)
	}
	a.isolate()
	r.eventually("a is alone", func() bool { return len(a.vol.Status().InSync) == 1 })
	applies := b.stallAt(fakedisk.OpWrite, fakeData, nil)
	b.promote(true)
	for i, n := range []*rigNode{a, b} {
		w := newSplitWriter(n)
		w.write(rigSize-rigBlock, fill(byte(2+i), rigBlock))
		w.c.flush()
	}
	applies.wait(t)
	want := a.view()
	b.demote()
	a.heal()
	r.splitBrain()
	r.follow(b.resolve("a").Next)
	r.eventually("b follows", func() bool {
		b.vol.mu.Lock()
		defer b.vol.mu.Unlock()
		return b.vol.peers["a"].following
	})
	applies.letGo()
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	a.demote()
	r.eventually("b follows nobody", func() bool {
		b.vol.mu.Lock()
		defer b.vol.mu.Unlock()
		return !b.vol.peers["a"].following
	})
	if got := b.view(); !bytes.Equal(got, want) {
		i := 0
		for got[i] == want[i] {
			i++
		}
		t.Fatalf("byte %d of b is %d, not %d", i, got[i], want[i])
	}
}

// TestP4PowerLoss: of either side in the middle of it. What is left is settled, and
// both sides are there.
func TestP4PowerLoss(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"a", "b"} {
		for i, at := range []int{1, 2, 3, 5, 8, 13, 21, 34} {
			if underRace && i%3 != 0 {
				continue // make plain runs all
			}
			t.Run(fmt.Sprintf("of %s at operation %d", victim, at), func(t *testing.T) {
				t.Parallel()
				r, a, b, want, losing := aboutToResolve(t)
				n := r.node(victim)
				reached, free := make(chan struct{}), make(chan struct{})
				var ops atomic.Int64
				n.fake.OnOp(func(op fakedisk.Op, _ string) error {
					if op == fakedisk.OpRead || op == fakedisk.OpOpen || op == fakedisk.OpSize {
						return nil
					}
					if ops.Add(1) == int64(at) {
						close(reached)
						<-free
					}
					return nil
				})
				b.resolve("a")
				if err := a.vol.Connect(""); err != nil {
					t.Fatal(err)
				}
				select {
				case <-reached:
				case <-time.After(hangTime):
					t.Fatalf("only %d operations\n%s", ops.Load(), r.describe())
				}
				out := n.gatesOut()
				for _, g := range out {
					g.hold()
				}
				n.fake = n.fake.Crash(fakedisk.LoseAll)
				close(free)
				n.kill()
				for _, g := range out {
					g.drop()
				}
				n.boot += "+"
				n.start()
				if n == a {
					a.promote(true)
				}
				r.settleAgain(want, losing)
			})
		}
	}
}

// An operator may want it kept nowhere, and says so on whichever node.
func TestDiscardLosingWrites(t *testing.T) {
	for _, on := range []string{"a", "b"} {
		r, _, b, want, _ := aboutToResolve(t)
		plan, err := r.node(on).vol.ResolveSplit(t.Context(), ResolveOptions{Keep: "a", DiscardLosingWrites: true})
		if err != nil || plan.Preserved != "" {
			t.Fatalf("%+v, %v", plan, err)
		}
		r.follow(plan.Next)
		r.isEqual("a", "b", want)
		if list := b.vol.Snapshots(); len(list) > 0 {
			t.Errorf("said on %s, and b keeps %+v", on, list)
		}
	}
}

// A losing side that cannot be kept is not overwritten: the resync waits until there
// is room, or an operator does without.
func TestLosingSideWaitsForRoom(t *testing.T) {
	limit := int64(256 << 10)
	limited := func(o *Options) { o.SnapshotLimit = limit }
	for name, row := range map[string]struct {
		opts func(*Options)
		full func(b *rigNode) // before it is resolved
		why  string           // it waits
		mend func(b *rigNode) // before it is connected again
		kept bool
	}{
		"too many snapshots": {nil, func(b *rigNode) {
			for i := range MaxSnapshots {
				b.snap(fmt.Sprint(i))
			}
		}, "there are 16 snapshots already", func(b *rigNode) {
			for i := range MaxSnapshots {
				if err := b.vol.DeleteSnapshot(fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
			}
		}, true},
		"its limit, raised": {limited, nil, "could not be kept", func(b *rigNode) {
			limit = 0
			b.restart()
		}, true},
		"its limit, given up": {limited, nil, "could not be kept", func(b *rigNode) {
			if err := b.vol.DeleteSnapshot(b.vol.Snapshots()[0].Name); err != nil {
				t.Fatal(err)
			}
		}, false},
		"a failed sync": {nil, func(b *rigNode) {
			b.fake.OnOp(func(op fakedisk.Op, name string) error {
				v := b.vol.keepers.Load()
				if op == fakedisk.OpDatasync && strings.HasPrefix(name, snapshotPrefix) && v != nil && len(v.snaps) > 0 {
					return errDisk
				}
				return nil
			})
		}, "could not be kept", func(b *rigNode) {
			b.fake.OnOp(nil)
			b.restart()
		}, true},
	} {
		if underRace && !row.kept {
			continue
		}
		t.Run(name, func(t *testing.T) {
			limit = 256 << 10
			r, a, b := parted(t, row.opts)
			rng := seed(t)
			for _, n := range []*rigNode{a, b} {
				c := n.attach()
				for i := range int64(4) {
					c.must(c.async(i<<20, randomly(rng, 256<<10)))
				}
				c.flush()
				c.s.Close()
			}
			want, losing := a.view(), b.view()
			b.demote()
			b.snapAppliesAll() // else it may be full before it is begun
			if row.full != nil {
				row.full(b)
			}
			a.heal()
			r.splitBrain()
			r.follow(b.resolve("a").Next)
			r.eventually("it waits", func() bool { return strings.Contains(b.peer("a").Problem, row.why) })
			if s := b.vol.Status(); s.Failure != "" {
				t.Fatal(s.Failure)
			}
			for _, s := range b.vol.Snapshots() {
				if s.Peer != "" {
					mustBe(t, "while it waits", b.snapshotView(s.Name), losing)
				}
			}
			row.mend(b)
			if b.peer("a").SplitBrain != nil { // the word was lost by the restart
				r.follow(b.resolve("a").Next)
			}
			r.connect()
			r.isEqual("a", "b", want)
			if row.kept {
				b.keepsLosing(losing)
			} else if list := b.vol.Snapshots(); len(list) > 0 {
				t.Fatalf("%+v", list)
			}
		})
	}
}
