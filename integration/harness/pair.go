package harness

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/load"
)

// Volume is the name of a pair's volume.
const Volume = "data"

// Patience is how long a test waits for something that must come. It is far
// beyond what anything takes, so that a slow machine fails no test.
const Patience = 60 * time.Second

// A Pair is two nodes, alpha and beta, with one mirrored volume. What its
// methods cannot do fails the test.
type Pair struct {
	*daemon.Pair
	Size int64 // of the volume, bytes
	t    testing.TB
}

// Options of NewPair; the zero value works.
type Options struct {
	daemon.PairOptions
	Size int64 // of the volume, bytes; default 64 MiB
	// Prepare is called before the nodes start. What it has cleaned up after the
	// test is so after they have ended.
	Prepare func(*daemon.Pair)
}

// NewPair starts two nodes with a volume that alpha is the Primary of, in sync.
// Nothing is left of them after the test; the daemons' logs are printed if it
// failed.
func NewPair(t testing.TB, o Options) *Pair {
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
	nodes, err := daemon.NewPair(Binary(t), dir, o.PairOptions)
	if err != nil {
		t.Fatal(err)
	}
	p := &Pair{Pair: nodes, Size: o.Size, t: t}
	if p.Size == 0 {
		p.Size = 64 << 20
	}
	if o.Prepare != nil {
		o.Prepare(nodes)
	}
	t.Cleanup(func() {
		p.Close()
		p.inspectLog(p.Alpha)
		p.inspectLog(p.Beta)
	})
	ctx, cancel := patient()
	defer cancel()
	p.must(p.Create(ctx, Volume, p.Size))
	return p
}

// inspectLog fails the test for what no daemon may ever print.
func (p *Pair) inspectLog(n *daemon.Node) {
	b, err := os.ReadFile(n.LogFile())
	if err != nil {
		return // it was never started
	}
	for _, never := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if i := bytes.Index(b, []byte(never)); i >= 0 {
			p.t.Errorf("%s printed:\n%s", n.Name, b[max(0, i-200):min(len(b), i+8000)])
			return
		}
	}
	if p.t.Failed() {
		p.t.Logf("the log of %s ends:\n%s", n.Name, n.LogTail())
	}
}

func (p *Pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// patient is a context that ends when a test has waited long enough.
func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Patience)
}

// Start starts a node.
func (p *Pair) Start(n *daemon.Node) {
	p.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	p.must(n.Start(ctx))
}

// Kill ends a node with SIGKILL.
func (p *Pair) Kill(n *daemon.Node) {
	p.t.Helper()
	p.must(n.Kill())
}

// MustBeSound fails the test unless `lockstep check` finds nothing damaged in
// the files of a node, which may not run.
func (p *Pair) MustBeSound(n *daemon.Node) {
	p.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	out, err := n.Check(ctx)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
}

// CLI runs a command against a node; it must succeed.
func (p *Pair) CLI(n *daemon.Node, args ...string) string {
	p.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	out, err := n.CLI(ctx, args...)
	p.must(err)
	return out
}

// Status is a node's view of the volume.
func (p *Pair) Status(n *daemon.Node) *daemon.Status {
	p.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	s, err := n.Status(ctx, Volume)
	p.must(err)
	return s
}

// Await waits until a node's view satisfies cond.
func (p *Pair) Await(n *daemon.Node, what string, cond func(*daemon.Status) bool) *daemon.Status {
	p.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	s, err := n.Await(ctx, Volume, what, cond)
	p.must(err)
	return s
}

// AwaitInSync waits until both nodes say that they are in sync.
func (p *Pair) AwaitInSync() {
	p.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	p.must(p.Pair.AwaitInSync(ctx, Volume))
}

// Dial connects a client to the volume on a node.
func (p *Pair) Dial(n *daemon.Node) *load.Client {
	p.t.Helper()
	ctx, cancel := patient()
	defer cancel()
	c, err := load.Dial(ctx, "unix:"+n.NBDSocket(), Volume)
	p.must(err)
	if c.Size != p.Size {
		p.t.Fatalf("%s exports %d bytes, the volume has %d", n.Name, c.Size, p.Size)
	}
	p.t.Cleanup(c.Close)
	return c
}

// Verify reads the volume through a node and compares it with the model.
func (p *Pair) Verify(n *daemon.Node, m *load.Model) {
	p.t.Helper()
	c := p.Dial(n)
	defer c.Close()
	if err := m.Verify(c.ReadAt); err != nil {
		p.t.Fatalf("read through %s:\n%v", n.Name, err)
	}
}

// VerifyReplicas compares both stores with each other and with the model, byte
// for byte, once they hold everything that was written. No load may run
// meanwhile.
func (p *Pair) VerifyReplicas(m *load.Model) {
	p.t.Helper()
	if err := m.Verify(readerOf(p.EqualReplicas())); err != nil {
		p.t.Fatalf("both replicas:\n%v", err)
	}
}

// EqualReplicas waits until both stores hold everything that was written,
// compares them byte for byte, and returns what they hold.
func (p *Pair) EqualReplicas() []byte {
	p.t.Helper()
	p.AwaitInSync()
	var ends [2]uint64
	var held [2][]byte
	for i, n := range p.Nodes() {
		ends[i] = p.Await(n, "all of the journal is in the store", (*daemon.Status).Settled).End
		b, err := os.ReadFile(n.Replica(Volume))
		p.must(err)
		if int64(len(b)) != p.Size {
			p.t.Fatalf("the replica of %s has %d bytes, the volume %d", n.Name, len(b), p.Size)
		}
		held[i] = b
	}
	if ends[0] != ends[1] {
		p.t.Fatalf("alpha's journal ends at LSN %d, beta's at %d", ends[0], ends[1])
	}
	if at := firstDifference(held[0], held[1]); at >= 0 {
		p.t.Fatalf("the replicas differ at byte %d (block %d)", at, at/load.BlockSize)
	}
	return held[0]
}

func readerOf(b []byte) func([]byte, int64) error {
	return func(p []byte, off int64) error {
		if copy(p, b[off:]) < len(p) {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}
