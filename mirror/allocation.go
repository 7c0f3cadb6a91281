package mirror

import (
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/block"
)

// lookAhead is how much of the volume a look into the pending index covers at
// most, in bytes: its lock is held meanwhile.
const lookAhead = 64 << 20

// A pendingLook is what the pending index says of a piece of the volume.
type pendingLook struct {
	parts []pendingPart
	room  [64]pendingPart
}

type pendingPart struct {
	off, end int64
	holds    block.Allocation
}

// look finds what is pending from off on, and how far it looked, end at most.
func (p *pending) look(l *pendingLook, off, end int64) (upTo int64) {
	l.parts = l.room[:0]
	if p.n.Load() == 0 {
		return end
	}
	upTo = min(end, off+lookAhead)
	p.mu.RLock()
	defer p.mu.RUnlock()
	p.x.overlapping(off, upTo, func(e extent) bool {
		if len(l.parts) == len(l.room) {
			upTo = e.off
			return false
		}
		e = e.cut(off, upTo)
		l.parts = append(l.parts, pendingPart{e.off, e.end, e.holds()})
		return true
	})
	return upTo
}

// holds is what the backing store will have of the extent.
func (e *extent) holds() block.Allocation {
	switch {
	case !e.zeroes():
		return 0
	case e.keep:
		return block.Zero
	}
	return block.Hole | block.Zero
}

// Extents implements block.Sparse: what is pending, and between it the backing
// store's holes. The index is asked before the store, as for a read: a record
// leaves it only after the store has it. Where the store is not read, on a
// diskless Primary and after its failure, all may be data.
func (s *session) Extents(off, n int64, yield func(off, n int64, a block.Allocation) bool) error {
	if err := s.check(off, n); err != nil {
		return err
	}
	var l pendingLook
	for end := off + n; off < end; {
		upTo := s.v.pending.look(&l, off, end)
		for _, p := range l.parts {
			more, err := s.storeExtents(off, p.off, yield)
			if !more || err != nil {
				return err
			}
			if !yield(p.off, p.end-p.off, p.holds) {
				return nil
			}
			off = p.end
		}
		more, err := s.storeExtents(off, upTo, yield)
		if !more || err != nil {
			return err
		}
		off = upTo
	}
	return s.check(off, 0) // what was pending may have been dropped meanwhile
}

// storeExtents reports what the backing store has of a range, until yield says
// that it is enough.
func (s *session) storeExtents(off, end int64, yield func(off, n int64, a block.Allocation) bool) (more bool, err error) {
	fromStore := func() bool { return s.v.readFrom.Load() == fromStore }
	switch {
	case off == end:
		return true, nil
	case !fromStore():
		return yield(off, end-off, 0), nil
	}
	err = s.v.store.Extents(off, end-off, func(off, n int64, data bool) error {
		a := block.Hole | block.Zero
		if data || !fromStore() { // by now
			a = 0
		}
		if !yield(off, n, a) {
			return errStop
		}
		return nil
	})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errStop):
		return false, nil
	}
	if over := s.check(off, 0); over != nil {
		return false, over
	}
	return false, fmt.Errorf("look for holes in the backing store: %w", err)
}
