package mirror

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// TestRandomDiskFaults has the disk of one of two nodes fail at a random
// operation, under load, again and again; the other's connection may blink
// meanwhile. No client ever sees an error, no write is lost, and the node that
// failed is filled anew by the other (invariants 3, 6 and 9).
func TestRandomDiskFaults(t *testing.T) {
	rounds := faultRounds(t, 12, 4)
	x := toss(t, slowToDrop, 1)
	for round := range rounds {
		x.settle()
		x.diskFault(round)
		if t.Failed() {
			t.Fatalf("round %d\n%s", round, x.describe())
		}
	}
	x.settle()
}

// diskFault fails one disk under load, and replaces the node.
func (x *tossed) diskFault(round int) {
	x.t.Helper()
	ops := []fakedisk.Op{fakedisk.AnyChange, fakedisk.OpWrite, fakedisk.OpDatasync}
	files := []string{"*", "*.seg*", fakeData}
	bad := x.s
	if x.rng.IntN(2) == 0 {
		bad = x.p
		ops = append(ops, fakedisk.OpRead)
	}
	op, file, k := ops[x.rng.IntN(len(ops))], files[x.rng.IntN(len(files))], x.rng.IntN(30)
	if op == fakedisk.OpRead {
		file = fakeData // of the journal it reads what a client asks for only when memory is short
	}
	blink := x.rng.IntN(3) == 0
	x.t.Logf("round %d: the disk of %s (primary %s) fails from the %d-th %s of %s on; blink %v", round, bad.name, x.p.name, k, op, file, blink)
	l := x.m.steadyLoad(x.p, x.rng)
	x.work()
	bad.failAfter(op, file, k, errDisk)
	x.eventually("its failure is known", func() bool {
		d := bad.vol.Status().Disk
		return d == Diskless || d == Failed
	})
	if bad == x.p && blink {
		x.s.isolate()
		x.s.heal()
	}
	x.work()
	switch {
	case bad != x.p:
		l.end()
	case x.rng.IntN(2) == 0:
		l.end()
		x.detached(x.p, x.s)
		x.p.demote()
		x.s.promote(false)
		x.p, x.s = x.s, x.p
	default: // it dies, too, in mid-write
		x.p.kill()
		l.end()
		x.s.promote(true)
		x.p, x.s = x.s, x.p
	}
	bad.createAgain()
	x.synced = false
}

// steadyLoad is a load that no error may reach as long as the volume lives.
func (m *registers) steadyLoad(n *rigNode, rng *rand.Rand) *load {
	l := &load{stop: make(chan struct{})}
	v := n.vol
	for w := range 3 {
		s, err := v.Attach(context.Background(), nil)
		if err != nil {
			m.t.Fatalf("attach to %s: %v\n%s", n.name, err, n.rig.describe())
		}
		rng := rand.New(rand.NewPCG(rng.Uint64(), uint64(w)))
		l.wg.Go(func() {
			defer s.Close()
			for l.running(v) {
				if !m.step(v, s, rng, w*rigBlocks/3, rigBlocks/3) {
					if v.ctx.Err() != nil {
						return
					}
					m.t.Errorf("a client of %s got an error", n.name)
					return
				}
			}
		})
	}
	return l
}
