package nbd

import (
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A stream is a connection's socket during transmission. One goroutine at a
// time reads, one at a time writes; the rest may be called concurrently, until
// close.
type stream interface {
	// read returns once there is something. When due, the client owes the bytes
	// and has the progress timeout for them; otherwise it may take for ever.
	read(p []byte, due bool) (int, error)
	// tryRead reads what is there, if anything, without waiting. Errors are left
	// to read.
	tryRead(p []byte) int
	// writev writes all parts, which it may change. The client has the progress
	// timeout to make room.
	writev(parts [][]byte) error
	// trySend writes what the socket takes without waiting for the client, and
	// returns the parts that are left. It changes parts.
	trySend(parts [][]byte) (rest [][]byte, err error)
	// stopReading makes a read that waits, and all later ones, fail.
	stopReading()
	// hangUp makes everything fail.
	hangUp()
	// close waits a moment until the client's host has everything that was
	// written, and frees the socket.
	close()
}

// plainStream leaves all waiting to the runtime. It serves whatever net.Conn
// is not a socket, and hosts on which no better is known.
type plainStream struct {
	net.Conn
	limit   time.Duration
	stopped atomic.Bool
	bufs    net.Buffers
}

func (s *plainStream) read(p []byte, due bool) (int, error) {
	if due {
		s.SetReadDeadline(time.Now().Add(s.limit))
		defer s.SetReadDeadline(time.Time{})
	}
	if s.stopped.Load() { // its deadline may have been overwritten
		return 0, os.ErrDeadlineExceeded
	}
	return s.Read(p)
}

// tryRead finds nothing: the runtime's read only waits.
func (s *plainStream) tryRead([]byte) int { return 0 }

func (s *plainStream) writev(parts [][]byte) error {
	s.SetWriteDeadline(time.Now().Add(s.limit))
	s.bufs = parts
	_, err := s.bufs.WriteTo(s.Conn)
	return err
}

// trySend waits: the runtime's write has no other form.
func (s *plainStream) trySend(parts [][]byte) ([][]byte, error) {
	return nil, s.writev(parts)
}

func (s *plainStream) stopReading() {
	s.stopped.Store(true)
	s.SetReadDeadline(time.Unix(1, 0))
}

func (s *plainStream) hangUp() { s.Conn.Close() }
func (s *plainStream) close()  { s.Conn.Close() }
