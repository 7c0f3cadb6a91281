package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/lockstep-storage/lockstep/target"
)

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("nbd: the server is shut down")

// Server serves the exports of a table. Its methods may be called concurrently.
type Server struct {
	exports *target.Exports
	opt     Options
	log     *slog.Logger
	memory  *semaphore.Weighted // payload bytes of all connections

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	lastConn  uint64
	closing   bool
	running   sync.WaitGroup // connections; Add under mu while not closing
}

// NewServer makes a server of the exports. It fails if the options make no
// sense.
func NewServer(exports *target.Exports, opt Options) (*Server, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	return &Server{
		exports:   exports,
		opt:       opt,
		log:       opt.Log,
		memory:    semaphore.NewWeighted(opt.MaxMemory),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
	}, nil
}

// Serve accepts connections until the listener fails, and returns why, or until
// Shutdown, and returns ErrServerClosed. It closes the listener. It may be
// called for several listeners.
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
			return fmt.Errorf("nbd: accept on %s: %w", l.Addr(), err)
		default: // out of file descriptors, or a client that left at once
			pause = min(max(2*pause, 5*time.Millisecond), slowest)
			s.log.Warn("accept failed, trying again", "address", l.Addr().String(), "pause", pause, "error", err)
			time.Sleep(pause)
		}
	}
}

// ServeConn serves one client and returns when its connection is over and all
// its requests are finished.
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

// Shutdown stops listening, lets the requests in flight finish, answers them,
// and closes every connection. When ctx ends first the sockets are closed at
// once and ctx's error is returned, without waiting for the devices.
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
	return fmt.Errorf("nbd: shut down with %d connections open: %w", len(s.conns), ctx.Err())
}

// Stats is what a server has in hand at a moment.
type Stats struct {
	Connections int
	Requests    int   // in flight
	Bytes       int64 // of payload memory in flight
}

// Stats counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Connections: len(s.conns)}
	for c := range s.conns {
		c.mu.Lock()
		st.Requests += c.inFlight
		st.Bytes += c.bytes
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
		return nil, fmt.Errorf("nbd: %d clients are connected, as many as may be", len(s.conns))
	}
	s.lastConn++
	c := newConn(s, nc, s.lastConn, cancel)
	s.conns[c] = struct{}{}
	s.running.Add(1)
	return c, nil
}

func (s *Server) end(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.running.Done()
}
