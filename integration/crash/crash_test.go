package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// What a round does to the pair.
type scene struct {
	name string
	play func(r *round)
}

// The weights are those of a life with two hosts: what happens most is that the
// Primary dies and its peer goes on.
var scenes = []scene{
	{"the Primary dies, its peer goes on", (*round).failOver},
	{"the Primary dies, its peer goes on", (*round).failOver},
	{"the Primary dies and comes back as such", (*round).restartPrimary},
	{"the Secondary dies and comes back", (*round).restartSecondary},
	{"the Secondary dies, then the Primary while it catches up", (*round).dieInCatchUp},
	{"both die", (*round).bothDie},
}

// TestKilledUnderLoad: at a random moment, under load, a node gets SIGKILL, is
// restarted or replaced by its peer; after each round every acknowledged write
// is readable through the Primary, and both replicas are equal.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	seed := harness.Seed(t)
	rounds := harness.Rounds(t, 6)
	rng := rand.New(rand.NewPCG(seed, 0))
	p := harness.NewPair(t, harness.Options{})
	m := load.NewModel(p.Size)
	primary := p.Alpha
	var total load.Stats
	for i := range rounds {
		// The first rounds play each scene once, so that few rounds still see all.
		s := scenes[rng.IntN(len(scenes))]
		if i < len(scenes) {
			s = scenes[(i+int(seed%uint64(len(scenes))))%len(scenes)]
		}
		r := &round{t: t, p: p, m: m, rng: rng, primary: primary}
		start := time.Now()
		s.play(r)
		if t.Failed() {
			t.Fatalf("round %d: %s", i, s.name)
		}
		primary = r.primary
		p.Verify(primary, m)
		p.VerifyReplicas(m)
		t.Logf("round %2d, %.1f s: %s: %v", i, time.Since(start).Seconds(), s.name, r.stats)
		total.Add(r.stats)
	}
	t.Logf("%d rounds: %v", rounds, total)
}

// A round is one scene with its load.
type round struct {
	t       *testing.T
	p       *harness.Pair
	m       *load.Model
	rng     *rand.Rand
	primary *daemon.Node
	stats   load.Stats
}

// pause waits for a random while: the moment of the kill.
func (r *round) pause(atMost time.Duration) {
	time.Sleep(time.Duration(r.rng.Int64N(int64(atMost))))
}

// A running load; end stops it if it still runs and returns its error.
type running struct {
	r      *round
	cancel context.CancelFunc
	done   chan error
	client *load.Client
}

func (r *round) load() *running {
	ctx, cancel := context.WithCancel(context.Background())
	l := &running{r: r, cancel: cancel, done: make(chan error, 1), client: r.p.Dial(r.primary)}
	// As fast as it goes, or slowly enough that a journal reaches back.
	o := load.Options{Seed: r.rng.Uint64(), Rate: r.rng.Int64N(2) * 32 << 20}
	go func() {
		stats, err := load.Run(ctx, l.client, r.m, o)
		r.stats.Add(stats)
		l.done <- err
	}()
	return l
}

// mustBeCut ends the load of a Primary that was killed: the lost connection is
// the one error that its client may see.
func (l *running) mustBeCut() {
	l.r.t.Helper()
	err := <-l.done
	l.cancel()
	l.client.Close()
	if !errors.Is(err, load.ErrLost) {
		l.r.t.Errorf("the client of a killed Primary met: %v", err)
	}
}

// mustGoOn stops a load that nothing may have disturbed.
func (l *running) mustGoOn() {
	l.r.t.Helper()
	l.cancel()
	select {
	case err := <-l.done:
		if err != nil {
			l.r.t.Errorf("the client of a living Primary met: %v", err)
		}
	case <-time.After(harness.Patience):
		l.r.t.Fatalf("the load does not end; %s says %+v", l.r.primary.Name, l.r.p.Status(l.r.primary))
	}
	l.client.Close()
}

// start starts a node that was killed. What that left must be sound before a
// start has mended anything.
func (r *round) start(n *daemon.Node) {
	r.t.Helper()
	r.p.MustBeSound(n)
	r.p.Start(n)
}

func (r *round) failOver() {
	l := r.load()
	r.pause(400 * time.Millisecond)
	dead, next := r.primary, r.p.Other(r.primary)
	r.p.Kill(dead)
	l.mustBeCut()
	r.p.CLI(next, "promote", harness.Volume, "--force")
	r.primary = next
	r.p.Verify(next, r.m)
	// The dead node comes back while its successor is written to.
	l = r.load()
	r.pause(200 * time.Millisecond)
	r.start(dead)
	r.p.AwaitInSync()
	r.pause(200 * time.Millisecond)
	l.mustGoOn()
}

func (r *round) restartPrimary() {
	l := r.load()
	r.pause(400 * time.Millisecond)
	r.p.Kill(r.primary)
	l.mustBeCut()
	r.start(r.primary)
	r.promoteLongest()
}

// promoteLongest promotes, once two Secondaries have met, the one whose journal
// ends later: it may hold records that the other never wrote, and promoting the
// other is then refused. A Secondary can be ahead of the Primary that it lost,
// for records go out to it and into the Primary's own journal at once.
func (r *round) promoteLongest() {
	r.t.Helper()
	other := r.p.Other(r.primary)
	s := r.p.Await(r.primary, "the nodes are connected again", func(s *daemon.Status) bool {
		return s.Peer(other.Name).Connection == "Connected"
	})
	if s.Peer(other.Name).Verdict == "WeAreBehind" {
		ctx, cancel := context.WithTimeout(r.t.Context(), harness.Patience)
		defer cancel()
		if out, err := r.primary.CLI(ctx, "promote", harness.Volume); err == nil {
			r.t.Fatalf("%s lacks records of %s, and was promoted: %s", r.primary.Name, other.Name, out)
		}
		r.primary = other
	}
	r.p.CLI(r.primary, "promote", harness.Volume)
}

func (r *round) restartSecondary() {
	l := r.load()
	r.pause(300 * time.Millisecond)
	other := r.p.Other(r.primary)
	r.p.Kill(other)
	r.pause(300 * time.Millisecond)
	r.start(other)
	r.p.AwaitInSync()
	r.pause(200 * time.Millisecond)
	l.mustGoOn()
}

// dieInCatchUp: the source of a catch-up dies in its middle; nothing may have
// been acknowledged that only it holds and a client cannot get back.
func (r *round) dieInCatchUp() {
	l := r.load()
	r.pause(300 * time.Millisecond)
	other := r.p.Other(r.primary)
	r.p.Kill(other)
	r.pause(300 * time.Millisecond)
	r.start(other)
	r.pause(100 * time.Millisecond)
	r.p.Kill(r.primary)
	l.mustBeCut()
	r.start(r.primary)
	r.promoteLongest()
}

func (r *round) bothDie() {
	l := r.load()
	r.pause(400 * time.Millisecond)
	first, second := r.primary, r.p.Other(r.primary)
	if r.rng.IntN(2) == 0 {
		first, second = second, first
	}
	r.p.Kill(first)
	r.pause(20 * time.Millisecond)
	r.p.Kill(second)
	l.mustBeCut()
	r.start(second)
	r.start(first)
	r.promoteLongest()
}

// TestKilledDaemonRestartsWithoutHelp: a killed daemon starts again on what it
// left, without a peer, and says what it knows.
func TestKilledDaemonRestartsWithoutHelp(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	m := load.NewModel(p.Size)
	r := &round{t: t, p: p, m: m, rng: rand.New(rand.NewPCG(harness.Seed(t), 1)), primary: p.Alpha}
	l := r.load()
	r.pause(300 * time.Millisecond)
	p.Kill(p.Alpha)
	l.mustBeCut()
	p.Kill(p.Beta)
	r.start(p.Alpha)
	s := p.Status(p.Alpha)
	if s.Role != "Secondary" || s.Failure != "" {
		t.Errorf("after a restart alone: %+v", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if out, err := p.Alpha.CLI(ctx, "promote", harness.Volume); err == nil {
		t.Errorf("promote without --force, with the peer absent, is to be refused; it printed %q", out)
	}
	p.CLI(p.Alpha, "promote", harness.Volume, "--force")
	p.Verify(p.Alpha, m)
}

// TestStopsGracefully: SIGTERM ends a Primary with status 0 and everything that
// was acknowledged in both replicas.
func TestStopsGracefully(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	m := load.NewModel(p.Size)
	r := &round{t: t, p: p, m: m, rng: rand.New(rand.NewPCG(harness.Seed(t), 2)), primary: p.Alpha}
	l := r.load()
	r.pause(300 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if err := p.Alpha.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	err := <-l.done
	l.client.Close()
	if err == nil {
		t.Error("the load never noticed that the daemon stopped")
	}
	p.CLI(p.Beta, "promote", harness.Volume, "--force")
	p.Verify(p.Beta, m)
	r.start(p.Alpha)
	p.VerifyReplicas(m)
	if s := p.Status(p.Beta); s.Peer("alpha").Resyncs != 0 {
		t.Errorf("a graceful restart cost a resync: %s", fmt.Sprintf("%+v", s.Peers))
	}
}
