package wire

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pieceSize  = 64 << 10
	pieceLimit = 1024 // pieces on the way, in each direction of a connection
)

// A Relay accepts connections and forwards each to one target. Its methods may
// be called concurrently.
type Relay struct {
	target string
	delay  atomic.Int64 // nanoseconds
	l      net.Listener
	done   sync.WaitGroup
	passed atomic.Int64 // bytes

	mu     sync.Mutex
	spoil  int // pieces that are still to arrive with a bit flipped
	cut    bool
	closed bool
	forth  chan struct{}         // closed unless Hold keeps back what goes to the target
	back   chan struct{}         // the same of what comes from it
	conns  map[net.Conn]struct{} // both ends of every connection
}

// Listen begins to relay from addr (port 0: any) to target. Every byte arrives
// delay later than it was sent, in each direction.
func Listen(addr, target string, delay time.Duration) (*Relay, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", target, err)
	}
	r := &Relay{target: target, l: l, conns: map[net.Conn]struct{}{}, forth: make(chan struct{}), back: make(chan struct{})}
	r.delay.Store(int64(delay))
	close(r.forth)
	close(r.back)
	r.done.Go(r.accept)
	return r, nil
}

// Addr is the address that the relay listens on.
func (r *Relay) Addr() string { return r.l.Addr().String() }

// Passed is how many bytes have passed so far, in both directions.
func (r *Relay) Passed() int64 { return r.passed.Load() }

// Cut closes every connection, what is on the way is lost, and closes new ones
// as they come, until Mend.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	r.closeAll()
}

// Mend lets new connections through again.
func (r *Relay) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// Delay changes by how much what is sent from now on arrives later.
func (r *Relay) Delay(d time.Duration) { r.delay.Store(int64(d)) }

// Hold keeps back whatever goes to the target (forth), comes from it (back), or
// both: bytes, new connections and the ends of connections alike, without a word to
// either side. What was kept back goes on when a later Hold lets it.
func (r *Relay) Hold(forth, back bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forth, r.back = gate(r.forth, forth), gate(r.back, back)
}

// gate opens or shuts a gate, which is a channel that is closed while it is open.
func gate(now chan struct{}, shut bool) chan struct{} {
	select {
	case <-now:
		if shut {
			return make(chan struct{})
		}
	default:
		if !shut {
			close(now)
		}
	}
	return now
}

// pass waits until nothing is held in one direction.
func (r *Relay) pass(forth bool) {
	r.mu.Lock()
	open := r.back
	if forth {
		open = r.forth
	}
	r.mu.Unlock()
	<-open
}

// Spoil flips one bit of each of the next n pieces that pass, in any direction
// of any connection. No checksum of the network's tells of it.
func (r *Relay) Spoil(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spoil = n
}

// spoilt flips a bit in the middle of p if it is p's turn.
func (r *Relay) spoilt(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spoil > 0 {
		r.spoil--
		p[len(p)/2] ^= 0x10
	}
}

// Close ends the relay and every connection through it.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.forth, r.back = gate(r.forth, false), gate(r.back, false)
	r.closeAll()
	r.mu.Unlock()
	err := r.l.Close()
	r.done.Wait()
	return err
}

// closeAll is called with the lock held.
func (r *Relay) closeAll() {
	for c := range r.conns {
		c.Close()
	}
	clear(r.conns)
}

// enter notes a connection that Cut and Close are to close, or reports that
// none may pass.
func (r *Relay) enter(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut || r.closed {
		c.Close()
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *Relay) leave(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	c.Close()
}

func (r *Relay) accept() {
	for {
		c, err := r.l.Accept()
		if err != nil {
			return
		}
		r.done.Go(func() { r.relay(c) })
	}
}

func (r *Relay) relay(in net.Conn) {
	if !r.enter(in) {
		return
	}
	defer r.leave(in)
	r.pass(true)
	out, err := net.Dial("tcp", r.target)
	if err != nil || !r.enter(out) {
		return
	}
	defer r.leave(out)
	var both sync.WaitGroup
	both.Go(func() { r.forward(in, out, true) })
	both.Go(func() { r.forward(out, in, false) })
	both.Wait()
}

// A piece is what one read gave, and when it is to arrive.
type piece struct {
	b   *[pieceSize]byte
	n   int
	due time.Time
}

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// forward carries one direction until either end closes; a half-closed
// connection goes on in the other direction.
func (r *Relay) forward(from, to net.Conn, forth bool) {
	way := make(chan piece, pieceLimit)
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		r.deliver(way, to, forth)
	}()
	for {
		b := pieces.Get().(*[pieceSize]byte)
		n, err := from.Read(b[:])
		if n > 0 {
			r.passed.Add(int64(n))
			r.spoilt(b[:n])
			way <- piece{b, n, time.Now().Add(time.Duration(r.delay.Load()))}
		}
		if err != nil {
			break
		}
	}
	close(way)
	<-delivered
	r.pass(forth) // the end of a connection is held like its bytes
	if t, ok := to.(*net.TCPConn); ok {
		_ = t.CloseWrite() // it may be closed already
	}
}

// deliver writes each piece when it is due and nothing holds it. After a failed write it only
// drains the way, so that the reading side never stands still.
func (r *Relay) deliver(way <-chan piece, to net.Conn, forth bool) {
	// The runtime's timers round up to a millisecond while nothing else runs;
	// the kernel's sleep, on a thread of its own and without slack, keeps to
	// microseconds. It is unlocked again: a thread that ended would take along
	// the daemons that were started from it (package daemon, Pdeathsig).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // 50 us unless set
	var failed error
	for p := range way {
		if failed == nil {
			sleepUntil(p.due)
			r.pass(forth)
			_, failed = to.Write(p.b[:p.n])
		}
		pieces.Put(p.b)
	}
}

func sleepUntil(due time.Time) {
	for {
		left := time.Until(due)
		if left <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(left))
		if err := unix.Nanosleep(&ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
			time.Sleep(left)
		}
	}
}
