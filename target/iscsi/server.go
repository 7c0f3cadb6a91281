package iscsi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lockstep-storage/lockstep/target"
)

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("iscsi: the server is shut down")

// Server is an iSCSI target node. Its methods may be called concurrently.
type Server struct {
	exports *target.Exports
	opt     Options
	log     *slog.Logger
	memory  memory

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	targets   map[string]*tgt
	conns     map[*conn]struct{}
	lastConn  uint64
	lastTSIH  uint16
	closing   bool
	running   sync.WaitGroup // connections; Add under mu while not closing
}

// NewServer makes a server that can offer the exports of a table; AddTarget says
// which. It fails if the options make no sense.
func NewServer(exports *target.Exports, opt Options) (*Server, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		exports:   exports,
		opt:       opt,
		log:       opt.Log,
		listeners: make(map[net.Listener]struct{}),
		targets:   make(map[string]*tgt),
		conns:     make(map[*conn]struct{}),
	}
	s.memory.free = opt.MaxMemory
	return s, nil
}

// Serve accepts connections until the listener fails, and returns why, or until
// Shutdown, and returns ErrServerClosed. It closes the listener, a portal, of
// which there may be several.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.listen(l) {
		return ErrServerClosed
	}
	defer s.unlisten(l)
	const slowest = time.Second
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			go s.ServeConn(nc)
		case s.isClosing():
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("iscsi: accept on %s: %w", l.Addr(), err)
		default: // out of file descriptors, or a client that left at once
			pause = min(max(2*pause, 5*time.Millisecond), slowest)
			s.log.Warn("accept failed, trying again", "address", l.Addr().String(), "pause", pause, "error", err)
			time.Sleep(pause)
		}
	}
}

// ServeConn serves one connection and returns when it is over and all its
// commands have ended.
func (s *Server) ServeConn(nc net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := s.begin(nc, cancel)
	if err != nil {
		s.log.Warn("connection refused", "remote", nc.RemoteAddr().String(), "error", err)
		nc.Close()
		return
	}
	defer s.end(c)
	c.serve(ctx)
}

// Shutdown stops listening, lets the commands that have begun end, answers them,
// and closes every connection. When ctx ends first the sockets are closed at once
// and ctx's error is returned, without waiting for the devices.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.stop(ErrServerClosed)
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.hangUp()
	}
	return fmt.Errorf("iscsi: shut down with %d connections open: %w", len(s.conns), ctx.Err())
}

// Close is Shutdown without a time limit.
func (s *Server) Close() error { return s.Shutdown(context.Background()) }

// Stats is what a server has in hand at a moment.
type Stats struct {
	Connections int
	Commands    int   // in flight
	Bytes       int64 // of memory, what sessions reserve included
}

// Stats counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Connections: len(s.conns), Bytes: s.opt.MaxMemory - s.memory.left()}
	for c := range s.conns {
		c.mu.Lock()
		st.Commands += c.inFlight
		c.mu.Unlock()
	}
	return st
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.listeners[l] = struct{}{}
	}
	return !s.closing
}

func (s *Server) unlisten(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) begin(nc net.Conn, cancel context.CancelFunc) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return nil, ErrServerClosed
	case len(s.conns) >= s.opt.MaxConnections:
		return nil, fmt.Errorf("iscsi: %d initiators are connected, as many as may be", len(s.conns))
	}
	s.lastConn++
	c := newConn(s, nc, cancel)
	s.conns[c] = struct{}{}
	s.running.Add(1)
	return c, nil
}

func (s *Server) end(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	if c.target != nil {
		delete(c.target.sessions, c)
	}
	s.mu.Unlock()
	close(c.ended)
	s.running.Done()
}
