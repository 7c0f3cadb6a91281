package mirror

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A tossed is two nodes that things happen to.
type tossed struct {
	*rig
	rng  *rand.Rand
	m    *registers
	p, s *rigNode // who is Primary now, or is to be, and the other
	// synced: both were members when p was last known to be well, so that either
	// may go on alone.
	synced bool
	// alone: a Primary may go on alone, for min-in-sync is 1.
	alone bool
	// warned: the loss counter rose since all was well.
	warned bool
	snaps  map[string]*tossedSnapshot // by name
}

// TestRandomFaults kills, restarts, cuts off, heals, promotes, demotes and replaces
// two nodes at random, under load, and takes, deletes and rolls back to snapshots. No flushed write is ever lost, no acknowledged
// one as long as a member kept its memory, nothing that was read is read
// differently; and whenever they are healed, both replicas are the same.
func TestRandomFaults(t *testing.T) {
	rounds := faultRounds(t, 30, 9)
	x := toss(t, func(o *Options) { o.PeerTimeout = 500 * time.Millisecond }, 2)
	for round := range rounds {
		settled := x.rng.IntN(3) > 0 || round == rounds-1
		if settled {
			x.settle()
			x.snapshots(round)
		}
		// To a rollback it matters what the volume holds, which is known only then: after a
		// handover, say, both are members, and what nobody flushed may be or not.
		if !settled || x.rng.IntN(4) > 0 || !x.rollBack(round) {
			x.fault(round)
		}
		if t.Failed() {
			t.Fatalf("round %d\n%s", round, x.describe())
		}
	}
	x.settle()
}

// faultRounds is how many rounds a random test has, fewer under the race detector.
func faultRounds(t *testing.T, rounds, race int) int {
	t.Helper()
	if underRace {
		rounds = race
	}
	if v := os.Getenv("LOCKSTEP_FAULT_ROUNDS"); v != "" {
		var err error
		if rounds, err = strconv.Atoi(v); err != nil {
			t.Fatalf("LOCKSTEP_FAULT_ROUNDS=%q: %v", v, err)
		}
	}
	return rounds
}

// toss makes two nodes of a volume that the seed draws, with up to minInSync, a being
// Primary.
func toss(t *testing.T, opts func(*Options), minInSync int) *tossed {
	t.Helper()
	rng := seed(t)
	made, minInSync := drawVolume(t, rng, minInSync)
	x := &tossed{rig: newRigMade(t, made, true, func(o *Options) { opts(o); o.MinInSync = minInSync }, "a", "b"),
		rng: rng, m: newRegisters(t, !made.NoWriteCache), alone: minInSync == 1, snaps: map[string]*tossedSnapshot{}}
	x.p, x.s = x.node("a"), x.node("b")
	x.meet()
	x.p.promote(false)
	return x
}

// drawVolume draws what a volume is created with, and its min-in-sync.
func drawVolume(t *testing.T, rng *rand.Rand, most int) (made CreateOptions, minInSync int) {
	made = CreateOptions{Size: rigSize, Protocol: Protocol(rng.IntN(2)), NoWriteCache: rng.IntN(2) == 0}
	minInSync = 1 + rng.IntN(most)
	t.Logf("protocol %v, no write cache %v, min-in-sync %d", made.Protocol, made.NoWriteCache, minInSync)
	return made, minInSync
}

// settle waits until both are members, and checks everything.
func (x *tossed) settle() {
	x.t.Helper()
	x.members()
	c := x.p.attach()
	c.flush()
	x.m.check(c)
	if x.m.lost && !x.warned {
		x.t.Errorf("writes were lost that had been acknowledged, and the loss counter of %s did not rise", x.p.name)
	}
	x.inSync(x.p.name, x.s.name)
	x.synced, x.warned, x.m.lost = true, false, false
	c.s.Close()
}

// lead promotes n in the place of o, by force, and notes whether it warns of losses.
func (x *tossed) lead(n, o *rigNode) {
	x.t.Helper()
	before := n.lossCounter()
	n.promote(true)
	x.warned = x.warned || n.lossCounter() > before
	x.p, x.s, x.synced = n, o, false
}

func (n *rigNode) lossCounter() uint64 {
	n.vol.mu.Lock()
	defer n.vol.mu.Unlock()
	return n.vol.super.LossCounter
}

func (x *tossed) work() { time.Sleep(time.Duration(x.rng.IntN(60)) * time.Millisecond) }

// fault does one thing to the two nodes while p serves clients.
func (x *tossed) fault(round int) {
	x.t.Helper()
	ofSecondary := []string{"kill secondary", "power off secondary", "isolate secondary", "replace secondary", "flood"}
	ofPrimary := []string{"kill primary, the other leads", "kill primary, it comes back", "power off primary, the other leads", "power off primary, it comes back",
		"hand over", "replace primary", "slow network", "both power off", "both killed", "lone primary dies", "only a killed secondary is left", "only a secondary that lost power is left"}
	name := ofSecondary[x.rng.IntN(len(ofSecondary))]
	if x.synced && x.rng.IntN(2) == 0 {
		name = ofPrimary[x.rng.IntN(len(ofPrimary))]
	}
	if name == "flood" && !x.alone {
		name = "kill secondary"
	}
	x.t.Logf("round %d: %s (primary %s, synced %v)", round, name, x.p.name, x.synced)
	l := x.m.load(x.p, x.rng)
	x.work()
	p, s := x.p, x.s
	powerLoss := func(n *rigNode) { n.powerLoss(fakedisk.KeepSome(x.rng.Uint64())) }
	switch name {
	case "kill secondary":
		x.killSecondary()
		x.work()
		s.start()
		x.synced = false
	case "power off secondary":
		powerLoss(s)
		x.work()
		s.start()
		x.synced = false
	case "isolate secondary":
		s.isolate()
		x.work()
		s.heal()
		x.synced = false
	case "replace secondary":
		s.sigkill()
		x.replace(s)
		x.work()
		s.start()
		x.synced = false
	case "flood":
		x.flood(l)
		return
	case "slow network":
		g := x.gate(p.name, s.name)
		if x.rng.IntN(2) == 0 {
			g = x.gate(s.name, p.name)
		}
		g.hold()
		time.Sleep(time.Duration(x.rng.IntN(800)) * time.Millisecond)
		g.open()
		x.synced = false
	case "hand over":
		p.demote()
		l.end()
		x.meet()
		s.promote(false)
		x.p, x.s = s, p
		return
	case "kill primary, the other leads":
		p.sigkill()
		l.end()
		x.lead(s, p)
		p.start()
		return
	case "power off primary, the other leads":
		powerLoss(p)
		l.end()
		x.lead(s, p)
		p.start()
		return
	case "replace primary":
		p.sigkill()
		l.end()
		x.replace(p)
		x.lead(s, p)
		p.start()
		return
	case "kill primary, it comes back":
		p.sigkill()
		l.end()
		p.start()
		x.either()
		return
	case "power off primary, it comes back":
		powerLoss(p)
		l.end()
		p.start()
		x.either()
		return
	case "both power off":
		if x.rng.IntN(2) == 0 {
			x.stall(p, fakedisk.OpDatasync)
			x.stall(s, fakedisk.OpDatasync)
		}
		x.hold()
		powerLoss(p)
		powerLoss(s)
		x.openGates()
		l.end()
		x.m.memoryLost()
		p.start()
		s.start()
		x.either()
		return
	case "both killed":
		// What a Primary acknowledged is in its own journal, under protocol B too.
		x.killSecondary()
		p.sigkill()
		l.end()
		p.start()
		s.start()
		x.either()
		return
	case "lone primary dies":
		x.killSecondary()
		x.work()
		p.sigkill()
		l.end()
		p.start()
		s.start()
		x.either()
		return
	case "only a killed secondary is left":
		x.stall(s, fakedisk.OpWrite)
		p.sigkill()
		s.sigkill()
		l.end()
		if x.made.Protocol == ProtocolB { // its acknowledgements were of what it had in memory
			x.m.memoryLost()
		}
		x.replace(p)
		s.start()
		x.lead(s, p)
		p.start()
		return
	case "only a secondary that lost power is left":
		x.stall(s, fakedisk.OpDatasync)
		p.sigkill()
		powerLoss(s)
		l.end()
		x.m.memoryLost()
		x.replace(p)
		s.start()
		x.lead(s, p)
		p.start()
		return
	}
	x.work()
	l.end()
}

// killSecondary kills the node that is not Primary: under protocol B it has
// acknowledged what it had in memory alone.
func (x *tossed) killSecondary() {
	x.t.Helper()
	if x.synced {
		x.stall(x.s, fakedisk.OpWrite)
	}
	x.s.sigkill()
}

// stall holds what a node does to its journal, for a while and until it dies.
func (x *tossed) stall(n *rigNode, op fakedisk.Op) {
	x.t.Helper()
	n.stallAt(op, "*.seg*", nil)
	x.work()
}

// hold holds the whole network.
func (x *tossed) hold() {
	for _, g := range x.gates {
		g.hold()
	}
}

// flood writes more than the journal holds while the Secondary is away.
func (x *tossed) flood(l *load) {
	l.end()
	x.s.sigkill()
	c := x.p.attach()
	for range 40 {
		first := x.rng.IntN(rigBlocks - 512)
		p := make([]byte, 512*rigBlock)
		fillValue(p, x.m.submit(first, 512, false))
		c.write(int64(first)*rigBlock, p)
		x.m.ack(first, 512)
	}
	c.s.Close()
	x.s.start()
	x.synced = false
}

// either promotes one of two Secondaries that meet, without force: the one that
// is ahead, or either.
func (x *tossed) either() {
	x.t.Helper()
	x.meet()
	if x.rng.IntN(2) == 0 {
		x.p, x.s = x.s, x.p
	}
	x.synced = false
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	promote := func() error {
		before := x.p.lossCounter()
		err := x.p.vol.Promote(ctx, PromoteOptions{})
		x.warned = x.warned || x.p.lossCounter() > before
		return err
	}
	err := promote()
	if err == nil {
		return
	}
	var unsafe *UnsafePromotionError
	if !errors.As(err, &unsafe) {
		x.t.Fatalf("promote %s: %v\n%s", x.p.name, err, x.describe())
	}
	x.p, x.s = x.s, x.p
	if again := promote(); again != nil {
		x.t.Fatalf("neither may be promoted: %v; %v\n%s", err, again, x.describe())
	}
}
