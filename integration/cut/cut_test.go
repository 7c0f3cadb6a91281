package cut

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// outage is how long the nodes do not reach each other.
const outage = 5 * time.Second

// TestPeerSocketClosed: the connections between the nodes are closed and new
// ones refused for 5 s.
func TestPeerSocketClosed(t *testing.T) {
	p := harness.NewPair(t, harness.Options{PairOptions: daemon.PairOptions{Relayed: true}})
	survives(t, p, p.Cut, p.Mend)
}

// TestPacketsDropped: for 5 s every packet between the nodes vanishes, and no
// socket is told.
func TestPacketsDropped(t *testing.T) {
	w := harness.NewNetwork(t)
	p := harness.NewPair(t, harness.Options{PairOptions: daemon.PairOptions{Places: w.Places()}})
	survives(t, p, w.Drop, w.Restore)
}

// survives loads the volume through a cut and demands: no error at the client,
// writes go on during the cut, a catch-up and no resync, equal replicas.
func survives(t *testing.T, p *harness.Pair, cut, mend func()) {
	m := load.NewModel(p.Size)
	c := p.Dial(p.Alpha)
	before := p.Status(p.Alpha)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type outcome struct {
		stats load.Stats
		err   error
	}
	done := make(chan outcome, 1)
	// At this rate an outage fills a third of the journal.
	o := load.Options{Seed: harness.Seed(t), Rate: 16 << 20}
	go func() {
		stats, err := load.Run(ctx, c, m, o)
		done <- outcome{stats, err}
	}()
	p.Await(p.Alpha, "the load is on its way", func(s *daemon.Status) bool { return s.Committed > before.Committed+200 })

	cut()
	start := time.Now()
	lost := p.Await(p.Alpha, "the Primary gives its peer up", func(s *daemon.Status) bool { return !s.Peer("beta").Member })
	t.Logf("the Primary went on alone %.1f s after the cut", time.Since(start).Seconds())
	p.Await(p.Alpha, "writes go on without the peer", func(s *daemon.Status) bool { return s.Committed > lost.Committed+100 })
	time.Sleep(outage - time.Since(start)) // the length of the outage is what is tested
	mend()

	p.AwaitInSync()
	after := p.Status(p.Alpha).Peer("beta")
	t.Logf("in sync again %.1f s after the cut", time.Since(start).Seconds())
	cancel()
	out := <-done
	if out.err != nil {
		t.Errorf("the client met: %v", out.err)
	}
	t.Logf("%v", out.stats)
	peer := before.Peer("beta")
	if after.CatchUps <= peer.CatchUps {
		t.Errorf("no catch-up is counted: %+v", after)
	}
	if after.Resyncs != peer.Resyncs {
		t.Errorf("a blip cost a resync: %+v", after)
	}
	p.Verify(p.Alpha, m)
	p.VerifyReplicas(m)
}
