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

const threeSize = 32 << 20

// orders are those in which three can die, or come back: the Primary is 0.
var orders = [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}

// TestThreeKilledInEachOrder: three daemons get SIGKILL under load, one after
// another, until none is left, and come back, one after another. Whoever is left is
// promoted, and written to, and so is whoever may be, without force, as soon as it
// may. Every acknowledged write is readable through each Primary that there is, and
// in the end all three replicas are equal, byte for byte.
//
// The first six rounds have each order of death and each of return, and 36 each
// pair of them. A round takes as long as eight of the other tests', and
// LOCKSTEP_ROUNDS counts those.
func TestThreeKilledInEachOrder(t *testing.T) {
	t.Parallel()
	seed := harness.Seed(t)
	rounds := max(harness.Rounds(t, 0)/8, len(orders)/2)
	r := newTrio(t, rand.New(rand.NewPCG(seed, 4)))
	shift := int(seed % uint64(len(orders)))
	for i := range rounds {
		death, back := orders[i%len(orders)], orders[(i+i/len(orders)+shift)%len(orders)]
		began := time.Now()
		before := r.stats
		r.cast = [3]*daemon.Node{r.primary, r.others()[0], r.others()[1]}
		r.die(death)
		r.comeBack(back)
		t.Logf("round %2d, %.1f s: death %v, return %v: %d writes, %d flushes; Primary %s", i, time.Since(began).Seconds(), death, back,
			r.stats.Writes-before.Writes, r.stats.Flushes-before.Flushes, r.primary.Name)
	}
	r.equal()
	t.Logf("%d rounds: %v", rounds, r.stats)
}

// A trio is three nodes with one volume, and the load on its Primary.
type trio struct {
	t       *testing.T
	rng     *rand.Rand
	nodes   [3]*daemon.Node
	cast    [3]*daemon.Node // of this round: the Primary at its beginning first
	primary *daemon.Node    // nil while there is none
	last    *daemon.Node    // that was Primary
	m       *load.Model
	stats   load.Stats

	client *load.Client // of the load that runs, nil if none does
	cancel context.CancelFunc
	done   chan error
}

func newTrio(t *testing.T, rng *rand.Rand) *trio {
	t.Helper()
	if testing.Short() {
		t.Skip("starts daemons, which -short leaves out")
	}
	// Not t.TempDir: a unix socket's path has an end at 108 bytes.
	dir, err := os.MkdirTemp("", "lockstep-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &trio{t: t, rng: rng, m: load.NewModel(threeSize)}
	names := []string{"alpha", "beta", "gamma"}
	address := map[string]string{}
	for _, name := range names {
		if address[name], err = daemon.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range names {
		c := daemon.Config{Bin: harness.Binary(t), Dir: dir + "/" + name, Name: name, Peer: address[name], Dial: map[string]string{}}
		create := []string{"create", harness.Volume, "--size", strconv.Itoa(threeSize), "--journal-size", "64MiB"}
		for _, other := range names {
			if other != name {
				c.Dial[other] = address[other]
				create = append(create, "--peer", other)
			}
		}
		n, err := daemon.New(c)
		if err != nil {
			t.Fatal(err)
		}
		r.nodes[i] = n
		t.Cleanup(func() { r.end(n) })
		startNode(t, n)
		r.cli(n, create...)
	}
	r.primary = r.nodes[0]
	for _, n := range r.others() {
		r.await(r.primary, "all are connected", func(s *daemon.Status) bool { return s.Peer(n.Name).Connection == "Connected" })
	}
	r.cli(r.primary, "promote", harness.Volume)
	r.inSync()
	return r
}

// end makes sure that nothing of a node is left, and looks for what no daemon may
// ever print.
func (r *trio) end(n *daemon.Node) {
	n.Close()
	log, err := os.ReadFile(n.LogFile())
	if err != nil {
		return // it was never started
	}
	for _, never := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if i := bytes.Index(log, []byte(never)); i >= 0 {
			r.t.Errorf("%s printed:\n%s", n.Name, log[i:min(len(log), i+8000)])
		}
	}
	if r.t.Failed() {
		r.t.Logf("the log of %s ends:\n%s", n.Name, n.LogTail())
	}
}

func (r *trio) cli(n *daemon.Node, args ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), harness.Patience)
	defer cancel()
	if _, err := n.CLI(ctx, args...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *trio) await(n *daemon.Node, what string, cond func(*daemon.Status) bool) *daemon.Status {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), harness.Patience)
	defer cancel()
	s, err := n.Await(ctx, harness.Volume, what, cond)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// others are the nodes that are not Primary.
func (r *trio) others() (list []*daemon.Node) {
	for _, n := range r.nodes {
		if n != r.primary {
			list = append(list, n)
		}
	}
	return list
}

// living are the nodes that run.
func (r *trio) living() (list []*daemon.Node) {
	for _, n := range r.nodes {
		if n.Running() {
			list = append(list, n)
		}
	}
	return list
}

func (r *trio) inSync() {
	r.t.Helper()
	r.await(r.primary, "all are in sync", (*daemon.Status).InSync)
	for _, n := range r.others() {
		r.await(n, "it is in sync", func(s *daemon.Status) bool { return s.Disk == "UpToDate" && s.Peer(r.primary.Name).Member })
	}
}

func (r *trio) pause(atMost time.Duration) { time.Sleep(time.Duration(r.rng.Int64N(int64(atMost)))) }

// verify reads everything back through the Primary.
func (r *trio) verify() {
	r.t.Helper()
	c := dial(r.t, r.primary)
	defer c.Close()
	if err := r.m.Verify(c.ReadAt); err != nil {
		r.t.Fatalf("read through %s:\n%v", r.primary.Name, err)
	}
}

// load begins to write to the Primary.
func (r *trio) load() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.client, r.cancel, r.done = dial(r.t, r.primary), cancel, make(chan error, 1)
	client, done := r.client, r.done
	o := load.Options{Seed: r.rng.Uint64(), Rate: 24 << 20}
	go func() {
		stats, err := load.Run(ctx, client, r.m, o)
		r.stats.Add(stats)
		done <- err
	}()
}

// stopLoad ends the load. That of a Primary that was killed must have met the lost
// connection, any other nothing.
func (r *trio) stopLoad(killed bool) {
	r.t.Helper()
	if r.client == nil {
		return
	}
	if !killed {
		r.cancel()
	}
	select {
	case err := <-r.done:
		if killed != errors.Is(err, load.ErrLost) || !killed && err != nil {
			r.t.Fatalf("the client of a Primary (killed: %v) met: %v", killed, err)
		}
	case <-time.After(harness.Patience):
		r.t.Fatal("the load does not end")
	}
	r.cancel()
	r.client.Close()
	r.client = nil
}

// die kills all three, in that order, under load. Of those that a Primary leaves
// behind one is promoted, and has the other for a member before anything more dies:
// what is acknowledged later is not on one node alone that nobody would ask.
func (r *trio) die(order [3]int) {
	r.t.Helper()
	r.load()
	for _, who := range order {
		r.pause(200 * time.Millisecond)
		n := r.cast[who]
		if err := n.Kill(); err != nil {
			r.t.Fatal(err)
		}
		if n != r.primary {
			continue
		}
		r.stopLoad(true)
		left := r.living()
		if len(left) == 0 {
			break
		}
		r.primary = left[r.rng.IntN(len(left))]
		r.cli(r.primary, "promote", harness.Volume, "--force")
		for _, other := range left {
			if other != r.primary {
				r.await(r.primary, other.Name+" is a member", func(s *daemon.Status) bool { return s.Peer(other.Name).Member })
			}
		}
		r.verify()
		r.load()
	}
	r.primary, r.last = nil, r.primary
}

// comeBack starts all three, in that order. The first that may be promoted without
// force is.
func (r *trio) comeBack(order [3]int) {
	r.t.Helper()
	for _, who := range order {
		startNode(r.t, r.cast[who])
		r.pause(100 * time.Millisecond)
		if r.rng.IntN(3) == 0 { // it should be refused, which takes its time
			r.promoteOneOf(r.cast[who])
		} else {
			r.promoteOneOf()
		}
	}
	for deadline := time.Now().Add(harness.Patience); r.primary == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("all three are there, and none can be promoted: %+v", r.await(r.nodes[0], "it says how it is", func(*daemon.Status) bool { return true }))
		}
		r.promoteOneOf(r.nodes[:]...)
	}
	r.inSync()
	r.pause(100 * time.Millisecond)
	r.stopLoad(false)
	r.verify()
}

// promoteOneOf promotes the last Primary, or one of those that are named, if there
// is no Primary and it may be.
func (r *trio) promoteOneOf(nodes ...*daemon.Node) {
	r.t.Helper()
	for _, n := range append([]*daemon.Node{r.last}, nodes...) {
		if r.primary != nil {
			return
		}
		if !n.Running() {
			continue
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), harness.Patience)
		_, err := n.CLI(ctx, "promote", harness.Volume, "--wait", "0s")
		cancel()
		if err == nil {
			r.primary = n
			r.verify()
			r.load()
		}
	}
}

// equal compares the three stores with each other and with what was written.
func (r *trio) equal() {
	r.t.Helper()
	r.inSync()
	var first []byte
	end := r.await(r.primary, "all of the journal is in the store", (*daemon.Status).Settled).End
	for _, n := range r.nodes {
		r.await(n, "all of the journal is in the store", func(s *daemon.Status) bool { return s.End == end && s.Settled() })
		b, err := os.ReadFile(n.Replica(harness.Volume))
		if err != nil {
			r.t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(first, b) || len(b) != threeSize {
			r.t.Fatalf("the replicas of %s and %s differ", r.nodes[0].Name, n.Name)
		}
	}
	err := r.m.Verify(func(p []byte, off int64) error { copy(p, first[off:]); return nil })
	if err != nil {
		r.t.Fatalf("all replicas:\n%v", err)
	}
}
