package nbd

import (
	"errors"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// errno is the protocol's word for a device's error ("Error values").
func errno(err error) uint32 {
	switch {
	case err == nil:
		return wire.OK
	case errors.Is(err, block.ErrReadOnly):
		return wire.EPERM
	case errors.Is(err, block.ErrNoSpace):
		return wire.ENOSPC
	case errors.Is(err, block.ErrOutOfRange):
		return wire.EINVAL
	case sessionOver(err):
		return wire.ESHUTDOWN
	}
	return wire.EIO
}

// sessionOver reports whether no request can succeed after this error.
func sessionOver(err error) bool {
	return errors.Is(err, block.ErrNotServing) || errors.Is(err, block.ErrSessionClosed)
}
