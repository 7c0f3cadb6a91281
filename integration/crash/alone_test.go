package crash

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

const aloneSize = 32 << 20

// TestSingleCopyKilledUnderLoad: a daemon whose volume nobody mirrors gets
// SIGKILL at a random moment, under load, again and again. It starts without
// help, and every acknowledged write is there, for a kill takes no page cache.
func TestSingleCopyKilledUnderLoad(t *testing.T) {
	t.Parallel()
	seed := harness.Seed(t)
	rounds := harness.Rounds(t, 6)
	rng := rand.New(rand.NewPCG(seed, 3))
	n := alone(t)
	m := load.NewModel(aloneSize)
	var total load.Stats
	for i := range rounds {
		c := dial(t, n)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var stats load.Stats
		options := load.Options{Seed: rng.Uint64()}
		go func() {
			var err error
			stats, err = load.Run(ctx, c, m, options)
			done <- err
		}()
		time.Sleep(time.Duration(rng.Int64N(int64(400 * time.Millisecond)))) // the moment of the kill
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, load.ErrLost) {
			t.Fatalf("round %d: the client of a killed daemon met: %v", i, err)
		}
		cancel()
		c.Close()
		total.Add(stats)
		startNode(t, n)
		c = dial(t, n)
		if err := m.Verify(c.ReadAt); err != nil {
			t.Fatalf("round %d, after %v: %v", i, stats, err)
		}
		c.Close()
	}
	t.Logf("%d kills: %v", rounds, total)
}

// alone starts a node with a volume that has no peer.
func alone(t *testing.T) *daemon.Node {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a daemon, which -short leaves out")
	}
	// Not t.TempDir: a unix socket's path has an end at 108 bytes.
	dir, err := os.MkdirTemp("", "lockstep-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	peer, err := daemon.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	n, err := daemon.New(daemon.Config{Bin: harness.Binary(t), Dir: dir, Name: "alpha", Peer: peer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Close()
		log, err := os.ReadFile(n.LogFile())
		if err != nil {
			return // it was never started
		}
		for _, never := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if bytes.Contains(log, []byte(never)) {
				t.Errorf("the daemon printed %q:\n%s", never, n.LogTail())
			}
		}
		if t.Failed() {
			t.Logf("the daemon's log ends:\n%s", n.LogTail())
		}
	})
	startNode(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	// The smallest journal, so that it wraps around.
	if _, err := n.CLI(ctx, "create", harness.Volume, "--size", strconv.Itoa(aloneSize), "--journal-size", "64MiB"); err != nil {
		t.Fatal(err)
	}
	return n
}

func startNode(t *testing.T, n *daemon.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// dial connects a client once the node serves its volume.
func dial(t *testing.T, n *daemon.Node) *load.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	c, err := load.DialServing(ctx, "unix:"+n.NBDSocket(), harness.Volume)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
