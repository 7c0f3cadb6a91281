package mirror

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A coreWalk is a Primary's core among peers, a handler and a Coordinator that answer
// when they like, or never, all from one seed.
type coreWalk struct {
	coreWorld
	t     testing.TB
	rng   *rand.Rand
	trace strings.Builder
	lossy bool // peers, handler and Coordinator fail

	peers []*walkPeer
	// The Coordinator's record, and the requests that may arrive yet.
	record   Agreement
	revision Revision
	late     []propose
	attempts uint64
	ours     []ID // attempts whose outcome is unknown

	todo []action // begun, and not done

	// The last smaller set: what it was before, the generation's record, and whether
	// that has been durable on all of those who are left.
	before  []Member
	smaller LSN
	closed  bool
}

// A walkPeer is a peer as it is, not as it is known.
type walkPeer struct {
	node        string
	incarnation uint64
	has         map[uint64]LSN // durably, by incarnation
}

func newCoreWalk(t testing.TB, rng *rand.Rand) *coreWalk {
	w := &coreWalk{t: t, rng: rng, lossy: true}
	w.out = &w.trace
	r := rules{node: "a", volume: "data", minInSync: 1 + rng.IntN(2), peerTimeout: 3 * time.Second, fences: rng.IntN(2) == 0}
	if rng.IntN(2) == 0 {
		r.onNoQuorum = IOError
	}
	nodes := []string{"b", "c", "d"}[:1+rng.IntN(3)]
	w.now, w.meets = coreStart, map[string]*meeting{}
	w.c = newCore(r, nodes)
	c := &w.c
	c.super = Superblock{Node: "a", Disk: UpToDate, Incarnation: 1, Epoch: 1, SetVersion: 1, Volume: ID{1}, Set: []Member{{"a", 1}}}
	for _, node := range nodes {
		w.peers = append(w.peers, &walkPeer{node, 1, map[uint64]LSN{1: 1}})
		c.super.Set = append(c.super.Set, Member{node, 1})
	}
	c.role, c.led, c.serving = Primary, true, true
	c.end, c.appended, c.durable, c.committed, c.stable, c.generation = 1, 1, 1, 1, 1, 1
	w.record, w.revision = Agreement{Epoch: 1, SetVersion: 1, Primary: "a", Set: c.super.Set}, 1
	c.revision = 1
	return w
}

func (w *coreWalk) chance(percent int) bool { return w.rng.IntN(100) < percent }

// happens tells an event.
func (w *coreWalk) happens(e event) {
	fmt.Fprintln(&w.trace, describeAction(e))
	for _, a := range w.tell(e) {
		switch a.(type) {
		case wantTurn:
			if !slices.Contains(w.todo, a) { // whoever watches waits for one at a time
				w.todo = append(w.todo, a)
			}
		case askFence, syncJournal, propose, readAgreement, beginGeneration, await, recordSet:
			w.todo = append(w.todo, a)
		}
	}
}

// inTurn reports whether a change is under way.
func (w *coreWalk) inTurn() bool {
	for _, a := range w.todo {
		switch a.(type) {
		case askFence, wantTurn:
		default:
			return true
		}
	}
	return false
}

// finish ends one of the things that are under way.
func (w *coreWalk) finish(i int) {
	a := w.todo[i]
	switch a.(type) {
	case wantTurn:
		if w.inTurn() {
			return // it has to wait
		}
	case await:
		if ok, err := w.c.inForce(); !ok && err == nil && !(w.lossy && w.c.change.kind == joining && w.chance(20)) {
			return
		}
	}
	w.todo = append(w.todo[:i:i], w.todo[i+1:]...)
	fails := func() error {
		if w.lossy && w.chance(15) {
			return errors.New("it fails")
		}
		return nil
	}
	switch a := a.(type) {
	case askFence:
		w.happens(fenceAnswer{a.node, fails(), w.now, time.Second})
	case wantTurn:
		w.happens(shrinkTurn{w.now})
	case syncJournal:
		w.happens(synced{fails()})
	case propose:
		w.happens(w.swap(a))
	case readAgreement:
		e := agreementRead{is: w.record, revision: w.revision, err: fails()}
		for _, id := range w.ours {
			e.ours = e.ours || id == w.record.Attempt
		}
		w.happens(e)
	case beginGeneration:
		lsn := w.c.end + 1
		w.happens(placed{lsn})
		if a.record {
			w.before, w.smaller, w.closed = w.c.super.Set, lsn, false
		}
		if err := w.commit(func(sb *Superblock) { a.edit(sb) }); err != nil {
			w.t.Fatal(err)
		}
		w.c.end, w.c.appended, w.c.durable, w.c.generation = lsn, lsn, lsn, lsn
		w.happens(begun{lsn: lsn})
	case await:
		if ok, err := w.c.inForce(); ok {
			w.happens(inForce{})
		} else {
			w.happens(gaveUp{errors.Join(err, errors.New("too long"))})
		}
	case recordSet:
		if err := w.commit(func(sb *Superblock) { sb.Set = a.set }); err != nil {
			w.t.Fatal(err)
		}
		w.happens(setRecorded{nil, w.now})
	}
}

// swap is the Coordinator's: it may do it and not say so, or do it later.
func (w *coreWalk) swap(a propose) event {
	w.attempts++
	a.next.Attempt = ID{byte(w.attempts), byte(w.attempts >> 8), 1}
	w.ours = append(w.ours, a.next.Attempt)
	switch {
	case w.lossy && w.chance(15):
		w.late = append(w.late, a)
		return proposed{err: errors.New("no answer")}
	case !w.apply(a):
		return proposed{err: ErrSuperseded}
	case w.lossy && w.chance(15):
		return proposed{err: errors.New("no answer")}
	}
	w.ours = nil
	return proposed{revision: w.revision}
}

func (w *coreWalk) apply(a propose) bool {
	if a.base != w.revision {
		return false
	}
	w.revision++
	w.record = a.next
	fmt.Fprintf(&w.trace, "   in force: %s\n", formatMembers(w.record.Set))
	return true
}

// move is one thing that happens.
func (w *coreWalk) move() {
	c := &w.c
	i := w.rng.IntN(len(w.peers))
	x, p := w.peers[i], c.others[i]
	switch n := w.rng.IntN(100); {
	case n < 15:
		c.end++
		c.appended, c.durable = c.end, c.end
		w.advance()
	case n < 45: // the peer gets more, and says so, or its answer is on its way
		if p.with != nil && p.with.ready {
			x.has[x.incarnation] += LSN(w.rng.Uint64N(uint64(c.end-x.has[x.incarnation]) + 1))
			if !w.lossy || w.chance(70) {
				p.received = x.has[x.incarnation]
				p.durable = p.received
				if c.change.who == p && c.change.lsn != 0 && p.durable >= c.change.lsn {
					p.with.joinReady = c.change.lsn
				}
				w.advance()
			}
		}
	case n < 50:
		if w.lossy && p.with != nil {
			p.with, p.removeAt = nil, w.now
			if w.chance(20) { // and its memory with it
				x.incarnation++
				x.has[x.incarnation] = 0
			}
		}
	case n < 65:
		if p.with == nil && !p.leaving {
			w.meet(x, p)
		}
	case n < 70:
		w.now = w.now.Add(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
	case n < 80:
		w.happens(watch{w.now})
	case n < 85:
		m := Member{p.node, p.incarnation}
		if p.with != nil && p.with.ready && !setHas(c.super.Set, m) && c.joiner == nil && !w.inTurn() {
			w.happens(joinTurn{p.node, p.with, w.now})
		}
	case n < 87:
		if len(w.late) > 0 {
			w.apply(w.late[0])
			w.late = w.late[1:]
		}
	default:
		if len(w.todo) > 0 {
			w.finish(w.rng.IntN(len(w.todo)))
		}
	}
}

func (w *coreWalk) meet(x *walkPeer, p *peerState) {
	p.with = &meeting{met: true, ready: true, theirs: Description{Node: x.node, Incarnation: x.incarnation}}
	p.incarnation = x.incarnation
	p.received, p.durable = x.has[x.incarnation], x.has[x.incarnation]
	p.fenced, p.asking, p.fenceAfter = false, false, time.Time{}
	if i, recorded := setIndex(w.c.super.Set, x.node); recorded && w.c.super.Set[i].Incarnation != x.incarnation && w.c.mayLeave(p) {
		p.with, p.removeAt = nil, w.now // its old self goes first (2c)
		return
	}
	w.advance()
	if w.c.suspended {
		w.happens(quorumLook{w.now})
	}
}

// check is invariant 6: what is acknowledged every member has of every set that is in
// force or may be.
func (w *coreWalk) check() {
	for _, set := range [][]Member{w.c.super.Set, w.record.Set} {
		for _, m := range set {
			for _, x := range w.peers {
				if x.node == m.Node && x.has[m.Incarnation] < w.c.committed {
					w.t.Fatalf("committed is LSN %d, and %s/%d, a member, has %d\n%s%s", w.c.committed, m.Node, m.Incarnation, x.has[m.Incarnation], w.tail(), w.state())
				}
			}
		}
	}
	w.closed = w.closed || w.everybodyHas(w.smaller)
	for _, x := range w.peers {
		if i, was := setIndex(w.before, x.node); was && !w.closed && x.has[w.before[i].Incarnation] < w.c.committed {
			w.t.Fatalf("committed is LSN %d, %s has %d, and the set without it begins at %d and is not in force\n%s%s", w.c.committed, x.node, x.has[x.incarnation], w.smaller, w.tail(), w.state())
		}
	}
	if w.c.committed > 1 && len(w.c.super.Set) < w.c.rules.minInSync {
		w.t.Fatalf("the set has %d members, min-in-sync is %d\n%s", len(w.c.super.Set), w.c.rules.minInSync, w.tail())
	}
}

// everybodyHas reports whether those members that are here have a record durably.
func (w *coreWalk) everybodyHas(lsn LSN) bool {
	for i, x := range w.peers {
		if m := (Member{x.node, x.incarnation}); setHas(w.c.super.Set, m) && w.c.counted(w.c.others[i]) && x.has[x.incarnation] < lsn {
			return false
		}
	}
	return true
}

func (w *coreWalk) tail() string {
	s := w.trace.String()
	return s[max(0, len(s)-3000):]
}

// What every acknowledgement asks of the core allocates nothing.
func TestReachAllocatesNothing(t *testing.T) {
	c := newCore(rules{node: "a", minInSync: 1}, []string{"b", "c"})
	c.super.Set = []Member{{"a", 1}, {"b", 1}, {"c", 1}}
	c.joiner, c.joinWith = c.other("c"), &meeting{}
	if n := testing.AllocsPerRun(100, func() {
		c.other("b").received++
		if received, _ := c.reach(); received != 0 {
			t.Fatal("c has nothing")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestCoreWalk: whatever comes in whatever order, nothing is acknowledged before the
// membership that it needs is in force (invariant 6), no superblock goes where it must
// not, and once everybody answers again all are in sync and every write is committed.
// The same events give the same actions.
func TestCoreWalk(t *testing.T) {
	unraced(t)
	rng := seed(t)
	for range 600 {
		s := rng.Uint64()
		walk := func() *coreWalk {
			w := newCoreWalk(t, rand.New(rand.NewPCG(s, s)))
			for range 400 {
				w.move()
				w.check()
			}
			w.lossy = false
			healed := func() bool {
				return len(w.c.super.Set) == 1+len(w.peers) && w.c.committed == w.c.end && !w.c.suspended && !w.inTurn() && len(w.todo) == 0
			}
			for i := 0; !healed(); i++ {
				if i == 20000 {
					t.Fatalf("nothing is wrong, and yet not all are in sync\n%s%s", w.tail(), w.state())
				}
				w.move()
				w.check()
			}
			return w
		}
		if a, b := walk().trace.String(), walk().trace.String(); a != b {
			t.Fatalf("the same events gave other actions, with seed %d", s)
		}
	}
}

// TestInvariant8Judged: whatever is known of the peers, without force this replica leads
// only if each is here, not Primary, and has nothing that it lacks, or went on with
// nothing by its own superblock; with force, never past a Primary that is here, nor as
// Inconsistent or Failed. The set that it begins with holds recorded members alone.
func TestInvariant8Judged(t *testing.T) {
	rng := seed(t)
	flip := func() bool { return rng.IntN(2) == 0 }
	leads := 0
	for range 20000 {
		c := newCore(rules{node: "b", volume: "data", minInSync: 1}, []string{"a", "c"}[:1+rng.IntN(2)])
		sb := &c.super
		*sb = Superblock{Node: "b", Disk: []DiskState{UpToDate, UpToDate, Consistent, Outdated, Inconsistent, Failed}[rng.IntN(6)],
			Incarnation: 1, Epoch: 3, SetVersion: 3, Volume: ID{1}, Excluded: rng.IntN(4) == 0}
		switch {
		case sb.Disk == Inconsistent:
			sb.Resync = &ResyncMark{Source: "a"}
		case sb.Disk == Failed:
			c.failure = ErrFailed
		}
		if rng.IntN(8) > 0 {
			sb.History = History{{ID: ID{2}, Epoch: 1, First: 1}}
		}
		for _, node := range []string{"a", "b", "c"} {
			if node == "b" && !sb.Excluded || node != "b" && flip() {
				sb.Set = append(sb.Set, Member{node, 1})
			}
		}
		for _, p := range c.others {
			p.want = rng.IntN(8) > 0
			if rng.IntN(4) == 0 {
				continue // away
			}
			p.with = &meeting{met: rng.IntN(4) > 0}
			d := &p.with.theirs
			*d = Description{Node: p.node, Incarnation: uint64(1 + rng.IntN(8)/7), Excluded: flip(), SetVersion: uint64(2 + rng.IntN(3)), Epoch: 3, Set: sb.Set}
			if rng.IntN(5) == 0 {
				d.Role = Primary
			}
			p.with.verdict.Verdict = Verdict(rng.IntN(len(verdictNames)))
		}
		set := sb.Set
		force := flip()
		c.step(promoteTurn{force: force})
		if c.change.kind != promoting {
			continue
		}
		c.step(agreementRead{})
		for _, p := range c.others {
			here := p.with != nil && p.with.met
			if here && p.with.theirs.Role == Primary {
				t.Fatalf("it leads, force %v, past %s, which is Primary: %+v", force, p.node, c)
			}
			knows := here && p.with.verdict.Verdict.leads()
			gone := !here && !sb.Excluded && len(set) > 0 && !setHasNode(set, p.node) && p.want && len(sb.History) > 0
			if !force && !knows && !gone {
				t.Fatalf("it leads without force, and %s may have more: %+v %+v", p.node, c, p)
			}
			if !force && (sb.Excluded || sb.Disk == Outdated) && !(here && p.with.theirs.Excluded) {
				t.Fatalf("it leads without force, Outdated, and %s has not stood down: %+v %+v", p.node, c, p)
			}
		}
		if sb.Disk == Inconsistent || c.failure != nil {
			t.Fatalf("it leads, force %v, and is %v", force, sb.Disk)
		}
		for _, m := range c.change.set {
			if p := c.other(m.Node); p != nil && (!setHas(set, m) || p.with.theirs.Incarnation != m.Incarnation) {
				t.Fatalf("%v begins in the set; the recorded set is %v, and what is here is %+v", m, set, p.with.theirs)
			}
		}
		c.step(roleTaken{coreStart})
		if c.serving || c.led || c.change.epoch <= 3 {
			t.Fatalf("it serves before its generation is in force, or in an old epoch: %+v", c)
		}
		leads++
	}
	t.Logf("it led %d times", leads)
	if leads < 200 {
		t.Fatalf("it led only %d times", leads)
	}
}
