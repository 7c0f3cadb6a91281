package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/lockstep-storage/lockstep/snapshot"
)

// The undo of a bitmap resync is a snapshot of the store as it was before
// (replication.md 7). While it exists, whatever writes to the store preserves what
// it overwrites first: the resync's blocks and the applier's records alike.
//
//	The store, with what the undo preserves written over it, is the image that the
//	replica had at the undo's base: every record up to there, and no later one.
//
// The superblock names the undo from before the first such write until the replica
// is UpToDate or rolled back. A file that it does not name is of no use.
const undoName = "resync.undo"

// UndoOff, as Options.ResyncUndo: a resync keeps no undo.
const UndoOff = -1

// An undoNote is what an undo's file says of its image.
type undoNote struct {
	base Position
	crc  uint32 // of the record at base, to which the next one is chained
}

func (n undoNote) encode() []byte {
	return le.AppendUint32(appendPosition(nil, n.base), n.crc)
}

func decodeUndoNote(b []byte) (undoNote, error) {
	r := fieldReader{b: b}
	n := undoNote{base: r.position(), crc: r.u32()}
	return n, r.end()
}

// beginUndo begins an undo whose image is the store as it is, with every record up
// to base. It returns the zero ID if there is to be none: by the operator's word,
// or because the replica is empty.
func (v *Volume) beginUndo(base LSN) (ID, error) {
	if v.opts.ResyncUndo == UndoOff || base == 0 {
		return ID{}, nil
	}
	crc, err := v.journal.CRCOf(base)
	if err != nil {
		return ID{}, fmt.Errorf("begin the undo of a resync at LSN %d: %w", base, err)
	}
	id, err := NewID(nil)
	if err != nil {
		return ID{}, err
	}
	v.mu.Lock()
	note := undoNote{v.super.History.Position(base), crc}
	v.mu.Unlock()
	v.undoFile.Lock()
	defer v.undoFile.Unlock()
	if old := v.swapUndo(nil); old != nil { // of a resync that did not come to begin
		_ = old.Close()
	}
	if err := snapshot.Remove(v.opts.FS, undoName); err != nil {
		return ID{}, err
	}
	info := snapshot.Info{ID: snapshot.ID(id), Size: v.store.Size(), Created: time.Now(), Note: note.encode()}
	s, err := snapshot.Create(v.opts.FS, undoName, info, v.opts.ResyncUndo)
	if isNoSpace(err) {
		return ID{}, &refusal{CodeDisconnected, v.undoIsFull(err)}
	}
	if err != nil {
		return ID{}, err
	}
	v.swapUndo(s)
	return id, nil
}

// swapUndo puts an undo, or none, into the place of the one in force.
func (v *Volume) swapUndo(s *snapshot.Snapshot) *snapshot.Snapshot {
	v.apply.Lock() // no round of the applier is in the middle of using it
	defer v.apply.Unlock()
	old := v.undo()
	v.setUndo(s)
	return old
}

// setUndo: v.apply is held, or nobody else is here.
func (v *Volume) setUndo(s *snapshot.Snapshot) { v.keep(func(k *keepers) { k.undo = s }) }

// openUndo finds the undo of a resync that was interrupted. One that cannot be read
// is set aside: the resync goes on, and there is no way back from it.
func (v *Volume) openUndo() error {
	dir, mark := v.opts.FS, v.super.Resync
	f, err := dir.Open(undoName)
	switch {
	case errors.Is(err, fs.ErrNotExist) && (mark == nil || mark.Undo.IsZero()):
		return nil
	case err == nil:
		if err := f.Close(); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open the undo of a resync: %w", err)
	}
	switch {
	case mark == nil || mark.Undo.IsZero(): // its resync is over, or never began
		return snapshot.Remove(dir, undoName)
	case v.opts.ResyncUndo == UndoOff && !mark.RollingBack:
		v.log.Warn("resync-undo is off: the undo of the resync that is under way is given up, and there is no way back from it")
		return errors.Join(v.forgetUndo(), snapshot.Remove(dir, undoName))
	}
	limit := max(v.opts.ResyncUndo, 0)
	s, err := snapshot.Open(dir, undoName, v.super.Size, limit)
	if err == nil && ID(s.Info().ID) != mark.Undo {
		err = errors.Join(fmt.Errorf("%w: it is undo %v, and the superblock names %v", snapshot.ErrMismatch, ID(s.Info().ID), mark.Undo), s.Close())
	}
	if err == nil {
		if _, noteErr := decodeUndoNote(s.Info().Note); noteErr != nil {
			err = errors.Join(fmt.Errorf("%w: its note: %w", snapshot.ErrDamaged, noteErr), s.Close())
		}
	}
	switch {
	case err == nil:
		v.setUndo(s)
		return nil
	case errors.Is(err, snapshot.ErrDamaged), errors.Is(err, snapshot.ErrMismatch), errors.Is(err, fs.ErrNotExist):
		v.log.Error("the undo of the resync is lost: the replica is Inconsistent until a resync is through, and cannot be rolled back", "error", err)
		if err := v.forgetUndo(); err != nil {
			return err
		}
		if err := dir.Rename(undoName, undoName+brokenSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the unreadable undo aside: %w", err)
		}
		return nil
	}
	return fmt.Errorf("open the undo of a resync: %w", err)
}

// forgetUndo: the superblock names no undo any more.
func (v *Volume) forgetUndo() error {
	return v.commitSuper(func(sb *Superblock) {
		mark := *sb.Resync
		mark.Undo, mark.RollingBack = ID{}, false
		sb.Resync = &mark
	})
}

// reserveKeepers takes the space that a resync of so many bytes may need to keep what it
// overwrites: no more than the store holds data. What clients write to other blocks
// meanwhile comes on top.
func (v *Volume) reserveKeepers(bytes int64) error {
	k := v.keepers.Load()
	if k == nil {
		return nil
	}
	data := int64(0)
	err := v.store.Extents(0, v.store.Size(), func(_, n int64, isData bool) error {
		if isData {
			data += n
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look how much data the store holds: %w", err)
	}
	most := min(bytes, data)
	for _, s := range k.snaps {
		if !v.settling(s.id) {
			continue
		}
		if err := s.file.Reserve(max(0, most-s.file.Preserved())); err != nil {
			v.haltResync(v.losingIsFull(s, err))
			return err
		}
	}
	if k.undo == nil {
		return nil
	}
	err = k.undo.Reserve(max(0, most-k.undo.Preserved()))
	switch {
	case errors.Is(err, snapshot.ErrFull):
		v.haltResync(v.undoIsFull(err))
	case err != nil:
		v.fault(err)
	}
	return err
}

// undoIsFull says, for people, why a resync pauses and what to do.
func (v *Volume) undoIsFull(err error) string {
	return fmt.Sprintf("the resync is paused, for what it overwrites could not be kept (%v): make room in %v and run 'lockstep connect %s'; or raise resync-undo, "+
		"or set it to off and so give up the way back, and restart this daemon", err, v.opts.FS, v.opts.Volume)
}

// haltResync ends the session with the source until an operator has made room:
// nothing is overwritten that could not be taken back (P3).
func (v *Volume) haltResync(sentence string) {
	if old := v.undoProblem.Swap(&sentence); old == nil {
		v.log.Error(sentence)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range v.peers {
		if l := p.link; l != nil && l.target.resync != nil {
			p.standAlone()
			p.problem = sentence
			p.closeLink(CodeDisconnected, sentence)
		}
	}
}

// endUndo removes the undo once the superblock does not name it any more. Nobody waits
// until it is removed, which takes long where it is large: neither the Primary, to which
// the replica has to say that it may join, nor an acknowledgement.
func (v *Volume) endUndo() {
	s := v.swapUndo(nil)
	v.undoProblem.Store(nil)
	if s == nil {
		return
	}
	v.undoFile.Lock()
	v.wg.Go(func() {
		defer v.undoFile.Unlock()
		if err := s.Discard(); err != nil {
			v.log.Warn("the undo of the resync could not be removed; the next start does", "error", err)
		}
	})
}

// undoStatus: v.mu is held.
func (v *Volume) undoStatus() *UndoStatus {
	u, mark := v.undo(), v.super.Resync
	if u == nil || mark == nil || mark.Undo.IsZero() {
		return nil
	}
	note, _ := decodeUndoNote(u.Info().Note) // it was read before
	s := &UndoStatus{Base: note.base, Began: u.Info().Created, Preserved: u.Preserved(), Used: u.Used(),
		Limit: max(v.opts.ResyncUndo, 0), RollingBack: mark.RollingBack}
	if p := v.undoProblem.Load(); p != nil {
		s.Problem = *p
	}
	return s
}
