package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/internal/stream"
)

const (
	readBufferSize = 256 << 10
	// maxComplaints is how many sentences about failed requests one connection
	// may write into the log. A client must not be able to fill a disk with it.
	maxComplaints = 32
	// Of a client that has deep or more requests in flight, the reader takes up
	// to maxCorked before it writes the replies that are ready; gatherTries is
	// how often it looks for another in vain, some 10 µs. To send a reply and
	// wake the client costs more than all the rest of a small request, and a
	// client that gets replies together sends requests together.
	deep        = 12
	maxCorked   = 16
	gatherTries = 24
)

// A conn is one client's connection, from accept to close.
type conn struct {
	srv     *Server
	nc      net.Conn      // the socket, during the handshake
	secure  *secureConn   // TLS over it, nil without
	sock    stream.Stream // during transmission; then nc is its own
	log     *slog.Logger
	session *target.Session
	sparse  block.Sparse // the session, if it knows of holes
	rules   rules

	// The reader's own.
	in      []byte // what was read from the socket
	r, w    int    // in[r:w] is not yet parsed
	batch   []*block.Request
	batchNo uint64
	taken   int     // requests since the last push
	depth   float64 // the most that were lately taken between two pushes

	mu       sync.Mutex // guards what follows, down to the blank line
	room     sync.Cond  // inFlight or bytes fell, or hungUp
	inFlight int        // requests admitted and not yet retired
	bytes    int64      // their charge
	free     *request   // retired requests
	pending  queue      // requests that are done but not yet answered
	corked   uint64     // the batch whose replies its reader will write; 0: none
	writing  bool       // somebody writes replies
	stalled  *request   // whose replies the writer is to finish; then writing is set
	hungUp   bool       // the socket is closed
	over     bool       // no reply will come any more
	stopping error      // why the server ends the connection
	started  bool       // sock is set

	wake    chan struct{} // tells the writer that replies are pending
	replies replyBuffer   // of whoever set writing
	reads   readWorkers

	cancel     context.CancelFunc // frees the reader from waits
	complaints int                // of whoever set writing
	goroutines sync.WaitGroup
}

func newConn(s *Server, nc net.Conn, id uint64, cancel context.CancelFunc) *conn {
	remote := nc.RemoteAddr().String()
	if nc.RemoteAddr().Network() == "unix" { // its clients have no address
		remote = fmt.Sprintf("%s#%d", nc.LocalAddr(), id)
	}
	c := &conn{
		srv:  s,
		nc:   nc,
		log:  s.log.With("remote", remote),
		wake: make(chan struct{}, 1),

		cancel: cancel,
	}
	c.room.L = &c.mu
	return c
}

// serve is the connection's life: handshake, transmission, end.
func (c *conn) serve(ctx context.Context) {
	if err := c.shakeHands(ctx); err != nil {
		c.secure.bye()
		c.nc.Close()
		if !errors.Is(err, errGoodbye) {
			c.log.Info("handshake failed", "error", err)
		}
		return
	}
	defer c.session.Close()
	c.log = c.log.With("export", c.session.Export.Name)
	if c.secure != nil {
		c.log = c.log.With("client", c.secure.client())
	}
	if err := c.startTransmission(); err != nil {
		c.nc.Close()
		c.log.Error("connection not taken over", "error", err)
		return
	}
	c.log.Info("attached")
	c.finish(c.transmit(ctx))
	c.reads.stop()
	c.stopWriter()
	c.goroutines.Wait()
	c.secure.bye()
	c.sock.Close()
}

func (c *conn) shakeHands(ctx context.Context) error {
	limit := c.srv.opt.HandshakeTimeout
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c.nc.SetDeadline(time.Now().Add(limit))
	tune(c.nc)
	if err := c.stopReason(); err != nil {
		return err // it may have come before the deadline and been undone by it
	}
	h := handshake{nc: c.nc, exports: c.srv.exports, tls: c.srv.opt.TLS.over(c.nc), log: c.log, revoked: c.stop}
	err := h.run(ctx)
	c.secure = h.secure
	if err != nil {
		return err
	}
	c.session = h.session
	c.rules = rulesOf(h.session.Info, h.terms)
	c.sparse, _ = h.session.Session.(block.Sparse)
	c.nc.SetDeadline(time.Time{})
	return nil
}

func (c *conn) startTransmission() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hungUp {
		return errHungUp
	}
	nc := c.nc
	if c.secure != nil {
		nc = c.secure
	}
	sock, err := stream.Open(nc, c.srv.opt.ProgressTimeout)
	if err != nil {
		return err
	}
	c.sock, c.started = sock, true
	if c.stopping != nil { // stop knew only of nc
		sock.StopReading()
	}
	c.in = make([]byte, readBufferSize)
	c.batch = make([]*block.Request, 0, c.srv.opt.MaxRequests)
	c.replies.init(c.srv.opt.MaxRequests, c.rules.terms)
	c.reads.init(c, c.srv.opt.ReadWorkers)
	c.goroutines.Go(c.writer)
	return nil
}

// finish ends the transmission phase ("Terminating the transmission phase").
func (c *conn) finish(err error) {
	reason := c.stopReason()
	switch {
	case errors.Is(err, errDisconnect):
		// NBD_CMD_DISC: outstanding requests are handled first.
		c.settle()
		c.log.Info("detached")
	case reason != nil:
		c.settle()
		c.log.Info("connection ended by the server", "reason", reason)
	default:
		// The client is gone, or talks nonsense. What it has not got ordered
		// by now must not take effect later.
		c.hangUp()
		c.session.Close()
		lost := c.settle()
		level := slog.LevelWarn
		if lost == 0 && errors.Is(err, io.EOF) {
			level = slog.LevelInfo // it left without a word, and without a loss
		}
		c.log.Log(context.Background(), level, "connection lost", "in_flight", lost, "error", err)
	}
}

// stop asks the reader to take no more requests; those in flight finish. It
// does not block.
func (c *conn) stop(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping != nil {
		return
	}
	c.stopping = reason
	if c.started {
		c.sock.StopReading()
	} else {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *conn) stopReason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// hangUp closes the socket at once. It does not wait.
func (c *conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hungUp = true
	c.room.Broadcast()
	c.cancel()
	if c.started {
		c.sock.HangUp()
	} else {
		c.nc.Close()
	}
}

func tune(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetNoDelay(true)
		// A host that vanished is noticed after 30 s + 4 * 10 s.
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 4,
		})
	}
}
