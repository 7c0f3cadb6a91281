package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lockstep-storage/lockstep/snapshot"
)

// CreateSnapshot makes a snapshot of this replica, on this node alone, durably: an
// image of the volume at one record of its order, with everything in it that was
// written before the call, flushed or not, and nothing that is torn or out of order.
// Of a Secondary that follows nobody it is what OpenImage shows.
//
// It waits until all that was written before the call is in the backing store; if
// ctx ends first nothing was made. Clients go on meanwhile; records wait in the
// journal for one sync of the store. It fails with ErrSnapshotExists, with
// snapshot.ErrFull, at MaxSnapshots, or with a sentence where the store holds no
// image: while it is resynced, diskless, failed or full.
//
// Each later overwrite of a block, the first since then, costs a copy of 4 KiB or
// more and a sync, for each snapshot; the file grows to at most the volume's size and
// a 64th. With no room for that the snapshot is lost, never the write.
func (v *Volume) CreateSnapshot(ctx context.Context, name string) (SnapshotStatus, error) {
	fail := func(err error) (SnapshotStatus, error) {
		return SnapshotStatus{}, fmt.Errorf("create snapshot %q of volume %q on node %q: %w", name, v.opts.Volume, v.opts.Node, err)
	}
	if err := checkSnapshotName(name); err != nil {
		return fail(err)
	}
	if err := v.createSnapshot(ctx, SnapshotEntry{Name: name}); err != nil {
		return fail(err)
	}
	list := v.Snapshots()
	i := slices.IndexFunc(list, func(s SnapshotStatus) bool { return s.Name == name })
	if i < 0 {
		return fail(errors.New("it was deleted at once"))
	}
	return list[i], nil
}

func (v *Volume) createSnapshot(ctx context.Context, e SnapshotEntry) error {
	v.mu.Lock()
	target := v.queue.wholeTo(v.end)
	err := v.roomFor(v.super.Snapshots, e.Name)
	v.mu.Unlock()
	for err == nil {
		if err = v.awaitApplied(ctx, target); err != nil {
			break
		}
		_, err = v.takeSnapshot(e, func() (LSN, error) { return v.imageAt(target) })
		if err == nil {
			break
		}
		if errors.Is(err, errAgain) {
			err = ctx.Err()
		}
	}
	return err
}

// DeleteSnapshot ends a snapshot, a lost one too, and gives its space back. Whoever
// reads it is told. In the middle of a rollback it refuses to delete a whole one that
// the rollback could be finished with, or taken back.
func (v *Volume) DeleteSnapshot(name string) error {
	s, lost := v.kept(name)
	if lost != nil && !errors.Is(lost, ErrSnapshotLost) {
		return lost
	}
	found, needed := false, error(nil)
	err := v.commitSuper(func(sb *Superblock) {
		v.mu.Lock()
		target, half := v.rollingBack(), v.halfRolledBack()
		v.mu.Unlock()
		sb.Snapshots = slices.DeleteFunc(slices.Clone(sb.Snapshots), func(e SnapshotEntry) bool {
			mine := e.Name == name && (s == nil || e.ID == s.id)
			if mine && e.Lost == "" && half != nil && (e.Before || target == RollbackTarget{v.opts.Node, name}) {
				needed = half
			}
			found = found || mine
			return mine && needed == nil
		})
	})
	if err != nil {
		return err
	}
	if needed != nil {
		return fmt.Errorf("snapshot %q is not deleted: %w", name, needed)
	}
	if !found {
		return fmt.Errorf("snapshot %q of volume %q: %w", name, v.opts.Volume, ErrNoSnapshot)
	}
	if s != nil {
		v.drop(s, fmt.Errorf("snapshot %q of volume %q was deleted", name, v.opts.Volume))
	}
	v.log.Info("snapshot deleted", "snapshot", name)
	return nil
}

// roomFor says why a list cannot take one more of that name.
func (v *Volume) roomFor(list []SnapshotEntry, name string) error {
	if slices.ContainsFunc(list, func(e SnapshotEntry) bool { return e.Name == name }) {
		return ErrSnapshotExists
	}
	if len(list) >= MaxSnapshots {
		return fmt.Errorf("there are %d snapshots already, the most that a replica may have: delete one with 'lockstep snapshot delete %s NAME'", len(list), v.opts.Volume)
	}
	return nil
}

// standsStill: a Secondary that follows nobody. v.mu is held.
func (v *Volume) standsStill() bool {
	if v.role == Primary {
		return false
	}
	for _, p := range v.peers {
		if p.following {
			return false
		}
	}
	return true
}

// judgeSnapshot says why the store and what is to be applied to it make no image.
// v.mu is held.
func (v *Volume) judgeSnapshot() error {
	switch {
	case v.failure != nil:
		return v.failure
	case v.closing:
		return errClosed
	case v.detached != nil:
		return errors.New("it goes on without its disk, on which the snapshot would be")
	case v.super.Disk == Inconsistent || v.super.Resync != nil:
		return fmt.Errorf("it is Inconsistent, half old, half new: %v", v.super.Resync)
	case len(v.super.History) == 0:
		return errors.New("it holds nothing of the volume yet")
	case v.noSpace && !v.standsStill():
		return errors.New("its backing store is full")
	}
	return nil
}

// awaitApplied has everything up to target, that can be, brought into the store.
func (v *Volume) awaitApplied(ctx context.Context, target LSN) error {
	v.mu.Lock()
	leads := v.role == Primary
	if leads {
		v.wantSync(target)
	}
	v.mu.Unlock()
	kick(v.syncKick)
	if leads { // the background would do this, too, but later
		v.mu.Lock()
		err := v.await(ctx, func() (bool, error) { return v.stable >= target || v.role != Primary, v.judgeSnapshot() })
		v.mu.Unlock()
		if err != nil {
			return err
		}
		v.note()
	}
	if err := v.syncNow(); err != nil {
		return err
	}
	v.mu.Lock()
	err := v.await(ctx, func() (bool, error) {
		if err := v.judgeSnapshot(); err != nil || v.standsStill() {
			return true, err
		}
		goal := min(target, v.end)
		v.applyWant = max(v.applyWant, goal)
		kick(v.applyKick)
		return v.applied >= goal, nil
	})
	v.mu.Unlock()
	if err != nil {
		return err
	}
	return v.takeCheckpoint() // so that the next one has little left to sync
}

// imageAt is the record at which there is an image now: what is applied, or on a
// replica that stands still all that it has. It fails with errAgain if that is not
// everything up to target. v.mu is held.
func (v *Volume) imageAt(target LSN) (LSN, error) {
	at := v.applied
	if v.standsStill() {
		at = max(at, v.queue.wholeTo(min(v.end, v.durable)))
	}
	if at < min(target, v.queue.wholeTo(v.end)) {
		return 0, errAgain
	}
	return at, nil
}

// takeSnapshot makes a snapshot at the record that choose says, with v.tail, v.apply
// and v.mu held; it is applied already, or in the journal.
//
// Between two rounds of the applier the store is the image at v.applied, but for
// bytes of later records that it may hold: of those that were applied before a
// restart, and of those that the blocks of a resync had. The record that is chosen is
// none before the journal's end as it was when somebody asked, so it is past them all.
// What the records after v.applied change is read from the journal and preserved
// first thing, so that nothing has to be applied that may not be.
func (v *Volume) takeSnapshot(e SnapshotEntry, choose func() (LSN, error)) (*keptSnapshot, error) {
	v.tail.Lock()
	defer v.tail.Unlock()
	v.apply.Lock()
	defer v.apply.Unlock()
	v.mu.Lock()
	err := v.judgeSnapshot()
	if err == nil {
		err = v.roomFor(v.super.Snapshots, e.Name)
	}
	at := LSN(0)
	if err == nil {
		at, err = choose()
	}
	if g := v.super.History.At(at); err == nil && g != nil && !g.RollingBack.IsZero() {
		err = cmp.Or(v.halfRolledBack(), errAgain)
	}
	if err != nil {
		v.mu.Unlock()
		return nil, err
	}
	src := &journaledImage{v: v, pending: newPending()}
	ranges := src.enter(v.applied+1, at)
	e.At, e.Created = v.super.History.Position(at), time.Now().Round(0)
	applied := v.applied
	v.mu.Unlock()

	// The image must not be lost with the page cache: the journal would bring it back,
	// and have the snapshot preserve what is not of it.
	if err := v.store.Sync(); err != nil {
		err = fmt.Errorf("sync the backing store: %w", err)
		v.faultStore(err)
		return nil, err
	}
	v.mu.Lock()
	v.checkpoint = max(v.checkpoint, applied)
	v.mu.Unlock()
	if e.ID, err = NewID(nil); err != nil {
		return nil, err
	}
	s := v.newKept(&e)
	info := snapshot.Info{ID: snapshot.ID(e.ID), Size: v.store.Size(), Created: e.Created, Note: []byte(e.Name)}
	if s.file, err = snapshot.Create(v.opts.FS, snapshotFile(e.ID), info, v.opts.SnapshotLimit); err != nil {
		return nil, err
	}
	if err = s.file.Preserve(src, ranges); err == nil {
		var full error
		err = v.commitSuper(func(sb *Superblock) {
			if full = v.roomFor(sb.Snapshots, e.Name); full == nil {
				sb.Snapshots = append(slices.Clip(sb.Snapshots), e)
			}
		})
		err = errors.Join(err, full)
	}
	if err != nil {
		return nil, errors.Join(err, s.file.Discard())
	}
	v.keep(func(k *keepers) { k.snaps = append(slices.Clip(k.snaps), s) })
	v.log.Info("snapshot created", "snapshot", e.Name, "at", at)
	return s, nil
}

// A journaledImage is the store under records that are not applied to it, whose
// payload it reads from the journal. v.apply is held while it is in use.
type journaledImage struct {
	v       *Volume
	pending *pending
}

// enter takes the records in, and returns the ranges that they change. v.mu is held.
func (j *journaledImage) enter(from, to LSN) (ranges []snapshot.Range) {
	for l := from; l <= to; l++ {
		if x, ok := extentOf(j.v.queue.at(l)); ok {
			// The queue may let go of its buffer meanwhile.
			x.journaled, x.data, x.buf = !x.zeroes(), nil, nil
			j.pending.x.insert(x)
			ranges = append(ranges, snapshot.Range{Off: x.off, N: x.end - x.off})
		}
	}
	return ranges
}

// ReadAt implements snapshot.Source.
func (j *journaledImage) ReadAt(p []byte, off int64) (int, error) {
	var o overlay
	if covered := j.pending.take(&o, off, int64(len(p))); !covered {
		if n, err := j.v.store.ReadAt(p, off); n < len(p) {
			return n, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	defer o.release()
	if err := o.copyTo(p, off, j.v.journal); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Extents implements snapshot.Source.
func (j *journaledImage) Extents(off, n int64, report func(off, n int64, data bool) error) error {
	at, end := off, off+n
	var parts []extent
	j.pending.x.overlapping(off, end, func(e extent) bool {
		parts = append(parts, e.cut(off, end))
		return true
	})
	for _, e := range parts {
		if e.off > at {
			if err := j.v.store.Extents(at, e.off-at, report); err != nil {
				return err
			}
		}
		if err := report(e.off, e.end-e.off, !e.zeroes()); err != nil {
			return err
		}
		at = e.end
	}
	if at < end {
		return j.v.store.Extents(at, end-at, report)
	}
	return nil
}
