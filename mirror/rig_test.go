package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
	"github.com/lockstep-storage/lockstep/store"
)

// A rig is a few nodes in one process, on real files and real sockets, that can
// be killed, restarted, cut off and looked into.
type rig struct {
	t     testing.TB
	nodes map[string]*rigNode
	opts  func(*Options)
	fake  bool                // on fake disks (rig_fault_test.go)
	small journal.Options     // the replicas' journals, if not as made
	made  CreateOptions       // of every replica, but for its node's name
	gates map[[2]string]*gate // by the nodes from and to
	// version of the protocol that those choose who are dialled, 0: the newest.
	version atomic.Uint32
}

type rigNode struct {
	rig   *rig
	name  string
	dir   string
	boot  string
	vol   *Volume
	store Store
	fake  *fakedisk.FS // nil on real files
	held  *stall       // the newest stall of its disk
	l     net.Listener

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

const (
	rigVolume = "data"
	rigSize   = 16 << 20
	rigBlock  = 4096

	// hangTime tells what hangs from a busy machine under the race detector.
	hangTime = time.Minute
)

// shortJournal is soon full, for what comes after that: to write as much as the least
// journal holds that a user can have takes most of such a test's time under the race
// detector.
var shortJournal = journal.Options{Size: 32 << 20, SegmentSize: 2 << 20, AnySize: true}

// remakeJournal gives a replica that was never opened another empty journal.
func remakeJournal(d disk.FS, o journal.Options) error {
	dir, err := d.Sub(journalDir)
	if err != nil {
		return err
	}
	names, err := dir.List()
	for _, name := range names {
		err = errors.Join(err, dir.Remove(name))
	}
	return errors.Join(err, journal.Create(dir, o))
}

// seed gives a random source whose seed is printed and can be given.
func seed(t testing.TB) *rand.Rand {
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("LOCKSTEP_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("LOCKSTEP_SEED=%q: %v", v, err)
		}
	}
	t.Logf("seed %d (set LOCKSTEP_SEED to repeat)", s)
	return rand.New(rand.NewPCG(s, s))
}

func newRig(t testing.TB, opts func(*Options), names ...string) *rig {
	return newRigOn(t, false, opts, names...)
}

func newRigOn(t testing.TB, fake bool, opts func(*Options), names ...string) *rig {
	return newRigOf(t, rigSize, fake, opts, names...)
}

func newRigOf(t testing.TB, size int64, fake bool, opts func(*Options), names ...string) *rig {
	return newRigMade(t, CreateOptions{Size: size}, fake, opts, names...)
}

// newRigMade makes replicas with what made says of the volume.
func newRigMade(t testing.TB, made CreateOptions, fake bool, opts func(*Options), names ...string) *rig {
	return newRigSmall(t, made, fake, journal.Options{}, opts, names...)
}

// newShortRig makes replicas on fake disks with a shortJournal.
func newShortRig(t testing.TB, opts func(*Options), names ...string) *rig {
	return newRigSmall(t, CreateOptions{Size: rigSize}, true, shortJournal, opts, names...)
}

// newRigSmall makes replicas with journals of a size that no user can have; only on fake
// disks, and not if small is zero.
func newRigSmall(t testing.TB, made CreateOptions, fake bool, small journal.Options, opts func(*Options), names ...string) *rig {
	made.Volume, made.JournalSize = rigVolume, 64<<20
	r := &rig{t: t, nodes: map[string]*rigNode{}, opts: opts, fake: fake, small: small, made: made, gates: map[[2]string]*gate{}}
	for _, from := range names {
		for _, to := range names {
			r.gates[[2]string{from, to}] = &gate{}
		}
	}
	for _, name := range names {
		n := &rigNode{rig: r, name: name, dir: filepath.Join(t.TempDir(), name), boot: "boot", conns: map[net.Conn]bool{}}
		r.nodes[name] = n
		n.create()
		n.listen()
	}
	for _, name := range names {
		r.nodes[name].start()
	}
	t.Cleanup(func() {
		r.openGates()
		for _, n := range r.nodes {
			if n.vol != nil {
				n.kill()
			}
			n.l.Close()
		}
	})
	return r
}

func (r *rig) node(name string) *rigNode { return r.nodes[name] }

// made is what the node's replica is created with.
func (n *rigNode) made() CreateOptions {
	o := n.rig.made
	o.Node = n.name
	return o
}

func (n *rigNode) create() {
	t := n.rig.t
	t.Helper()
	if n.rig.fake {
		n.createFake()
		return
	}
	fs, err := disk.OS(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(fs, n.made()); err != nil {
		t.Fatal(err)
	}
	if err := store.CreateFile(filepath.Join(n.dir, "data"), n.rig.made.Size, store.FileOptions{}); err != nil {
		t.Fatal(err)
	}
}

// disks opens the directory of the replica and its store.
func (n *rigNode) disks() (disk.FS, Store) {
	t := n.rig.t
	t.Helper()
	if n.rig.fake {
		return n.fake, openFake(t, n.fake)
	}
	fs, err := disk.OS(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.OpenFile(filepath.Join(n.dir, "data"), store.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fs, st
}

func (n *rigNode) options() Options {
	fs, st := n.disks()
	n.store = st
	o := Options{
		Node: n.name, Volume: rigVolume, FS: fs, Store: st, Dialer: n, BootID: n.boot,
		PeerTimeout: time.Second, SyncInterval: 20 * time.Millisecond, RetryInterval: 10 * time.Millisecond,
	}
	if os.Getenv("LOCKSTEP_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", n.name)
	}
	for name := range n.rig.nodes {
		if name != n.name {
			o.Peers = append(o.Peers, name)
		}
	}
	if n.rig.opts != nil {
		n.rig.opts(&o)
	}
	return o
}

func (n *rigNode) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.rig.t.Fatal(err)
	}
	n.l = l
	go n.accept(l)
}

func (n *rigNode) start() {
	t := n.rig.t
	t.Helper()
	o := n.options()
	mustBeSound(t, o.FS, CheckOptions{StoreSize: o.Store.Size()})
	v, err := Open(o)
	if err != nil {
		t.Fatalf("start %s: %v", n.name, err)
	}
	n.mu.Lock()
	n.vol = v
	n.mu.Unlock()
}

func (n *rigNode) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			pre, version, err := ReadPreamble(conn)
			n.mu.Lock()
			v := n.vol
			ok := err == nil && v != nil && !n.cut && n.track(conn)
			n.mu.Unlock()
			if !ok {
				conn.Close()
				return
			}
			if old := n.rig.version.Load(); old != 0 {
				version = uint16(old)
			}
			v.Accept(n.rig.gates[[2]string{n.name, pre.Node}].wrap(conn), pre, version)
		}()
	}
}

func (n *rigNode) track(c net.Conn) bool { n.conns[c] = true; return true }

// Dial implements Dialer.
func (n *rigNode) Dial(ctx context.Context, node string) (net.Conn, error) {
	peer := n.rig.nodes[node]
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return nil, errors.New("network is cut")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", peer.l.Addr().String())
	if err != nil {
		return nil, err
	}
	n.track(c)
	return n.rig.gates[[2]string{n.name, node}].wrap(c), nil
}

// isolate cuts the node off, closing what is open; heal undoes it.
func (n *rigNode) isolate() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for c := range n.conns {
		c.Close()
	}
	clear(n.conns)
}

func (n *rigNode) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = false
}

// kill ends the replica without flushing or saying anything. What its goroutines
// are in the middle of they finish: sigkill interrupts that, too.
func (n *rigNode) kill() {
	n.mu.Lock()
	v := n.vol
	n.vol = nil
	n.mu.Unlock()
	if v == nil {
		return
	}
	v.seq.Lock() // whoever orders a batch ends that; nothing is ordered afterwards
	v.mu.Lock()
	for s := range v.sessions {
		s.closed.Store(true)
	}
	v.mu.Unlock()
	v.stop()
	v.seq.Unlock()
	v.wg.Wait()
	v.closeFiles()
}

func (n *rigNode) restart() {
	n.kill()
	n.start()
}

// replace gives the node an empty replica, as after the loss of its disk.
func (n *rigNode) replace() {
	n.kill()
	if err := os.RemoveAll(n.dir); err != nil {
		n.rig.t.Fatal(err)
	}
	n.create()
	n.start()
}

func (n *rigNode) promote(force bool) {
	n.rig.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	if err := n.vol.Promote(ctx, PromoteOptions{Force: force}); err != nil {
		n.rig.t.Fatalf("promote %s: %v\n%s", n.name, err, n.rig.describe())
	}
}

func (n *rigNode) demote() {
	n.rig.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	if err := n.vol.Demote(ctx); err != nil {
		n.rig.t.Fatalf("demote %s: %v\n%s", n.name, err, n.rig.describe())
	}
}

// eventually waits until cond holds.
func (r *rig) eventually(what string, cond func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(hangTime)
	for !cond() {
		if time.Now().After(deadline) {
			r.t.Fatalf("in vain waited until %s\n%s", what, r.describe())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *rig) describe() string {
	var b bytes.Buffer
	for name, n := range r.nodes {
		n.mu.Lock()
		v := n.vol
		n.mu.Unlock()
		if v == nil {
			fmt.Fprintf(&b, "%s: down\n", name)
			continue
		}
		s := v.Status()
		fmt.Fprintf(&b, "%s: %v %v epoch %d set %v v%d end %d committed %d stable %d durable %d applied %d waiting %q failure %q\n",
			name, s.Role, s.Disk, s.Epoch, nodesOf(s.InSync), s.SetVersion, s.End, s.Committed, s.Stable, s.Durable, s.Applied, s.Waiting, s.Failure)
		for _, p := range s.Peers {
			fmt.Fprintf(&b, "   %s: %v %v member %v received %d durable %d verdict %s oos %d problem %q\n",
				p.Node, p.Connection, p.Replication, p.Member, p.Received, p.Durable, p.Verdict, p.OutOfSync, p.Problem)
		}
	}
	return b.String()
}

// peer is what n knows of another node.
func (n *rigNode) peer(name string) PeerStatus {
	for _, p := range n.vol.Status().Peers {
		if p.Node == name {
			return p
		}
	}
	n.rig.t.Fatalf("%s has no peer %s", n.name, name)
	return PeerStatus{}
}

// inSync waits until the nodes are the members and everything is applied, and
// compares the bytes of their stores.
func (r *rig) inSync(primary string, others ...string) {
	r.t.Helper()
	a := r.node(primary)
	r.eventually("all replicas have applied everything", func() bool {
		s := a.vol.Status()
		if len(s.InSync) != 1+len(others) || s.Applied != s.End {
			return false
		}
		for _, name := range others {
			o := r.node(name).vol.Status()
			if len(o.InSync) != len(s.InSync) || o.Applied != s.End || o.Disk != UpToDate {
				return false
			}
		}
		return true
	})
	for _, name := range others {
		if off := differ(r.t, a.store, r.node(name).store); off >= 0 {
			r.t.Fatalf("block %d differs between %s and %s", off/rigBlock, primary, name)
		}
	}
}

// differ gives the offset of the first block in which two stores differ, or -1.
// It reads them piece by piece: to make buffers of the volume's size takes the race
// detector longer than to look at what is in them.
func differ(t testing.TB, x, y Store) int64 {
	t.Helper()
	var pieces [2][64 << 10]byte
	for off := int64(0); off < rigSize; off += int64(len(pieces[0])) {
		for i, s := range []Store{x, y} {
			if _, err := s.ReadAt(pieces[i][:], off); err != nil {
				t.Fatal(err)
			}
		}
		if pieces[0] == pieces[1] {
			continue
		}
		for i := 0; ; i += rigBlock {
			if !bytes.Equal(pieces[0][i:i+rigBlock], pieces[1][i:i+rigBlock]) {
				return off + int64(i)
			}
		}
	}
	return -1
}

// A client is a session whose requests can be waited for one by one.
type client struct {
	t testing.TB
	s block.Session
}

func (n *rigNode) attach() *client {
	n.rig.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	s, err := n.vol.Attach(ctx, nil)
	if err != nil {
		n.rig.t.Fatalf("attach to %s: %v\n%s", n.name, err, n.rig.describe())
	}
	return &client{n.rig.t, s}
}

type waitDone chan error

func (w waitDone) Complete(_ *block.Request, err error) { w <- err }

func (c *client) submit(r *block.Request) waitDone {
	w := make(waitDone, 1)
	r.Done = w
	c.s.Submit([]*block.Request{r})
	return w
}

func fill(v byte, n int) []byte { return bytes.Repeat([]byte{v}, n) }

func writeReq(off int64, p []byte) *block.Request {
	b := block.Get(len(p))
	copy(b.Bytes(), p)
	return &block.Request{Op: block.OpWrite, Off: off, Len: int64(len(p)), Buf: b}
}

func (c *client) write(off int64, p []byte) {
	c.t.Helper()
	c.must(c.submit(writeReq(off, p)))
}

func (c *client) flush() {
	c.t.Helper()
	c.must(c.submit(&block.Request{Op: block.OpFlush}))
}

func (c *client) must(w waitDone) {
	c.t.Helper()
	select {
	case err := <-w:
		if err != nil {
			c.t.Fatalf("request failed: %v", err)
		}
	case <-time.After(hangTime):
		c.t.Fatal("request hangs")
	}
}

func (c *client) read(off int64, n int) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if err := c.s.ReadAt(p, off); err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return p
}
