package mirror

import (
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/snapshot"
)

// Copy-on-write. Whatever writes to the store, the applier or a resync, has what it
// overwrites preserved first, durably, by everything that keeps an image of the
// store: the undo of the resync under way (undo.go) and the snapshots (snapshots.go).
// Each has a file of its own, and stands and falls alone.

// keepers are what keeps an image. A value is never changed, another one takes its
// place; nil, while there are none, is all that the applier looks at.
type keepers struct {
	undo  *snapshot.Snapshot // nil without one
	snaps []*keptSnapshot    // those that are whole
}

// undo is that of the resync under way, nil without one.
func (v *Volume) undo() *snapshot.Snapshot {
	if k := v.keepers.Load(); k != nil {
		return k.undo
	}
	return nil
}

// keep changes what keeps an image. What is added has the image of the store as it
// is, so that v.apply is held and no resync writes; what is taken away may still be
// asked to preserve something, once.
func (v *Volume) keep(change func(*keepers)) {
	v.keepMu.Lock()
	defer v.keepMu.Unlock()
	var next keepers
	if old := v.keepers.Load(); old != nil {
		next = *old
	}
	if change(&next); next.undo == nil && len(next.snaps) == 0 {
		v.keepers.Store(nil)
		return
	}
	v.keepers.Store(&next)
}

// preserve keeps what the store holds in those ranges. Once it has returned nil they
// may be overwritten.
func (v *Volume) preserve(ranges []snapshot.Range) error {
	k := v.keepers.Load()
	if k == nil {
		return nil
	}
	if k.undo != nil {
		if err := v.preserveUndo(k.undo, ranges); err != nil {
			return err
		}
	}
	for _, s := range k.snaps {
		if err := v.preserveIn(s, ranges); err != nil {
			return err
		}
	}
	return nil
}

// preserveUndo keeps them for a resync to be rolled back.
func (v *Volume) preserveUndo(undo *snapshot.Snapshot, ranges []snapshot.Range) error {
	err := undo.Preserve(v.store, ranges)
	switch {
	case err == nil:
		if v.undoProblem.Load() != nil {
			v.undoProblem.Store(nil)
		}
		return nil
	case errors.Is(err, snapshot.ErrFull):
		v.haltResync(v.undoIsFull(err))
	case errors.Is(err, snapshot.ErrFailed):
		v.fault(err)
	default:
		v.faultStore(err)
	}
	return err
}

// preserveIn keeps them for a snapshot. The volume goes on whatever becomes of that:
// one that cannot keep them is lost, which is durable before they are overwritten.
//
// But a losing side that is not overwritten yet is not lost so: the resync that does
// it waits until there is room, or the disk is mended, or an operator deletes it.
func (v *Volume) preserveIn(s *keptSnapshot, ranges []snapshot.Range) error {
	err := s.file.Preserve(v.store, ranges)
	switch {
	case err == nil, errors.Is(err, snapshot.ErrClosed): // deleted, or lost, meanwhile
		return nil
	case v.settling(s.id):
		v.haltResync(v.losingIsFull(s, err))
		return fmt.Errorf("%w: %w", snapshot.ErrFull, err) // the applier waits
	}
	return v.loseSnapshot(s, err)
}
