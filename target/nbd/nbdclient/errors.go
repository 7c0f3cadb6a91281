package nbdclient

import (
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

var (
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("nbdclient: the client is closed")
	// ErrRefused: the server refused what the handshake asked for. The error
	// that wraps it has the server's own words.
	ErrRefused = errors.New("refused by the server")
)

// Errno is an error value of the protocol ("Error values").
type Errno uint32

// The protocol's error values.
const (
	EPERM     = Errno(wire.EPERM)
	EIO       = Errno(wire.EIO)
	ENOMEM    = Errno(wire.ENOMEM)
	EINVAL    = Errno(wire.EINVAL)
	ENOSPC    = Errno(wire.ENOSPC)
	EOVERFLOW = Errno(wire.EOVERFLOW)
	ENOTSUP   = Errno(wire.ENOTSUP)
	ESHUTDOWN = Errno(wire.ESHUTDOWN)
)

func (e Errno) Error() string { return wire.ErrnoName(uint32(e)) }

// Error is a request that the server answered with an error.
type Error struct {
	Op    string // "read", "write", …
	Off   int64  // bytes
	Len   int64  // bytes
	Errno Errno  // errors.Is(err, nbdclient.ENOSPC) finds it
}

func (e *Error) Error() string {
	return fmt.Sprintf("nbdclient: %s of %d bytes at %d: the server answers %v", e.Op, e.Len, e.Off, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }
