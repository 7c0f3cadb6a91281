package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A RollbackPlan is what Rollback finds, and would do.
type RollbackPlan struct {
	Volume string    `json:"volume"`
	Node   string    `json:"node"`
	Size   int64     `json:"size"` // of the volume, bytes
	Disk   DiskState `json:"disk"`
	// Base is the record that the replica goes back to, and Began when the resync
	// did that has overwritten it since.
	Base  Position  `json:"base"`
	Began time.Time `json:"began,omitzero"`
	// Restores is how many bytes of the volume are written back.
	Restores int64 `json:"restores"`
	// Source is the node that the resync copies from.
	Source string `json:"source,omitempty"`
	// Refused says why nothing can be done; "" if it can.
	Refused string `json:"refused,omitempty"`
}

// A RollbackRefusedError is why a replica is not rolled back. Nothing was changed.
type RollbackRefusedError struct{ Plan RollbackPlan }

func (e *RollbackRefusedError) Error() string {
	return fmt.Sprintf("volume %q on node %q is not rolled back: %s", e.Plan.Volume, e.Plan.Node, e.Plan.Refused)
}

// PlanRollback says what Rollback would do, and does nothing of it. Its error is a
// *RollbackRefusedError if that is nothing.
func (v *Volume) PlanRollback() (RollbackPlan, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.planRollback()
}

// planRollback: v.mu is held.
func (v *Volume) planRollback() (RollbackPlan, error) {
	sb := &v.super
	p := RollbackPlan{Volume: sb.Name, Node: sb.Node, Size: sb.Size, Disk: v.disk()}
	if sb.Resync != nil {
		p.Source = sb.Resync.Source
	}
	undo := v.undo()
	if undo != nil {
		note, _ := decodeUndoNote(undo.Info().Note) // openUndo read it
		p.Base, p.Began, p.Restores = note.base, undo.Info().Created, undo.Preserved()
	}
	switch {
	case v.closing:
		p.Refused = errClosed.Error()
	case v.failure != nil:
		p.Refused = v.failure.Error()
	case sb.Resync == nil:
		p.Refused = "no resync is under way here, so there is nothing to go back from"
	case sb.Resync.JournalLost:
		p.Refused = "its journal was lost, and what its store held before the resync was no image of the volume"
	case sb.Resync.Undo.IsZero() || undo == nil:
		p.Refused = "the resync has no undo: it was begun with resync-undo off, or on an empty replica, or its undo was lost"
	}
	if p.Refused != "" {
		return p, &RollbackRefusedError{p}
	}
	return p, nil
}

// Rollback takes a replica that is in the middle of a bitmap resync back to the
// image that it had before, at the resync's base (replication.md 7): an operator's
// act, for when the source does not come back. The replica is Outdated then, under a
// new incarnation, and may be promoted with force. Its connections are closed, and
// stay so until Connect: else the next Primary that it meets resyncs it again.
//
// It returns a *RollbackRefusedError, and has changed nothing, if there is nothing
// to go back to. Once it has begun, it is only ever finished: a crash, or an error,
// leaves a replica that the next start, or Rollback again, rolls back.
func (v *Volume) Rollback(ctx context.Context) (RollbackPlan, error) {
	v.change.Lock()
	defer v.change.Unlock()
	v.mu.Lock()
	plan, err := v.planRollback()
	v.mu.Unlock()
	if err != nil {
		return plan, err
	}
	fail := func(err error) (RollbackPlan, error) {
		return plan, fmt.Errorf("roll volume %q back: %w", v.opts.Volume, err)
	}
	// What is damaged has to be known before the first block is written back.
	if err := v.undo().Verify(); err != nil {
		return fail(err)
	}
	v.closeLinks()
	if err := v.awaitLinksGone(ctx); err != nil {
		return fail(err)
	}
	v.tail.Lock()
	defer v.tail.Unlock()
	v.apply.Lock()
	defer v.apply.Unlock()
	v.seq.Lock()
	defer v.seq.Unlock()
	// The last session may have made it UpToDate, or an operator connect it again.
	v.closeLinks()
	v.mu.Lock()
	plan, err = v.planRollback()
	v.mu.Unlock()
	if err != nil {
		return plan, err
	}
	err = v.commitSuper(func(sb *Superblock) {
		mark := *sb.Resync
		mark.RollingBack = true
		sb.Disk, sb.Resync = Inconsistent, &mark
	})
	if err != nil {
		return fail(err)
	}
	if err := v.finishRollback(); err != nil {
		return fail(err)
	}
	return plan, nil
}

const rolledBack = "this replica was rolled back: 'lockstep connect' has it resynced again"

// closeLinks ends every session until Connect.
func (v *Volume) closeLinks() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range v.peers {
		p.standAlone()
		p.problem = rolledBack
		p.closeLink(CodeDisconnected, "this replica is being rolled back")
	}
}

// awaitLinksGone waits until nothing of a session that was closed runs any more.
func (v *Volume) awaitLinksGone(ctx context.Context) error {
	gone := make(chan struct{})
	v.wg.Go(func() {
		defer close(gone)
		for _, p := range v.peers {
			p.awaitEnd()
		}
	})
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finishRollback does what the superblock says has begun, from the beginning: what
// was done of it before is done again. Blocks first; then the journal, which holds
// nothing that belongs to the image; then the superblock; and the undo last.
//
// Whatever the replica acknowledged since the base it has lost: its incarnation is
// a new one, as after a loss of memory (2c), or its peer would take it for one whose
// disk went back in time (20b). v.tail, v.apply and v.seq are held, or nobody else
// is here.
func (v *Volume) finishRollback() error {
	undo := v.undo()
	if undo == nil {
		return errors.New("its undo is not open")
	}
	note, err := decodeUndoNote(undo.Info().Note)
	if err != nil {
		return err
	}
	if err := undo.Restore(v.store); err != nil {
		if !isNoSpace(err) {
			v.faultStore(err)
		}
		return err
	}
	base := note.base.LSN
	if err := v.journal.Reset(base+1, note.crc); err != nil {
		v.fault(err)
		return fmt.Errorf("begin the journal anew at LSN %d: %w", base+1, err)
	}
	incarnation, err := NewIncarnation(nil)
	if err != nil {
		return err
	}
	err = v.commitSuper(func(sb *Superblock) {
		sb.History = sb.History.CutTo(base)
		sb.Disk, sb.Resync, sb.Excluded = Outdated, nil, true
		sb.Incarnation, sb.BootID = incarnation, v.opts.BootID
	})
	if err != nil {
		return err
	}
	v.standAt(base, note.crc)
	v.setUndo(nil)
	v.undoProblem.Store(nil)
	v.log.Warn("rolled back to what the replica was before the resync", "base", base, "bytes", undo.Preserved())
	if err := undo.Discard(); err != nil {
		v.log.Warn("the undo of the resync could not be removed; the next start does", "error", err)
	}
	return nil
}

// standAt: the journal is empty and goes on after lsn, whose record has this CRC;
// the store holds everything up to there, durably. v.tail, v.apply and v.seq are
// held.
func (v *Volume) standAt(at LSN, crc uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cuts++
	v.pending.reset()
	v.queue.reset(at + 1)
	v.end, v.appended, v.durable, v.applied, v.checkpoint, v.committed = at, at, at, at, at, at
	v.stable, v.noted, v.stableNote, v.trimmed, v.applyWant = at, at, at, 0, 0
	v.chain, v.noSpace = crc, false
	for _, p := range v.peers {
		p.bitsThrough = at
	}
	v.broadcast()
}
