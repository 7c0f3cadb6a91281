package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A several is three nodes, every two of them connected, that things happen to.
type several struct {
	*rig
	rng *rand.Rand
	m   *registers
	l   *load
	p   *rigNode // who is Primary, or was last
	// leads: p lives and is Primary.
	leads bool
	down  map[*rigNode]bool
	// whole has everything that was acknowledged: p, and who was a member and
	// kept its memory ever since all were.
	whole     map[*rigNode]bool
	minInSync int
	warned    bool // the loss counter rose since all was well
	// forced: p was promoted by force, with another member, and the third may not have
	// followed it yet. Should it lose its memory now, nobody can tell any more that it
	// had never heard of what the old Primary has left over: only who goes on alone
	// has that on record (Compare).
	forced bool
}

// TestRandomFaultsOfThree kills, cuts off, powers off, replaces and promotes three
// nodes at random, under load, more than one at a time. No flushed write is ever
// lost, no acknowledged one while somebody is left who had it and kept its memory;
// if one is, whoever leads then has warned of it. Once all are healed one of them
// may lead without force, and all three replicas become the same.
func TestRandomFaultsOfThree(t *testing.T) {
	rounds := faultRounds(t, 16, 6)
	rng := seed(t)
	made, minInSync := drawVolume(t, rng, 3)
	r := newRigMade(t, made, true, func(o *Options) { o.PeerTimeout, o.MinInSync = time.Second, minInSync }, "a", "b", "c")
	x := &several{rig: r, rng: rng, m: newRegisters(t, !made.NoWriteCache), p: r.node("a"), down: map[*rigNode]bool{}, minInSync: minInSync}
	x.meet()
	x.p.promote(false)
	x.leads = true
	for round := range rounds {
		if x.rng.IntN(3) > 0 || round == 0 || round == rounds-1 {
			x.settle()
		}
		x.round(round)
		if t.Failed() {
			t.Fatalf("round %d\n%s", round, x.describe())
		}
	}
	x.settle()
}

// settle waits until all are members, and checks everything.
func (x *several) settle() {
	x.t.Helper()
	x.members()
	c := x.p.attach()
	c.flush()
	x.m.check(c)
	if x.m.lost && !x.warned {
		x.t.Errorf("writes were lost that had been acknowledged, and the loss counter of %s did not rise", x.p.name)
	}
	x.warned, x.forced, x.m.lost = false, false, false
	c.s.Close()
	x.inSync(x.p.name, namesOf(x.others(x.p))...)
	x.whole = map[*rigNode]bool{}
	for _, n := range x.nodes {
		x.whole[n] = true
	}
}

// others are the nodes but n, in the order of their names.
func (x *several) others(n *rigNode) (others []*rigNode) {
	for _, name := range []string{"a", "b", "c"} {
		if name != n.name {
			others = append(others, x.node(name))
		}
	}
	return others
}

func namesOf(nodes []*rigNode) (names []string) {
	for _, n := range nodes {
		names = append(names, n.name)
	}
	return names
}

func (x *several) work() { time.Sleep(time.Duration(x.rng.IntN(60)) * time.Millisecond) }

// round has one to four things happen, and heals everything.
func (x *several) round(round int) {
	x.t.Helper()
	x.l = x.m.load(x.p, x.rng)
	x.t.Logf("round %d, %s leads", round, x.p.name)
	for range 1 + x.rng.IntN(4) {
		x.work()
		x.t.Logf("  %s", x.event())
	}
	x.work()
	x.healAll()
	if !x.leads {
		x.elect(x.others(nobodyNode)...)
	}
	x.work()
	x.endLoad()
}

func (x *several) healAll() {
	x.openGates()
	for _, n := range x.others(nobodyNode) {
		n.heal()
		if x.down[n] {
			n.start()
			delete(x.down, n)
		}
	}
}

// nobodyNode has no name, so that all are others.
var nobodyNode = &rigNode{}

func (x *several) endLoad() {
	if x.l != nil {
		x.l.end()
		x.l = nil
	}
}

// event makes one thing happen to one node, or to the network between two, and
// says what.
func (x *several) event() string {
	x.t.Helper()
	n := x.node([]string{"a", "b", "c"}[x.rng.IntN(3)])
	k := x.rng.IntN(8)
	switch {
	case n == x.p && x.forced && (x.made.Protocol == ProtocolB || k >= 6):
		return "nothing"
	case x.down[n]:
		n.start()
		delete(x.down, n)
		return "start " + n.name
	case k == 0:
		x.away(n)
		n.isolate()
		return "isolate " + n.name
	case k == 1:
		x.away(n)
		n.isolate()
		x.work()
		n.heal()
		return "blink " + n.name
	case k == 2:
		o := x.others(n)[x.rng.IntN(2)]
		x.gate(n.name, o.name).hold()
		switch x.p {
		case n:
			delete(x.whole, o)
		case o:
			delete(x.whole, n)
		}
		return fmt.Sprintf("hold what %s sends %s", n.name, o.name)
	case k == 3 && n == x.p && x.leads:
		return x.handOver()
	case k == 3 && x.leads:
		x.die(n, "replace")
		n.createFake()
		return "replace " + n.name
	case k < 6:
		x.die(n, "kill")
		return "kill " + n.name + x.succeed(n)
	}
	x.die(n, "power off")
	return "power off " + n.name + x.succeed(n)
}

// away: n loses sight of the Primary, or, as Primary, of the others: who does may
// be no member any more, and lack what is acknowledged from now on.
func (x *several) away(n *rigNode) {
	for _, o := range x.others(nobodyNode) {
		if o != x.p && (n == o || n == x.p) {
			delete(x.whole, o)
		}
	}
}

// die ends a node.
func (x *several) die(n *rigNode, how string) {
	x.t.Helper()
	led := n == x.p && x.leads
	if x.whole[n] && n != x.p && x.leads && x.rng.IntN(2) == 0 {
		// Under protocol B it acknowledges all the same.
		op := []fakedisk.Op{fakedisk.OpWrite, fakedisk.OpDatasync}[x.rng.IntN(2)]
		n.stallAt(op, "*.seg*", nil)
		x.work()
	}
	if how == "power off" {
		n.powerLoss(fakedisk.KeepSome(x.rng.Uint64()))
	} else {
		n.sigkill()
	}
	x.down[n] = true
	if led {
		x.leads = false
		x.endLoad()
	}
	// What a Primary acknowledged is in its own journal, under protocol B too.
	if how != "kill" || !led && (n != x.p || x.made.Protocol == ProtocolB) {
		delete(x.whole, n)
	}
	if len(x.whole) == 0 {
		x.m.memoryLost()
	}
}

// succeed may promote another node by force in the place of one that led and
// died, if it is certain to have everything.
func (x *several) succeed(dead *rigNode) string {
	x.t.Helper()
	if dead != x.p || x.leads || x.rng.IntN(2) == 0 {
		return ""
	}
	for _, n := range x.others(dead) {
		if x.whole[n] && !x.down[n] {
			_ = x.lead(n, func() error { n.promote(true); return nil }) // or the test ends
			x.forced = len(n.members()) > 1
			return ", " + n.name + " leads"
		}
	}
	return ""
}

// lead has n promoted, and its clients begin.
func (x *several) lead(n *rigNode, promote func() error) error {
	x.t.Helper()
	before := n.lossCounter()
	if err := promote(); err != nil {
		return err
	}
	x.warned = x.warned || n.lossCounter() > before
	x.p, x.leads = n, true
	x.whole[n] = true
	for _, o := range x.others(n) { // who was not there is waited for no more
		if !setHasNode(n.members(), o.name) {
			delete(x.whole, o)
		}
	}
	x.l = x.m.load(n, x.rng)
	return nil
}

func (n *rigNode) members() []Member {
	n.vol.mu.Lock()
	defer n.vol.mu.Unlock()
	return n.vol.super.Set
}

// handOver demotes the Primary and has any node promoted that may be.
func (x *several) handOver() string {
	x.t.Helper()
	was := x.p.name
	if x.minInSync > 1 { // what it holds back would never be settled
		x.healAll()
	}
	x.p.demote()
	x.leads = false
	x.endLoad()
	if len(x.down) > 0 {
		return was + " is demoted"
	}
	x.healAll()
	x.elect(x.others(nobodyNode)...)
	return was + " hands over to " + x.p.name
}

// elect promotes, without force, whichever of the nodes may be: with all of them
// connected there is always one.
func (x *several) elect(nodes ...*rigNode) {
	x.t.Helper()
	defer func() { x.t.Logf("  %s is elected", x.p.name) }()
	x.rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	var refusals []string
	for ctx.Err() == nil {
		x.meet()
		refusals = nil
		for _, n := range nodes {
			err := x.lead(n, func() error { return n.vol.Promote(ctx, PromoteOptions{}) })
			if err == nil {
				return
			}
			var unsafe *UnsafePromotionError
			if !errors.As(err, &unsafe) {
				x.t.Fatalf("promote %s: %v\n%s", n.name, err, x.describe())
			}
			refusals = append(refusals, fmt.Sprintf("%s: %v", n.name, err))
		}
	}
	x.t.Fatalf("nobody may be promoted:\n%s\n%s", strings.Join(refusals, "\n"), x.describe())
}
