package world

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// The network, as TCP over a network that fails. What it does to a connection:
//
//   - Every piece written takes a time of its own, drawn; pieces of one direction
//     stay in order, those of two connections or directions do not.
//   - A way (from one node to another) can be blocked: what is written waits, as
//     TCP sends it again, and arrives late or never. One way may be blocked and
//     the other not. A connection cannot be opened over a blocked way.
//   - A connection can be cut: both sides get an error, at once or much later.
//   - A host that loses its power says nothing: the other side finds out by its own
//     patience, or when the host is back and knows nothing of the connection.
//   - Bits turn on the way and pass TCP's checksum.
//   - Little fits into a connection at once, so that a writer waits for a slow reader.
type network struct {
	w   *World
	rng *rand.Rand

	mu    sync.Mutex
	ways  map[[2]string]*way
	conns []*conn // one of each two ends, as they were opened
}

// A way leads from one node to another. The network's lock guards it.
type way struct {
	from, to string
	blocked  int           // so many faults block it
	least    time.Duration // that a piece takes
	most     time.Duration
	slow     time.Duration // on top, while a fault makes it slow
	flip     bool          // the next piece arrives with a bit turned
}

func newNetwork(w *World) *network {
	return &network{w: w, rng: w.random("net"), ways: map[[2]string]*way{}}
}

func (n *network) connectNodes(names []string, least, most time.Duration) {
	for _, from := range names {
		for _, to := range names {
			if from != to {
				n.ways[[2]string{from, to}] = &way{from: from, to: to, least: least, most: most}
			}
		}
	}
}

// takes is how long a piece is on its way. n.mu is held.
func (n *network) takes(y *way) time.Duration {
	d := y.least + time.Duration(n.rng.Int64N(int64(y.most-y.least)+1))
	if y.slow > 0 {
		d += time.Duration(n.rng.Int64N(int64(y.slow)))
	}
	return d
}

// block blocks a way, or takes one block off it.
func (n *network) block(from, to string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	y := n.ways[[2]string{from, to}]
	if on {
		y.blocked++
		return
	}
	y.blocked--
	if y.blocked > 0 {
		return
	}
	now := time.Now()
	for _, c := range n.conns {
		for _, p := range []*pipe{c.out, c.in} {
			if p.way == y {
				p.resend(now)
			}
		}
	}
}

// slowDown adds up to d to what every piece takes on the ways between two nodes.
func (n *network) slowDown(a, b string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ways[[2]string{a, b}].slow, n.ways[[2]string{b, a}].slow = d, d
}

// corrupt turns a bit of the next piece that goes from one node to another.
func (n *network) corrupt(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ways[[2]string{from, to}].flip = true
}

// cut resets the connections between two nodes.
func (n *network) cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		if c.joins(a, b) {
			c.out.fail(syscall.ECONNRESET)
			c.in.fail(syscall.ECONNRESET)
		}
	}
	n.sweep()
}

// drop ends the connections of a process. Those of one that was killed the kernel
// closes; of one whose host lost its power nobody hears, until it is back.
func (n *network) drop(p *process, silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		for _, end := range []*conn{c, c.other} {
			if end.proc != p {
				continue
			}
			end.dead = true
			end.in.fail(net.ErrClosed)
			if silent {
				end.out.mute = true
			} else {
				end.out.finish(syscall.ECONNRESET)
			}
		}
	}
}

// returned: the host is up again, and answers what comes in on connections that it
// knows nothing of.
func (n *network) returned(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		for _, end := range []*conn{c, c.other} {
			if end.node == node && end.out.mute {
				end.out.mute = false
				end.out.finish(syscall.ECONNRESET)
			}
		}
	}
	n.sweep()
}

// sweep forgets the connections that are over. n.mu is held.
func (n *network) sweep() {
	left := n.conns[:0]
	for _, c := range n.conns {
		if !(c.in.err != nil && c.out.err != nil) && !(c.closed && c.other.closed) {
			left = append(left, c)
		}
	}
	clear(n.conns[len(left):])
	n.conns = left
}

// Dial opens a connection from a process to a node.
func (n *network) dial(ctx context.Context, p *process, to string) (net.Conn, error) {
	there, back := n.ways[[2]string{p.node.name, to}], n.ways[[2]string{to, p.node.name}]
	for {
		n.mu.Lock()
		d, open := n.takes(there)+n.takes(back), there.blocked == 0 && back.blocked == 0
		n.mu.Unlock()
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		q := n.w.nodes[to].proc
		switch {
		case p.dead:
			return nil, net.ErrClosed
		case !open || n.w.nodes[to].dark:
			select { // it is tried again
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			continue
		case q == nil || q.vol == nil:
			return nil, syscall.ECONNREFUSED
		}
		n.mu.Lock()
		out, in := newPipe(n, there), newPipe(n, back)
		a := &conn{n: n, proc: p, node: p.node.name, peer: to, in: in, out: out}
		b := &conn{n: n, proc: q, node: to, peer: p.node.name, in: out, out: in}
		a.other, b.other = b, a
		n.sweep()
		n.conns = append(n.conns, a)
		n.mu.Unlock()
		n.w.mix("connect", p.node.name, to)
		q.accept(b)
		return a, nil
	}
}

// window is how many bytes one direction of a connection takes before its writer
// waits for its reader.
const window = 256 << 10

// A pipe is one direction of a connection. The network's lock guards it.
type pipe struct {
	n       *network
	way     *way
	pieces  []piece
	held    int // bytes
	last    time.Time
	end     error     // what the reader gets behind the pieces: io.EOF or a reset
	endAt   time.Time // when, if end is set
	err     error     // both get this at once
	mute    bool      // the writer's host is off
	gone    bool      // the reader closed
	changed chan struct{}
}

type piece struct {
	at   time.Time // it arrives
	data []byte
}

func newPipe(n *network, y *way) *pipe { return &pipe{n: n, way: y, changed: make(chan struct{})} }

func (p *pipe) broadcast() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// arrives is when a piece sent now does, behind those before it.
func (p *pipe) arrives() time.Time {
	at := time.Now().Add(p.n.takes(p.way))
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	return at
}

func (p *pipe) fail(err error) {
	if p.err == nil {
		p.err = err
		p.pieces, p.held = nil, 0
		p.broadcast()
	}
}

// finish ends the direction behind what was sent.
func (p *pipe) finish(err error) {
	if p.end == nil {
		p.end, p.endAt = err, p.arrives()
		p.broadcast()
	}
}

// resend: the way is open again, and what waited for that is sent once more.
func (p *pipe) resend(now time.Time) {
	for i := range p.pieces {
		if p.pieces[i].at.Before(now) {
			p.pieces[i].at = now.Add(p.n.takes(p.way))
			if i > 0 && p.pieces[i].at.Before(p.pieces[i-1].at) {
				p.pieces[i].at = p.pieces[i-1].at
			}
			p.last = p.pieces[i].at
		}
	}
	if p.end != nil && p.endAt.Before(p.last) {
		p.endAt = p.last
	}
	p.broadcast()
}

// A conn is one end of a connection.
type conn struct {
	n          *network
	proc       *process
	node, peer string
	other      *conn
	in, out    *pipe

	// The network's lock guards the rest.
	closed, dead bool
	rd, wd       time.Time
}

func (c *conn) joins(a, b string) bool {
	return c.node == a && c.peer == b || c.node == b && c.peer == a
}

// await waits until the pipe changes, the time until has come (zero: never), or the
// deadline has, which is an error. The network's lock is held, and is again on return.
func (c *conn) await(p *pipe, deadline, until time.Time) error {
	changed := p.changed
	var timer <-chan time.Time
	if until.IsZero() || !deadline.IsZero() && deadline.Before(until) {
		until = deadline
	}
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timer = t.C
	}
	c.n.mu.Unlock()
	select {
	case <-changed:
	case <-timer:
	}
	c.n.mu.Lock()
	if !deadline.IsZero() && !time.Now().Before(deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	p := c.in
	for {
		var next time.Time
		switch {
		case c.closed || c.dead:
			return 0, net.ErrClosed
		case p.err != nil:
			return 0, p.err
		case past(c.rd):
			return 0, os.ErrDeadlineExceeded
		case c.proc.held():
			next = c.proc.heldUntil
		case p.way.blocked > 0:
		case len(p.pieces) > 0:
			if head := &p.pieces[0]; past(head.at) {
				n := copy(b, head.data)
				head.data = head.data[n:]
				p.held -= n
				if len(head.data) == 0 {
					p.pieces = p.pieces[1:]
				}
				p.broadcast()
				c.n.w.mix("read", c.node, c.peer, n)
				return n, nil
			}
			next = p.pieces[0].at
		case p.end != nil:
			if past(p.endAt) {
				return 0, p.end
			}
			next = p.endAt
		}
		if err := c.await(p, c.rd, next); err != nil {
			return 0, err
		}
	}
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	p, done := c.out, 0
	for {
		switch {
		case c.closed || c.dead:
			return done, net.ErrClosed
		case p.err != nil:
			return done, p.err
		case p.gone:
			return done, syscall.EPIPE
		case past(c.wd):
			return done, os.ErrDeadlineExceeded
		case done == len(b):
			return done, nil
		case c.proc.held():
			if err := c.await(p, c.wd, c.proc.heldUntil); err != nil {
				return done, err
			}
		case p.held < window:
			n := min(len(b)-done, window-p.held)
			data := append([]byte(nil), b[done:done+n]...)
			if y := p.way; y.flip {
				y.flip = false
				bit := c.n.rng.IntN(8 * n)
				data[bit/8] ^= 1 << (bit % 8)
				c.n.w.note("net", "turns a bit from %s to %s", y.from, y.to)
			}
			c.n.w.bytes(data)
			p.pieces = append(p.pieces, piece{p.arrives(), data})
			p.held += n
			done += n
			p.broadcast()
		default:
			if err := c.await(p, c.wd, time.Time{}); err != nil {
				return done, err
			}
		}
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed || c.dead {
		return net.ErrClosed
	}
	c.closed = true
	c.out.finish(io.EOF)
	c.in.gone = true
	c.in.broadcast()
	return nil
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.rd = t
	return c.setDeadline(c.in)
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.wd = t
	return c.setDeadline(c.out)
}

func (c *conn) setDeadline(p *pipe) error {
	if c.closed || c.dead {
		return net.ErrClosed
	}
	p.broadcast()
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return address(c.node) }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return address(c.peer) }

type address string

func (address) Network() string  { return "simulated" }
func (a address) String() string { return string(a) }
