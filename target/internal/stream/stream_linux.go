package stream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lingerTime is how long a closing connection waits for the client's host to
// acknowledge the last replies. A close with unread requests in the buffer
// resets the connection, and replies still under way would be lost.
const lingerTime = time.Second

// maxVector is the most parts of one system call (IOV_MAX).
const maxVector = 1024

// socketStream is a socket in blocking mode, outside the runtime's poller: who
// reads or writes waits in the kernel, on a thread of his own. By way of the
// poller every arrival wakes a second thread, which at queue depth 1 took more
// than a third of the rate away. The price is a thread for each connection.
type socketStream struct {
	fd int

	// The one writer's.
	iov []unix.Iovec
	msg unix.Msghdr

	mu     sync.Mutex // guards fd against use after close, by those who hang up
	closed bool
}

// Open takes nc's socket over; nc must not be used any more.
func Open(nc net.Conn, limit time.Duration) (Stream, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return &plainStream{Conn: nc, limit: limit}, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("stream: take over a socket: %w", err)
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return nil, fmt.Errorf("stream: take over a socket: %w", err)
	}
	nc.Close() // takes it out of the runtime's poller; the duplicate lives on
	tv := unix.NsecToTimeval(limit.Nanoseconds())
	err = errors.Join(
		unix.SetNonblock(fd, false),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
	)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("stream: prepare a socket: %w", err)
	}
	return &socketStream{fd: fd}, nil
}

func (s *socketStream) Read(p []byte, due bool) (int, error) {
	for {
		n, err := unix.Read(s.fd, p)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case err == unix.EINTR:
		case err == unix.EAGAIN && !due: // the time limit, and the client may be idle
		case err == unix.EAGAIN:
			return 0, os.ErrDeadlineExceeded
		default:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

func (s *socketStream) TryRead(p []byte) int {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (s *socketStream) Writev(parts [][]byte) error {
	for len(parts) > 0 {
		n, err := s.writeSome(parts)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return os.ErrDeadlineExceeded
		default:
			return os.NewSyscallError("writev", err)
		}
		parts = skipBytes(parts, n)
	}
	return nil
}

// skipBytes takes the first n bytes off parts.
func skipBytes(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		n -= len(parts[0])
		parts = parts[1:]
	}
	if n > 0 {
		parts[0] = parts[0][n:]
	}
	return parts
}

func (s *socketStream) TrySend(parts [][]byte) ([][]byte, error) {
	for len(parts) > 0 {
		n, err := s.send(parts)
		switch err {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return parts, nil
		default:
			return parts, os.NewSyscallError("sendmsg", err)
		}
		parts = skipBytes(parts, n)
	}
	return nil, nil
}

// send is sendmsg without waiting. It is the raw call: the wrapper of x/sys
// would allocate the vector each time.
func (s *socketStream) send(parts [][]byte) (int, unix.Errno) {
	s.iov = s.iov[:0]
	for _, p := range parts[:min(len(parts), maxVector)] {
		v := unix.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		s.iov = append(s.iov, v)
	}
	s.msg = unix.Msghdr{Iov: &s.iov[0]}
	s.msg.SetIovlen(len(s.iov))
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	clear(s.iov) // payloads go back to their pool
	return int(n), errno
}

func (s *socketStream) writeSome(parts [][]byte) (int, error) {
	if len(parts) == 1 {
		return unix.Write(s.fd, parts[0])
	}
	return unix.Writev(s.fd, parts[:min(len(parts), maxVector)])
}

func (s *socketStream) StopReading() { s.shutdown(unix.SHUT_RD) }
func (s *socketStream) HangUp()      { s.shutdown(unix.SHUT_RDWR) }

func (s *socketStream) shutdown(how int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		unix.Shutdown(s.fd, how) // fails if the client is gone, which is as good
	}
}

func (s *socketStream) Close() {
	const pause = 2 * time.Millisecond
	for waited := time.Duration(0); waited < lingerTime && s.unsent() > 0; waited += pause {
		time.Sleep(pause)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	unix.Close(s.fd)
}

// unsent counts the bytes that the client's host has not acknowledged.
func (s *socketStream) unsent() int {
	n, err := unix.IoctlGetInt(s.fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}
