package mirror

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/snapshot"
)

// A rollback to a snapshot writes what was overwritten since, as it was, by ordinary
// replicated writes: every replica follows by the path of a write, and nothing but
// the volume's content goes back.
//
// It is no single write, and yet all or nothing for whoever reads. It begins with a
// generation that says what the volume is being rolled back to, and ends with one that
// says nothing of it; one that begins in between says what the one before it said. So
// whether a replica's newest record leaves an image or a mixture is a matter of its
// history (invariant 11), as durable as the record itself, on every replica that has
// the record, whatever crashed, was promoted, truncated or resynced. A mixture serves
// nobody, on no node and by no export: halfRolledBack is what they are told. It is no
// snapshot either, and no source of a resync.
//
// There are three ways out, on the node that is Primary. To finish it, where the
// snapshot is; or to roll back to any other snapshot, for each is a whole image of the
// volume. So that there is one everywhere, every replica makes a snapshot of what it
// is before it records that a rollback begins ("before-rollback"), and drops it once
// the record that ends the rollback is stable. One that finds no room for it goes
// without: then it serves nobody until the rollback is finished elsewhere, or an
// operator gives it up (GiveUpRollback), which makes the mixture the volume's content.

// beforeRollback names the snapshot of what a replica was before a rollback began.
const beforeRollback = "before-rollback"

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
	p.Restores, p.Resumes = p.Snapshot.Preserved, v.rollingBack() == RollbackTarget{v.opts.Node, name}
	for l := v.applied + 1; l <= v.end; l++ {
		if e := v.queue.at(l); e != nil { // it will be in the store, and preserved
			p.Restores += e.rec.Length
		}
	}
	p.Restores = min(p.Restores, p.Size)
	if h := v.super.History; h.Holds(p.Snapshot.At, v.end) {
		p.Writes = int64(h.Writes(p.Snapshot.At.LSN+1, v.end))
	}
	if err := v.judgeSnapshotRollback(); err != nil {
		p.Refused = err.Error()
	}
	return p, nil
}

// judgeSnapshotRollback: v.mu is held.
func (v *Volume) judgeSnapshotRollback() error {
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
	case v.super.History.Prune(v.keepHistory()).rollbacks() >= maxHistoryRollbacks:
		return fmt.Errorf("the history tells of %d rollbacks already, the most that it may, and a peer that is away may need them all", maxHistoryRollbacks)
	}
	for _, p := range v.peers {
		if l := p.link; l != nil && l.met && l.version < rollbackVersion {
			return fmt.Errorf("node %q speaks protocol version %d and would take what is half rolled back for the volume: upgrade it first", p.node, l.version)
		}
		if p.link != nil && p.link.source.resync != nil {
			return fmt.Errorf("node %q is being resynced: wait until that is through", p.node)
		}
	}
	return nil
}

// rollingBack is the snapshot that the volume is in the middle of being rolled back to,
// as the newest record here says; zero: it is not. v.mu is held.
func (v *Volume) rollingBack() RollbackTarget { return v.super.History.RollingBack(v.end) }

// halfRolledBack says why nobody may read the volume here, and what to run; nil if it
// is an image. v.mu is held.
func (v *Volume) halfRolledBack() error {
	t := v.rollingBack()
	switch {
	case t.IsZero() && v.rolling:
		return fmt.Errorf("volume %q on node %q is about to be rolled back to a snapshot", v.opts.Volume, v.opts.Node)
	case t.IsZero():
		return nil
	}
	var ways []string
	here := false
	for i := range v.super.Snapshots {
		e := &v.super.Snapshots[i]
		mine := t == RollbackTarget{v.opts.Node, e.Name}
		switch {
		case e.Lost != "" || !mine && !e.Before:
			continue
		case mine:
			ways = append(ways, fmt.Sprintf("'lockstep snapshot rollback %s %s' finishes it", v.opts.Volume, e.Name))
		default:
			ways = append(ways, fmt.Sprintf("'lockstep snapshot rollback %s %s' takes it back to what it was before", v.opts.Volume, e.Name))
		}
		here = true
	}
	if t.Node != v.opts.Node {
		ways = append(ways, fmt.Sprintf("'lockstep snapshot rollback %s %s' on node %q, once that is Primary, finishes it", v.opts.Volume, t.Snapshot, t.Node))
	}
	if !here {
		ways = append(ways, fmt.Sprintf("'lockstep snapshot give-up %s' takes it as it is, should nothing else be left", v.opts.Volume))
	}
	return fmt.Errorf("volume %q on node %q is in the middle of being rolled back to snapshot %q of node %q, half old, half new: %s",
		v.opts.Volume, v.opts.Node, t.Snapshot, t.Node, strings.Join(ways, "; "))
}

// RollbackToSnapshot has the volume be what it was when the snapshot was created, on
// all its replicas. This one has to be Primary, and without clients; none can attach
// before it is through. The snapshot stays.
//
// A crash, an error or ctx leaves a volume that is half rolled back, and that serves
// nobody on any node until it is called again, there or with another snapshot. What is
// lost is everything written since: another snapshot, created before, keeps that.
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
	err = v.judgeSnapshotRollback()
	if err == nil {
		v.rolling = true // Attach heeds it
	}
	session := &session{v: v, term: v.term}
	v.mu.Unlock()
	if err != nil {
		plan.Refused = err.Error()
		return fail(plan, err)
	}
	defer v.notRolling()
	if err := v.beginRollback(ctx, session, RollbackTarget{v.opts.Node, name}); err != nil {
		return fail(plan, err)
	}
	v.log.Warn("the volume is being rolled back to a snapshot", "snapshot", name, "at", s.at, "bytes", plan.Restores)
	if err := v.writeBack(ctx, session, s); err != nil {
		return fail(plan, fmt.Errorf("%w: the volume is half rolled back, and serves nobody until that is done again", err))
	}
	if err := v.endRollback(session); err != nil {
		return fail(plan, err)
	}
	v.log.Warn("the volume was rolled back to a snapshot", "snapshot", name, "at", s.at)
	return plan, nil
}

// beginRollback has every member know that the volume is a mixture from now on, and
// keep what it was, before the first block is written.
func (v *Volume) beginRollback(ctx context.Context, session *session, target RollbackTarget) error {
	v.mu.Lock()
	was := v.rollingBack()
	v.mu.Unlock()
	if was.IsZero() {
		err := v.keepBefore(func(e SnapshotEntry) error { return v.createSnapshot(ctx, e) })
		if err != nil {
			return fmt.Errorf("keep what it is until that is through: %w", err)
		}
	}
	if was != target {
		if err := v.markRollback(session, target); err != nil {
			return err
		}
	}
	return session.flush()
}

// endRollback: everything is written, durably on every member.
func (v *Volume) endRollback(session *session) error {
	if err := v.markRollback(session, RollbackTarget{}); err != nil {
		return err
	}
	err := session.flush()
	v.dropBefore() // the peers do with a later checkpoint
	return err
}

// markRollback begins a generation in which the volume is being rolled back to target,
// or if that is zero is not any more.
func (v *Volume) markRollback(session *session, target RollbackTarget) error {
	v.change.Lock()
	defer v.change.Unlock()
	v.mu.Lock()
	err := v.judgeSnapshot()
	if err == nil && (v.role != Primary || v.term != session.term) {
		err = fmt.Errorf("node %q is not Primary any more", v.opts.Node)
	}
	v.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = v.beginWith(func(sb *Superblock) ([]Member, error) {
		sb.SetVersion++
		return sb.Set, nil
	}, &target)
	kick(v.syncKick)
	return err
}

// GiveUpRollback makes the mixture that an interrupted rollback has left the volume's
// content. It is for when neither the snapshot nor what was before is to be had any
// more: what clients find then is in part what was, in part what was to be. It fails
// with a sentence unless this replica is Primary.
func (v *Volume) GiveUpRollback() error {
	v.mu.Lock()
	t, session := v.rollingBack(), &session{v: v, term: v.term}
	var err error
	switch {
	case v.role != Primary || !v.serving:
		err = fmt.Errorf("node %q is not Primary: promote it first (lockstep promote %s)", v.opts.Node, v.opts.Volume)
	case v.rolling:
		err = errors.New("it is under way")
	case t.IsZero():
		err = errors.New("there is none")
	default:
		v.rolling = true
	}
	v.mu.Unlock()
	if err == nil {
		defer v.notRolling()
		v.log.Warn("the rollback to a snapshot is given up: the volume is in part what it was, in part what it was to be", "snapshot", t.Snapshot, "node", t.Node)
		err = v.endRollback(session)
	}
	if err != nil {
		return fmt.Errorf("give up the rollback of volume %q: %w", v.opts.Volume, err)
	}
	return nil
}

func (v *Volume) notRolling() {
	v.mu.Lock()
	v.rolling = false
	v.broadcast()
	v.mu.Unlock()
}

// keepBefore has take make the snapshot of what the replica is before a rollback,
// unless there is one already, of a rollback that came no further.
func (v *Volume) keepBefore(take func(SnapshotEntry) error) error {
	v.mu.Lock()
	at, list := v.super.History.Position(v.end), v.super.Snapshots
	v.mu.Unlock()
	e := SnapshotEntry{Name: beforeRollback, Before: true}
	for _, old := range list {
		if !old.Before {
			continue
		}
		if old.At == at && old.Lost == "" {
			return nil
		}
		if err := v.forgetSnapshot(old.ID); err != nil {
			return err
		}
	}
	taken := func(old SnapshotEntry) bool { return !old.Before && old.Name == e.Name }
	for n := 2; slices.ContainsFunc(list, taken); n++ {
		e.Name = fmt.Sprintf("%s-%d", beforeRollback, n)
	}
	return take(e)
}

// keepBefore keeps what this replica is, if gen, which comes after the journal's end,
// is the first to say that the volume is being rolled back. v.seq is held, and let go
// meanwhile.
func (l *link) keepBefore(gen *Generation) error {
	v := l.v
	v.mu.Lock()
	end := v.end
	due := !gen.RollingBack.IsZero() && v.rollingBack().IsZero() && v.super.Resync == nil
	v.mu.Unlock()
	if !due {
		return nil
	}
	v.seq.Unlock()
	err := v.syncNow()
	if err == nil {
		err = v.keepBefore(func(e SnapshotEntry) error {
			_, err := v.takeSnapshot(e, func() (LSN, error) {
				if l.peer.link != l || v.end != end || v.queue.wholeTo(end) != end {
					return 0, errAgain
				}
				return end, nil
			})
			return err
		})
	}
	v.seq.Lock()
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.failure != nil:
		return v.failure
	case l.peer.link != l || v.end != end:
		return errAgain
	case err != nil:
		v.log.Warn("what this replica is before a rollback to a snapshot is not kept: promoted in the middle of it, it serves nobody until that is finished",
			"snapshot", gen.RollingBack.Snapshot, "node", gen.RollingBack.Node, "error", err)
	}
	return nil
}

// dropBefore drops what was kept of before a rollback, once nothing can bring the
// replica back to where it is in the middle of it.
func (v *Volume) dropBefore() {
	v.mu.Lock()
	var old []ID
	for i := range v.super.Snapshots {
		e, h := &v.super.Snapshots[i], v.super.History
		if e.Before && v.super.Resync == nil && e.At.LSN < v.stable && h.RollingBack(v.end).IsZero() && h.RollingBack(v.stable).IsZero() {
			old = append(old, e.ID)
		}
	}
	v.mu.Unlock()
	for _, id := range old {
		if v.forgetSnapshot(id) != nil {
			return // fault has told everybody
		}
	}
}

// forgetSnapshot deletes a snapshot, lost or not.
func (v *Volume) forgetSnapshot(id ID) error {
	err := v.commitSuper(func(sb *Superblock) {
		sb.Snapshots = slices.DeleteFunc(slices.Clone(sb.Snapshots), func(e SnapshotEntry) bool { return e.ID == id })
	})
	if err != nil {
		return err
	}
	if k := v.keepers.Load(); k != nil {
		for _, s := range k.snaps {
			if s.id == id {
				v.drop(s, fmt.Errorf("snapshot %q of volume %q was of before a rollback, and that is through", s.name, v.opts.Volume))
			}
		}
	}
	return nil
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
		err = session.flush()
	}
	return err
}

// flush has everything that was written be durable on every member.
func (s *session) flush() error {
	w := &rollbackWriter{session: s, done: make(chan error, 1)}
	return errors.Join(w.submit(&block.Request{Op: block.OpFlush}), w.wait(0))
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
