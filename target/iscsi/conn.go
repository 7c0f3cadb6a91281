package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-storage/lockstep/target/internal/stream"
	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
	"github.com/lockstep-storage/lockstep/target/iscsi/scsi"
)

const (
	readBufferSize = 256 << 10
	// maxComplaints is how many sentences about one connection's errors go to the
	// log: an initiator must not be able to fill a disk with it.
	maxComplaints = 32
	// maxControl is how many replies other than those of commands may wait to be
	// sent. The reader stops at more.
	maxControl = 64
)

var (
	errHungUp  = errors.New("iscsi: the connection is closed")
	errStopped = errors.New("iscsi: the server ends the connection")
	errLogout  = errors.New("iscsi: the initiator logged out")
)

// A conn is one connection, from accept to close, and the session that it is the
// only connection of.
type conn struct {
	srv  *Server
	nc   net.Conn // during the login
	sock stream.Stream
	log  *slog.Logger

	// Set by join, constant from then on.
	terms     terms
	discovery bool
	target    *tgt // nil in discovery
	nexus     *scsi.Nexus
	initiator string
	isid      [6]byte
	tsih      uint16
	cid       uint16
	reserved  int64

	// The reader's own.
	in      []byte // what was read from the socket
	r, w    int    // in[r:w] is not yet parsed
	batch   []*scsi.Command
	batchNo uint64
	text    textExchange

	// executing is held around Nexus.Execute. It comes before mu.
	executing sync.Mutex

	bytes int64 // of large commands; guarded by the server's memory

	mu        sync.Mutex // guards what follows, down to the blank line
	room      sync.Cond  // inFlight or control fell, or hungUp
	expCmdSN  uint32
	maxCmdSN  uint32
	statSN    uint32
	nextTTT   uint32
	inFlight  int // commands that hold a task
	immediate int // of them, immediate ones
	tasks     taskTable
	free      *task
	pending   replyQueue
	control   int // replies pending that are not a command's
	spare     *reply
	ready     []*task // got their memory
	corked    uint64  // the batch whose replies the reader will write; 0: none
	writing   bool    // somebody writes replies
	stalled   *reply  // whose bytes the writer is to finish; then writing is set
	hungUp    bool    // the socket is closed
	over      bool    // no reply will come any more
	stopping  error   // why the server ends the connection
	started   bool    // sock is set
	revoked   bool
	skipped   [64]uint32 // ITTs whose data may still come, and is dropped
	nSkipped  int

	heard   atomic.Bool // something arrived since the last tick
	pinged  bool        // the tick's
	tick    *time.Timer
	wake    chan struct{} // tells the writer that replies, or ready tasks, are there
	begin   chan struct{} // tells the starter that tasks are ready
	replies replyBuffer   // of whoever set writing

	cancel     context.CancelFunc
	complaints atomic.Int32
	goroutines sync.WaitGroup
	ended      chan struct{} // closed when nothing is left of the connection
}

func newConn(s *Server, nc net.Conn, cancel context.CancelFunc) *conn {
	c := &conn{
		srv:    s,
		nc:     nc,
		log:    s.log.With("remote", nc.RemoteAddr().String()),
		wake:   make(chan struct{}, 1),
		begin:  make(chan struct{}, 1),
		cancel: cancel,
		ended:  make(chan struct{}),
	}
	c.room.L = &c.mu
	return c
}

// serve is the connection's life: login, full feature phase, end.
func (c *conn) serve(ctx context.Context) {
	if err := c.login(ctx); err != nil {
		c.nc.Close()
		c.detach()
		c.log.Info("login failed", "error", err)
		return
	}
	defer c.detach()
	if err := c.start(); err != nil {
		c.nc.Close()
		c.log.Error("connection not taken over", "error", err)
		return
	}
	c.log.Info("logged in", "discovery", c.discovery, "header_digest", c.terms.headerDigest, "data_digest", c.terms.dataDigest)
	c.finish(c.receive())
	c.tick.Stop()
	c.stopHelpers()
	c.goroutines.Wait()
	c.sock.Close()
}

func (c *conn) login(ctx context.Context) error {
	limit := c.srv.opt.LoginTimeout
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c.nc.SetDeadline(time.Now().Add(limit))
	tune(c.nc)
	if err := c.stopReason(); err != nil {
		return err // it may have come before the deadline and been undone by it
	}
	l := login{c: c, nc: c.nc}
	if err := l.run(ctx); err != nil {
		return err
	}
	c.nc.SetDeadline(time.Time{})
	return nil
}

// join makes the session: an older one of the same initiator port ends first
// (6.3.5, session reinstatement).
func (c *conn) join(ctx context.Context, l *login) error {
	s := c.srv
	l.terms.settle()
	c.terms, c.discovery, c.initiator, c.isid, c.cid = l.terms, l.discovery, l.initiator, l.isid, l.cid
	c.expCmdSN, c.statSN = l.cmdSN, l.statSN+1
	c.maxCmdSN = c.expCmdSN + uint32(s.opt.MaxCommands) - 1
	if !c.discovery {
		for {
			old, err := c.claim(l.target)
			if err != nil {
				return err
			}
			if old == nil {
				break
			}
			old.log.Info("session reinstated by another login")
			old.hangUp()
			select {
			case <-old.ended:
			case <-ctx.Done():
				return refuseLogin(wire.TargetError, "the older session of the initiator has not ended: %v", ctx.Err())
			}
		}
		if r := s.opt.reserved(); s.memory.reserve(r) {
			c.reserved = r
		} else {
			return refuseLogin(wire.OutOfResources, "no memory is left for another session")
		}
		n, err := l.target.unit.Attach(ctx,
			fmt.Sprintf("%s,i,0x%012x", l.initiator, l.isid),
			scsi.Port{Name: fmt.Sprintf("%s,t,0x%04x", l.target.name, portalGroup), RelativeID: l.target.RelativePort, Group: portalGroup},
			scsi.Events{Revoked: c.revoke, Cleared: c.cleared})
		if err != nil {
			return refuseLogin(statusOf(err), "%v", err)
		}
		c.nexus = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.lastTSIH++
		taken := s.lastTSIH == 0
		for o := range s.conns {
			taken = taken || o.tsih == s.lastTSIH
		}
		if !taken {
			c.tsih = s.lastTSIH
			return nil
		}
	}
}

// claim gives the connection its place among the sessions of a target, or finds
// the older session that has to end before.
func (c *conn) claim(t *tgt) (old *conn, err error) {
	s := c.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.targets[t.name] != t {
		return nil, refuseLogin(wire.NotFound, "target %s was removed", t.name)
	}
	for o := range t.sessions {
		if o.initiator == c.initiator && o.isid == c.isid {
			return o, nil
		}
	}
	if t.MaxSessions > 0 && len(t.sessions) >= t.MaxSessions {
		return nil, refuseLogin(wire.OutOfResources, "%s has %d sessions, as many as it may have", t.name, len(t.sessions))
	}
	c.target = t
	t.sessions[c] = struct{}{}
	return nil, nil
}

// detach gives back what join took.
func (c *conn) detach() {
	if c.nexus != nil {
		c.nexus.Close()
		c.nexus.Wait()
	}
	c.srv.memory.release(c, c.reserved, 0)
}

func (c *conn) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hungUp {
		return errHungUp
	}
	sock, err := stream.Open(c.nc, c.srv.opt.ProgressTimeout)
	if err != nil {
		return err
	}
	c.sock, c.started = sock, true
	if c.stopping != nil { // stop knew only of nc
		sock.StopReading()
	}
	c.in = make([]byte, readBufferSize)
	c.batch = make([]*scsi.Command, 0, c.srv.opt.MaxCommands)
	c.replies.init(c)
	c.goroutines.Go(c.writer)
	c.goroutines.Go(c.starter)
	c.tick = time.AfterFunc(c.srv.opt.ProgressTimeout, c.look)
	if c.revoked {
		c.askForLogout()
	}
	return nil
}

// finish ends the full feature phase.
func (c *conn) finish(err error) {
	reason := c.stopReason()
	switch {
	case errors.Is(err, errLogout):
		c.dropCollecting()
		c.settle()
		c.log.Info("logged out")
	case reason != nil:
		c.dropCollecting()
		c.settle()
		c.log.Info("connection ended by the server", "reason", reason)
	default:
		// The initiator is gone, or talks nonsense. What has not been ordered by
		// now must not take effect later.
		var no *protocolError
		if errors.As(err, &no) {
			c.sayWhy(no)
		}
		c.hangUp()
		if c.nexus != nil {
			c.nexus.Close()
		}
		c.dropCollecting()
		lost := c.settle()
		level := slog.LevelWarn
		if lost == 0 && errors.Is(err, io.EOF) {
			level = slog.LevelInfo // it left without a word, and without a loss
		}
		c.log.Log(context.Background(), level, "connection lost", "in_flight", lost, "error", err)
	}
	c.hangUp()
}

// stop asks the reader to take no more; what has begun ends. It does not block.
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

// revoke begins the end of a session whose volume is served here no longer: no
// command has an effect any more, and the initiator is asked to log out and
// come back elsewhere (11.9). It does not block.
func (c *conn) revoke(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revoked {
		return
	}
	c.revoked = true
	c.log.Info("session revoked", "reason", reason)
	if c.started {
		c.askForLogout()
	}
}

// askForLogout is revoke's second half. The mutex is held.
func (c *conn) askForLogout() {
	r := c.newReply()
	r.h.SetOpcode(wire.OpAsync)
	r.h[1] = wire.Final
	r.h.Put32(wire.ITT, wire.Reserved)
	r.h[36] = 1 // the target asks for a logout
	seconds := uint32((c.srv.opt.LogoutTimeout + time.Second - 1) / time.Second)
	r.h[44], r.h[45] = byte(seconds>>8), byte(seconds)
	r.status = true
	c.pending.push(r)
	c.wakeWriter()
	go c.nexus.Close()
	time.AfterFunc(c.srv.opt.LogoutTimeout, func() { c.stop(errors.New("the initiator did not log out in time")) })
}

// look is the clock of a connection: each progress timeout it sees to those who
// owe something.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.hungUp {
		return
	}
	stalls := false
	c.tasks.each(func(t *task) {
		if t.state == collecting {
			stalls = stalls || t.seen == t.got+1
			t.seen = t.got + 1
		}
	})
	silent := !c.heard.Swap(false)
	switch {
	case stalls, silent && c.pinged:
		c.log.Warn("the initiator owes data or an answer, and nothing came", "for", c.srv.opt.ProgressTimeout)
		c.hungUp = true
		c.room.Broadcast()
		c.cancel()
		c.sock.HangUp()
		return
	case silent:
		c.pinged = true
		r := c.newReply()
		r.h.SetOpcode(wire.OpNopIn)
		r.h[1] = wire.Final
		r.h.Put32(wire.ITT, wire.Reserved)
		r.h.Put32(wire.TTT, c.takeTTT())
		c.pending.push(r)
		c.wakeWriter()
	default:
		c.pinged = false
	}
	c.tick.Reset(c.srv.opt.ProgressTimeout)
}

// takeTTT makes a target transfer tag. The mutex is held.
func (c *conn) takeTTT() uint32 {
	if c.nextTTT++; c.nextTTT == wire.Reserved {
		c.nextTTT = 1
	}
	return c.nextTTT
}

// complain logs an error of the initiator's, within reason.
func (c *conn) complain(what string, args ...any) {
	switch n := c.complaints.Add(1); {
	case n > maxComplaints:
	case n == maxComplaints:
		c.log.Warn("many errors, the rest is not logged")
	default:
		c.log.Warn(what, args...)
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
