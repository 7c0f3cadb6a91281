package mirror

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/snapshot"
)

// A rollback to a snapshot writes what was overwritten since, as it was, by ordinary
// replicated writes: every replica follows by the path of a write, and nothing but
// the volume's content goes back.
//
// It is no single write. From its beginning until it is through the volume is in part
// what it was, in part what it is; this node's superblock says so, and it serves no
// client meanwhile, whatever crashes. Doing it again finishes it, and deleting the
// snapshot gives it up. The peers are not told: one that is promoted in the middle of
// it serves what it has.

// A SnapshotRollbackPlan is what RollbackToSnapshot finds, and would do.
type SnapshotRollbackPlan struct {
	Volume   string         `json:"volume"`
	Node     string         `json:"node"`
	Size     int64          `json:"size"` // of the volume, bytes
	Snapshot SnapshotStatus `json:"snapshot"`
	// Restores is how many bytes of the volume were overwritten since, and are written
	// back as far as they differ.
	Restores int64 `json:"restores"`
	// Writes is how many writes since are undone; -1 if the replica's history does not
	// hold the snapshot's record, as after a split-brain.
	Writes int64 `json:"writes"`
	// Resumes: it has begun, and was interrupted.
	Resumes bool `json:"resumes,omitempty"`
	// Refused says why nothing can be done now; "" if it can.
	Refused string `json:"refused,omitempty"`
}

// PlanSnapshotRollback says what RollbackToSnapshot would do, and does nothing of it.
// What stands in its way now is in the plan, and no error.
func (v *Volume) PlanSnapshotRollback(name string) (SnapshotRollbackPlan, error) {
	if _, err := v.kept(name); err != nil {
		return SnapshotRollbackPlan{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	p := SnapshotRollbackPlan{Volume: v.opts.Volume, Node: v.opts.Node, Size: v.super.Size, Writes: -1}
	list := v.snapshotsStatus()
	if i := slices.IndexFunc(list, func(s SnapshotStatus) bool { return s.Name == name }); i >= 0 {
		p.Snapshot = list[i]
	}
	p.Restores, p.Resumes = p.Snapshot.Preserved, p.Snapshot.Rollback != nil
	for l := v.applied + 1; l <= v.end; l++ {
		if e := v.queue.at(l); e != nil { // it will be in the store, and preserved
			p.Restores += e.rec.Length
		}
	}
	p.Restores = min(p.Restores, p.Size)
	if h := v.super.History; h.Holds(p.Snapshot.At, v.end) {
		p.Writes = int64(h.Writes(p.Snapshot.At.LSN+1, v.end))
	}
	if err := v.judgeSnapshotRollback(name); err != nil {
		p.Refused = err.Error()
	}
	return p, nil
}

// judgeSnapshotRollback: v.mu is held.
func (v *Volume) judgeSnapshotRollback(name string) error {
	if err := v.judgeSnapshot(); err != nil {
		return err
	}
	switch {
	case v.role != Primary || !v.serving:
		return fmt.Errorf("node %q is not Primary: promote it first (lockstep promote %s)", v.opts.Node, v.opts.Volume)
	case len(v.sessions) > 0:
		return fmt.Errorf("clients are attached, %d of them: disconnect them first", len(v.sessions))
	case v.rolling:
		return errors.New("a rollback to a snapshot is under way")
	}
	if other := v.rollingBackTo(); other != "" && other != name {
		return fmt.Errorf("a rollback to snapshot %q was interrupted: finish that first, or delete that snapshot", other)
	}
	return nil
}

// rollingBackTo is the snapshot that the volume is being rolled back to, "" for none.
// v.mu is held.
func (v *Volume) rollingBackTo() string {
	for i := range v.super.Snapshots {
		if e := &v.super.Snapshots[i]; e.RollingBack {
			return e.Name
		}
	}
	return ""
}

// RollbackToSnapshot has the volume be what it was when the snapshot was created, on
// all its replicas. This one has to be Primary, and without clients; none can attach
// before it is through. The snapshot stays.
//
// A crash, an error or ctx leaves a volume that is half rolled back, and that serves
// nobody on this node until it is called again, or the snapshot deleted. What is lost
// is everything written since: another snapshot, created before, keeps that.
func (v *Volume) RollbackToSnapshot(ctx context.Context, name string) (SnapshotRollbackPlan, error) {
	fail := func(plan SnapshotRollbackPlan, err error) (SnapshotRollbackPlan, error) {
		return plan, fmt.Errorf("roll volume %q back to snapshot %q: %w", v.opts.Volume, name, err)
	}
	s, err := v.kept(name)
	if err != nil {
		return SnapshotRollbackPlan{}, err
	}
	plan, err := v.PlanSnapshotRollback(name)
	if err != nil {
		return plan, err
	}
	// What is damaged has to be known before the first block is written.
	if err := s.file.Verify(); err != nil {
		return fail(plan, err)
	}
	v.mu.Lock()
	err = v.judgeSnapshotRollback(name)
	if err == nil {
		v.rolling = true // Attach heeds it
	}
	session := &session{v: v, term: v.term}
	v.mu.Unlock()
	if err != nil {
		plan.Refused = err.Error()
		return fail(plan, err)
	}
	defer func() {
		v.mu.Lock()
		v.rolling = false
		v.broadcast()
		v.mu.Unlock()
	}()
	if err := v.setRollingBack(s, true); err != nil {
		return fail(plan, err)
	}
	v.log.Warn("the volume is being rolled back to a snapshot", "snapshot", name, "at", s.at, "bytes", plan.Restores)
	if err := v.writeBack(ctx, session, s); err != nil {
		return fail(plan, fmt.Errorf("%w: the volume is half rolled back, and serves nobody until that is done again, or the snapshot is deleted", err))
	}
	if err := v.setRollingBack(s, false); err != nil {
		return fail(plan, err)
	}
	v.log.Warn("the volume was rolled back to a snapshot", "snapshot", name, "at", s.at)
	return plan, nil
}

func (v *Volume) setRollingBack(s *keptSnapshot, on bool) error {
	return v.commitSuper(func(sb *Superblock) {
		sb.Snapshots = editSnapshot(sb.Snapshots, s.id, func(e *SnapshotEntry) { e.RollingBack = on })
	})
}

// rollbackWindow is how many writes of a rollback are under way at most.
const rollbackWindow = 32

// writeBack writes what is preserved, where the volume differs from it.
func (v *Volume) writeBack(ctx context.Context, session *session, s *keptSnapshot) error {
	v.mu.Lock()
	end := v.end
	v.mu.Unlock()
	// Whatever was written is in the store then, and what it overwrote in the snapshot.
	if err := v.awaitApplied(ctx, end); err != nil {
		return err
	}
	pieces := s.file.Pieces()
	total := int64(0)
	for _, p := range pieces {
		total += p.N
	}
	s.done.Store(0)
	s.total.Store(total)
	w := &rollbackWriter{session: session, done: make(chan error, rollbackWindow)}
	var err error
	for _, p := range pieces {
		if err = ctx.Err(); err == nil {
			err = w.piece(s, p)
		}
		if err != nil {
			break
		}
		s.done.Add(p.N)
	}
	err = errors.Join(err, w.wait(0))
	if err == nil {
		err = errors.Join(w.submit(&block.Request{Op: block.OpFlush}), w.wait(0))
	}
	return err
}

// A rollbackWriter is a client of the volume.
type rollbackWriter struct {
	session *session
	flying  int
	done    chan error
	was, is []byte
}

// piece brings a range back.
func (w *rollbackWriter) piece(s *keptSnapshot, p snapshot.Piece) error {
	if p.Zero {
		return w.submit(&block.Request{Op: block.OpWriteZeroes, Off: p.Off, Len: p.N})
	}
	w.was, w.is = slices.Grow(w.was[:0], int(p.N))[:p.N], slices.Grow(w.is[:0], int(p.N))[:p.N]
	if err := s.readAt(w.was, p.Off); err != nil {
		return err
	}
	if err := w.session.ReadAt(w.is, p.Off); err != nil {
		return err
	}
	if bytes.Equal(w.was, w.is) {
		return nil
	}
	buf := block.Get(len(w.was))
	copy(buf.Bytes(), w.was)
	return w.submit(&block.Request{Op: block.OpWrite, Off: p.Off, Len: p.N, Buf: buf})
}

func (w *rollbackWriter) submit(r *block.Request) error {
	if err := w.wait(rollbackWindow - 1); err != nil {
		if r.Buf != nil {
			r.Buf.Unref()
		}
		return err
	}
	r.Done = w
	w.flying++
	w.session.Submit([]*block.Request{r})
	return nil
}

// wait returns once no more than so many are under way, with the first error.
func (w *rollbackWriter) wait(most int) (err error) {
	for w.flying > most {
		select {
		case e := <-w.done:
			w.flying--
			err = cmp.Or(err, e)
		case <-w.session.v.ctx.Done():
			return errClosed
		}
	}
	return err
}

// Complete implements block.Completer.
func (w *rollbackWriter) Complete(_ *block.Request, err error) { w.done <- err }
