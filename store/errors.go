package store

import (
	"errors"
	"fmt"
	"sync"

	"github.com/lockstep-storage/lockstep/block"
)

var (
	// ErrFailed: a sync failed, now or earlier. Nothing that was not synced
	// before it may be believed, and asking again proves nothing (invariant 9).
	ErrFailed = errors.New("store has failed")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrInUse: somebody else has the file or the device open as a store, or
	// mounted.
	ErrInUse = errors.New("in use by another program, or by another volume")
)

// checkRange refuses what does not lie within a store of size bytes.
func checkRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size-n {
		return fmt.Errorf("%w: %d bytes at offset %d of a store of %d bytes", block.ErrOutOfRange, n, off, size)
	}
	return nil
}

func vectorLen(bufs [][]byte) (n int64) {
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}

// A latch lets syncs through until one fails. They come one at a time: the
// kernel reports a failed write-back to one of several syncs at once, and the
// others must not return before its failure is noted.
type latch struct {
	mu     sync.Mutex
	failed error
}

func (l *latch) sync(sync func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		if err := sync(); err != nil {
			l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		}
	}
	return l.failed
}

// fail lets no sync through any more. It waits for the one that runs.
func (l *latch) fail(err error) error {
	return l.sync(func() error { return err })
}
