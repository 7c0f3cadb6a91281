package snapshot

import (
	"errors"
	"fmt"
	"syscall"
)

// Errors of Open, Check and of whatever reads a preserved block. Those that wrap
// them say where in which file and what was found.
var (
	// ErrDamaged: something of the file is not as it was written. What is lost is
	// lost from the image.
	ErrDamaged = errors.New("snapshot is damaged")
	// ErrVersion: a newer Lockstep wrote the file.
	ErrVersion = errors.New("snapshot has an unknown format version")
	// ErrMismatch: it is a snapshot of a volume of another size.
	ErrMismatch = errors.New("snapshot is that of something else")
)

// Errors of Preserve and Reserve.
var (
	// ErrFull: the snapshot has reached its limit, or its disk is full. It is
	// also syscall.ENOSPC. Nothing was changed, and nothing may be overwritten.
	ErrFull = fmt.Errorf("snapshot is full: %w", syscall.ENOSPC)
	// ErrFailed: a write or a sync failed, now or earlier, which is final.
	ErrFailed = errors.New("snapshot has failed")
	ErrClosed = errors.New("snapshot is closed")
)
