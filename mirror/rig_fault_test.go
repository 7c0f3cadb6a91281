package mirror

import (
	"bytes"
	"errors"
	"net"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/store"
)

// Faults that the rig can make: networks that hold what is sent in one
// direction, disks that lose their power, and single operations of a disk that
// are held or fail.

// A gate is the network from one node to another. While it is held, what is
// sent (the end of a connection, too) is on its way and does not arrive.
type gate struct {
	mu   sync.Mutex
	held bool
	way  []func()
	raw  []net.Conn
	sent atomic.Int64 // bytes, held or not
	at   FrameType    // the next write that begins with such a frame is held, and what follows
}

func (r *rig) gate(from, to string) *gate { return r.gates[[2]string{from, to}] }

func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = true
}

// holdAt holds from the next frame of a type on.
func (g *gate) holdAt(t FrameType) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at = t
}

func (g *gate) look(p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at != 0 && FrameType(p[0]) == g.at {
		g.held, g.at = true, 0
	}
}

// open delivers what was held, in order.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.way {
		f()
	}
	g.held, g.way, g.raw = false, nil, nil
}

// drop loses what was held, and ends the connections that it was on.
func (g *gate) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.raw {
		c.Close()
	}
	g.held, g.way, g.raw = false, nil, nil
}

// pass lets c go on, or keeps what held makes of it to be done when the gate opens.
func (g *gate) pass(c net.Conn, held func() func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		g.way, g.raw = append(g.way, held()), append(g.raw, c)
	}
	return !g.held
}

func (g *gate) wrap(c net.Conn) net.Conn {
	if g == nil {
		return c
	}
	return &gatedConn{Conn: c, gate: g}
}

func (r *rig) openGates() {
	for _, g := range r.gates {
		g.open()
	}
}

// gatedConn sends through a gate.
type gatedConn struct {
	net.Conn
	gate *gate

	mu     sync.Mutex
	closed bool
}

func (c *gatedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	c.gate.sent.Add(int64(len(p)))
	c.gate.look(p)
	if c.gate.pass(c.Conn, func() func() {
		later := bytes.Clone(p)
		return func() { _, _ = c.Conn.Write(later) }
	}) {
		return c.Conn.Write(p)
	}
	return len(p), nil
}

func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *gatedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t)
}

// Close ends this side at once; the other learns it when the gate lets it.
func (c *gatedConn) Close() error {
	c.mu.Lock()
	c.closed = true
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	c.mu.Unlock()
	if c.gate.pass(c.Conn, func() func() { return func() { c.Conn.Close() } }) {
		return c.Conn.Close()
	}
	return nil
}

const fakeData = "data" // the store's file on a fake disk

func newFakeRig(t testing.TB, opts func(*Options), names ...string) *rig {
	return newRigOn(t, true, opts, names...)
}

func (n *rigNode) createFake() {
	n.fake = fakedisk.New(uint64(len(n.name)))
	createFakeAs(n.rig.t, n.fake, n.made())
	if n.rig.small.Size == 0 {
		return
	}
	if err := remakeJournal(n.fake, n.rig.small); err != nil {
		n.rig.t.Fatal(err)
	}
}

// createFake makes a replica with its store on a fake disk.
func createFake(t testing.TB, d *fakedisk.FS, node string, size int64) {
	t.Helper()
	createFakeApart(t, d, nil, node, size)
}

// createFakeApart does with a journal in a directory of its own, unless that is
// nil.
func createFakeApart(t testing.TB, d *fakedisk.FS, journal disk.FS, node string, size int64) {
	t.Helper()
	createFakeAs(t, d, CreateOptions{Node: node, Volume: rigVolume, Size: size, JournalSize: 64 << 20, Journal: journal})
}

func createFakeAs(t testing.TB, d *fakedisk.FS, o CreateOptions) {
	t.Helper()
	f, err := d.Create(fakeData)
	if err == nil {
		err = errors.Join(f.Truncate(o.Size), f.Datasync(), f.Close(), d.SyncDir())
	}
	if err == nil {
		err = Create(d, o)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func openFake(t testing.TB, d *fakedisk.FS) Store {
	t.Helper()
	f, err := d.Open(fakeData)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	return store.OnDisk(f, size)
}

// storeOf reads what the store on a fake disk holds.
func storeOf(t testing.TB, d *fakedisk.FS) []byte {
	t.Helper()
	s := openFake(t, d)
	defer s.Close()
	p := make([]byte, s.Size())
	if _, err := s.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// powerLoss ends the node in the middle of whatever it does, without a word to
// anybody, and leaves of its disk what keep says. Its memory is lost: it starts
// again under another boot id.
func (n *rigNode) powerLoss(keep fakedisk.Policy) {
	n.interrupt(func(d *fakedisk.FS) *fakedisk.FS { return d.Crash(keep) })
	n.boot += "+"
}

// sigkill ends the node's process in the middle of whatever it does: what it
// wrote to its files is there, synced or not, and what it had only in its own
// memory is lost.
func (n *rigNode) sigkill() { n.interrupt((*fakedisk.FS).Kill) }

// interrupt ends the node where it stands, with what left makes of its disk.
func (n *rigNode) interrupt(left func(*fakedisk.FS) *fakedisk.FS) {
	n.mu.Lock()
	n.cut = true
	n.mu.Unlock()
	out := n.gatesOut()
	for _, g := range out {
		g.hold()
	}
	old := n.fake
	n.fake = left(old)
	old.OnOp(nil)
	if n.held != nil {
		n.held.letGo()
	}
	n.kill()
	for _, g := range out {
		g.drop()
	}
	n.heal()
}

func (n *rigNode) gatesOut() (out []*gate) {
	for name := range n.rig.nodes {
		if name != n.name {
			out = append(out, n.rig.gate(n.name, name))
		}
	}
	return out
}

// pair makes two replicas that are members, a being Primary.
func (r *rig) pair() (a, b *rigNode, c *client) {
	r.t.Helper()
	a, b = r.node("a"), r.node("b")
	r.meet()
	a.promote(false)
	r.members()
	return a, b, a.attach()
}

// meet waits until every two nodes have shaken hands.
func (r *rig) meet() {
	r.t.Helper()
	r.eventually("they meet", func() bool {
		for _, n := range r.nodes {
			for _, p := range n.vol.Status().Peers {
				if p.Verdict == "" {
					return false
				}
			}
		}
		return true
	})
}

// members waits until all nodes have recorded each other.
func (r *rig) members() {
	r.t.Helper()
	r.eventually("all are members", func() bool {
		for _, n := range r.nodes {
			if s := n.vol.Status(); len(s.InSync) != len(r.nodes) || s.Disk != UpToDate {
				return false
			}
		}
		return true
	})
}

// patient is for tests in which nobody is to be given up for lost, and nothing
// to be synced that no client flushes.
func patient(o *Options) {
	o.PeerTimeout, o.SyncInterval = time.Minute, time.Hour
}

// slowToDrop keeps the background sync and gives nobody up for lost.
func slowToDrop(o *Options) { o.PeerTimeout = time.Minute }

// pending fails if w was completed. Whatever could complete it must have been
// waited for before.
func (c *client) pending(w waitDone, what string) {
	c.t.Helper()
	select {
	case err := <-w:
		c.t.Fatalf("%s was completed (error %v)", what, err)
	default:
	}
}

func (c *client) async(off int64, p []byte) waitDone { return c.submit(writeReq(off, p)) }

func (c *client) asyncFlush() waitDone { return c.submit(&block.Request{Op: block.OpFlush}) }

// stall holds the operations of a disk that match, from now on, until it is let
// go; reached is closed when the first one waits.
type stall struct {
	reached chan struct{}
	free    chan struct{}
	once    sync.Once
}

// stallAt stalls the operations of a kind on the files whose name matches (see
// path.Match) for which when (nil: always) is true.
func (n *rigNode) stallAt(kind fakedisk.Op, pattern string, when func() bool) *stall {
	s := &stall{reached: make(chan struct{}), free: make(chan struct{})}
	n.fake.OnOp(func(op fakedisk.Op, file string) error {
		if match, _ := path.Match(pattern, file); op == kind && match && (when == nil || when()) {
			s.once.Do(func() { close(s.reached) })
			<-s.free
		}
		return nil
	})
	n.held = s
	n.rig.t.Cleanup(s.letGo)
	return s
}

func (s *stall) wait(t testing.TB) {
	t.Helper()
	select {
	case <-s.reached:
	case <-time.After(hangTime):
		t.Fatal("the operation to be stalled never came")
	}
}

func (s *stall) letGo() {
	select {
	case <-s.free:
	default:
		close(s.free)
	}
}

var errDisk = errors.New("the disk is gone")
