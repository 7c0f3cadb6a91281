package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// A simCoordinator keeps a record in memory, and answers as a store behind a bad
// network does: late, not at all, or having done what it does not say.
type simCoordinator struct {
	mu       sync.Mutex
	rng      *rand.Rand
	record   Agreement
	revision Revision
	log      []Agreement // every record that was in force
	late     []lateSwap  // requests that may arrive yet
	faulty   bool
	deaf     int // so many more swaps never arrive
	swaps    int
	unknown  int // of them
}

type lateSwap struct {
	base Revision
	next Agreement
}

var errSimulated = errors.New("simulated: no answer")

// newSimCoordinator has a source of its own: the volumes call it side by side with the
// test.
func newSimCoordinator(rng *rand.Rand) *simCoordinator {
	return &simCoordinator{rng: rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))}
}

func (s *simCoordinator) chance(percent int) bool { return s.faulty && s.rng.IntN(100) < percent }

// delay is a way there or back.
func (s *simCoordinator) delay(ctx context.Context) error {
	s.mu.Lock()
	d := time.Duration(0)
	if s.faulty {
		d = time.Duration(s.rng.IntN(3000)) * time.Microsecond
	}
	s.mu.Unlock()
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *simCoordinator) apply(w lateSwap) error {
	if w.base != s.revision {
		return fmt.Errorf("%w: it is of revision %d, not %d", ErrSuperseded, s.revision, w.base)
	}
	s.revision += 1 + Revision(s.rng.IntN(3)) // other keys share the store's numbers
	s.record = w.next
	s.log = append(s.log, w.next)
	return nil
}

func (s *simCoordinator) Read(ctx context.Context, _ string) (Agreement, Revision, error) {
	if err := s.delay(ctx); err != nil {
		return Agreement{}, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chance(10) {
		return Agreement{}, 0, errSimulated
	}
	return s.record, s.revision, nil
}

func (s *simCoordinator) Swap(ctx context.Context, _ string, base Revision, next Agreement) (Revision, error) {
	if err := s.delay(ctx); err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.swaps++
	for len(s.late) > 0 && s.chance(50) { // what was sent earlier may come first
		_ = s.apply(s.late[0])
		s.late = s.late[1:]
	}
	if s.deaf > 0 {
		s.deaf--
		s.mu.Unlock()
		return 0, errSimulated
	}
	if s.chance(20) { // it never arrives, or later
		s.unknown++
		s.late = append(s.late, lateSwap{base, next})
		s.mu.Unlock()
		return 0, errSimulated
	}
	err := s.apply(lateSwap{base, next})
	revision, lost := s.revision, s.chance(20)
	if lost {
		s.unknown++
	}
	s.mu.Unlock()
	if lost {
		return 0, errSimulated
	}
	if err := s.delay(ctx); err != nil {
		return 0, err
	}
	return revision, err
}

// inForce is the record as it is.
func (s *simCoordinator) inForce() Agreement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

// What every Coordinator has to do, that of the tests too: of two swaps on one revision
// one succeeds, and it is told by a higher revision.
func TestSimCoordinator(t *testing.T) {
	ctx := context.Background()
	s := newSimCoordinator(seed(t))
	one, two := Agreement{Epoch: 1, Primary: "a"}, Agreement{Epoch: 1, Primary: "b"}
	r1, err := s.Swap(ctx, "data", 0, one)
	if err != nil || r1 == 0 {
		t.Fatalf("the first: revision %d, %v", r1, err)
	}
	if _, err := s.Swap(ctx, "data", 0, two); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("another that holds that there is no record: %v", err)
	}
	if is, r, err := s.Read(ctx, "data"); err != nil || r != r1 || is.Primary != "a" {
		t.Fatalf("read %+v of revision %d: %v", is, r, err)
	}
	if r2, err := s.Swap(ctx, "data", r1, two); err != nil || r2 <= r1 {
		t.Fatalf("on what is there: revision %d, %v", r2, err)
	}
}

// TestInvariant6Coordinated: membership goes through a Coordinator that is slow, loses
// requests and keeps outcomes to itself. What a flush covered is durable on every member
// of the record and of the Primary's superblock, and when the Coordinator answers again
// the two are the same, with every replica in them.
func TestInvariant6Coordinated(t *testing.T) {
	rng := seed(t)
	sim := newSimCoordinator(rng)
	r := newFakeRig(t, func(o *Options) { o.Coordinator = sim }, "a", "b", "c")
	a := r.node("a")
	r.meet()
	a.promote(false)
	c := a.attach()
	if got := sim.inForce(); got.Primary != "a" || len(got.Set) != 1 {
		t.Fatalf("in force after the promotion: %+v", got)
	}
	everybody := func() bool {
		in := sim.inForce()
		return len(in.Set) == 3 && setEqual(in.Set, a.vol.Status().InSync)
	}
	r.eventually("all are in sync, and agreed on", everybody)
	sim.mu.Lock()
	sim.faulty = true
	sim.mu.Unlock()
	for round := range 4 {
		away := r.node([]string{"b", "c"}[rng.IntN(2)])
		away.kill()
		c.write(int64(round)*rigBlock, fill(byte(round+1), rigBlock))
		c.flush()
		a.vol.mu.Lock()
		flushed, recorded := a.vol.stable, a.vol.super.Set
		a.vol.mu.Unlock()
		for _, set := range [][]Member{recorded, sim.inForce().Set} {
			for _, m := range set {
				if n := r.node(m.Node); n == away {
					t.Errorf("round %d: %s is dead, and a flush through LSN %d was answered with it in the set %v", round, m.Node, flushed, nodesOf(set))
				} else if s := n.vol.Status(); s.Durable < flushed {
					t.Errorf("round %d: %s, a member, has LSN %d durably, and a flush through %d was answered", round, m.Node, s.Durable, flushed)
				}
			}
		}
		away.start()
		if rng.IntN(3) == 0 {
			continue // while it is on its way back
		}
		r.eventually("it is back", func() bool { return len(a.vol.Status().InSync) == 3 })
	}
	sim.mu.Lock()
	sim.faulty = false
	swaps, unknown := sim.swaps, sim.unknown
	sim.mu.Unlock()
	r.eventually("all are in sync again, and agreed on", everybody)
	t.Logf("%d changes were proposed, of %d nothing was known", swaps, unknown)
	for i := 1; i < len(sim.log); i++ {
		if was, is := sim.log[i-1], sim.log[i]; is.SetVersion <= was.SetVersion || is.Epoch < was.Epoch {
			t.Errorf("the record went from %+v to %+v", was, is)
		}
	}
}

// TestCoordinatorAwayIsNotThePeer: a peer that is kept from joining by a Coordinator that
// does not answer does not wait longer for it each time.
func TestCoordinatorAwayIsNotThePeer(t *testing.T) {
	sim := newSimCoordinator(seed(t))
	r := newFakeRig(t, func(o *Options) { o.Coordinator = sim }, "a", "b")
	a := r.node("a")
	r.meet()
	a.promote(false)
	r.eventually("b is in sync", func() bool { return len(a.vol.Status().InSync) == 2 })
	b := r.node("b")
	b.kill()
	r.eventually("b is out", func() bool { return len(a.vol.Status().InSync) == 1 })
	sim.mu.Lock()
	sim.deaf = 2
	sim.mu.Unlock()
	b.start()
	r.eventually("b is back", func() bool { return len(a.vol.Status().InSync) == 2 })
	sim.mu.Lock()
	deaf := sim.deaf
	sim.mu.Unlock()
	a.vol.mu.Lock()
	pause := a.vol.peers["b"].lag.pause
	a.vol.mu.Unlock()
	if deaf != 0 || pause != 0 {
		t.Errorf("b is back, %d answers are still to be lost; it would have to wait for %v more, 0 is wanted", deaf, pause)
	}
}
