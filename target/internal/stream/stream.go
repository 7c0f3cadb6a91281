package stream

import (
	"bufio"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A Stream is a connection's socket. One goroutine at a
// time reads, one at a time writes; the rest may be called concurrently, until
// Close.
type Stream interface {
	// Read returns once there is something. When due, the client owes the bytes
	// and has the progress timeout for them; otherwise it may take for ever.
	Read(p []byte, due bool) (int, error)
	// TryRead reads what is there, if anything, without waiting. Errors are left
	// to Read.
	TryRead(p []byte) int
	// Writev writes all parts, which it may change. The client has the progress
	// timeout to make room.
	Writev(parts [][]byte) error
	// TrySend writes what the socket takes without waiting for the client, and
	// returns the parts that are left. It changes parts.
	TrySend(parts [][]byte) (rest [][]byte, err error)
	// StopReading makes a read that waits, and all later ones, fail.
	StopReading()
	// HangUp makes everything fail.
	HangUp()
	// Close waits a moment until the client's host has everything that was
	// written, and frees the socket.
	Close()
}

// plainStream leaves all waiting to the runtime. It serves whatever net.Conn
// is not a socket, and hosts on which no better is known.
type plainStream struct {
	net.Conn
	limit   time.Duration
	stopped atomic.Bool
	out     *bufio.Writer
}

// gatherSize is how much a plainStream gathers for one write, bytes.
const gatherSize = 64 << 10

func (s *plainStream) Read(p []byte, due bool) (int, error) {
	if due {
		s.SetReadDeadline(time.Now().Add(s.limit))
		defer s.SetReadDeadline(time.Time{})
	}
	if s.stopped.Load() { // its deadline may have been overwritten
		return 0, os.ErrDeadlineExceeded
	}
	return s.Conn.Read(p)
}

// TryRead finds nothing: the runtime's read only waits.
func (s *plainStream) TryRead([]byte) int { return 0 }

// Writev gathers the parts: each write may cost as much as a record of TLS does.
func (s *plainStream) Writev(parts [][]byte) error {
	s.SetWriteDeadline(time.Now().Add(s.limit))
	if s.out == nil {
		s.out = bufio.NewWriterSize(s.Conn, gatherSize)
	}
	for _, p := range parts {
		if _, err := s.out.Write(p); err != nil {
			return err
		}
	}
	return s.out.Flush()
}

// TrySend waits: the runtime's write has no other form.
func (s *plainStream) TrySend(parts [][]byte) ([][]byte, error) {
	return nil, s.Writev(parts)
}

func (s *plainStream) StopReading() {
	s.stopped.Store(true)
	s.SetReadDeadline(time.Unix(1, 0))
}

func (s *plainStream) HangUp() { s.Conn.Close() }
func (s *plainStream) Close()  { s.Conn.Close() }
