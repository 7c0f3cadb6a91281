package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/snapshot"
)

// Snapshots of a replica: images at one record of the order, everything up to it and
// nothing after it, that are kept by copy-on-write while the volume goes on being
// written. A user asks for one (CreateSnapshot); the loser of a split-brain keeps its
// side in one (split_settle.go).
//
//	The store, with what a snapshot's file preserves written over it, is the image.
//
// The superblock names the snapshots (invariant 10). One that it names is whole, or
// is said to be lost; a file that it does not name is of no use, and goes at the next
// start. So the file is made, durably, before the superblock names it, which it does
// before anything is overwritten; and is removed after the superblock has forgotten
// it. A snapshot is this node's alone: its peers know nothing of it.

// MaxSnapshots is how many snapshots a replica may have.
const MaxSnapshots = 16

const (
	snapshotPrefix  = "snapshot."
	maxSnapshotName = 64
)

// Errors of snapshots. Those that wrap them name the snapshot.
var (
	ErrNoSnapshot     = errors.New("there is no such snapshot")
	ErrSnapshotExists = errors.New("there is a snapshot of that name")
	// ErrSnapshotLost: it could not be kept, and nothing can be read from it.
	ErrSnapshotLost = errors.New("the snapshot is lost")
)

// SnapshotStatus is one snapshot for people and programs.
type SnapshotStatus struct {
	Name    string    `json:"name"`
	ID      ID        `json:"id"`
	At      Position  `json:"at"`      // the newest record in the image
	Created time.Time `json:"created"` // by this node's clock
	// Preserved is how many bytes of the volume were overwritten since, and Used what
	// their old content takes on disk; Limit is how much it may (0: no limit).
	Preserved int64 `json:"preserved"`
	Used      int64 `json:"used"`
	Limit     int64 `json:"limit,omitempty"`
	// Peer is with whom the replica was in a split-brain, if this is its side, which it
	// gave up; "" if somebody asked for the snapshot.
	Peer string `json:"peer,omitempty"`
	// Before: it is what the replica held before the rollback to another snapshot that
	// is under way, and goes when that is through.
	Before bool `json:"before,omitempty"`
	// Lost is why nothing can be read from it any more; "" if it is whole.
	Lost string `json:"lost,omitempty"`
	// Image is what is read of it, nil if nothing is.
	Image *ImageStatus `json:"image,omitempty"`
	// Rollback: the volume is being rolled back to it, and is not through.
	Rollback *RollbackProgress `json:"rollback,omitempty"`
}

// RollbackProgress is how far a rollback to a snapshot has come. Both are zero while
// none runs: it was interrupted.
type RollbackProgress struct {
	Done  int64 `json:"done"`  // bytes
	Total int64 `json:"total"` // bytes
}

// A keptSnapshot is a snapshot that is whole, or was until just now.
type keptSnapshot struct {
	v    *Volume
	name string
	id   ID
	at   LSN
	file *snapshot.Snapshot
	gone atomic.Bool // lost or deleted: set before anything is overwritten unpreserved

	done, total atomic.Int64 // of a rollback to it
	image       *Image       // v.mu guards it
}

func snapshotFile(id ID) string { return snapshotPrefix + id.String() }

// checkSnapshotName judges a name: it is a word on a command line, and in an
// export's name.
func checkSnapshotName(name string) error {
	if !volumeName.MatchString(name) || name[0] == '.' || name[0] == '-' {
		return fmt.Errorf("%.70q can't name a snapshot: 1 to %d of a-z A-Z 0-9 . _ - are wanted, and neither . nor - in front", name, maxSnapshotName)
	}
	return nil
}

// openSnapshots opens those that the superblock names, and removes the files of
// others. One that cannot be opened is lost: nothing keeps what is overwritten from
// now on.
func (v *Volume) openSnapshots() error {
	dir := v.opts.FS
	names, err := dir.List()
	if err != nil {
		return fmt.Errorf("look for snapshots: %w", err)
	}
	for _, name := range names {
		if id, ok := strings.CutPrefix(name, snapshotPrefix); ok && !strings.HasSuffix(name, brokenSuffix) && !namesSnapshot(v.super.Snapshots, id) {
			if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove %s, a snapshot that there is not: %w", name, err)
			}
		}
	}
	for _, e := range v.super.Snapshots {
		if e.Lost != "" {
			continue
		}
		s := v.newKept(&e)
		s.file, err = snapshot.Open(dir, snapshotFile(e.ID), v.super.Size, v.opts.SnapshotLimit)
		if errors.Is(err, snapshot.ErrVersion) {
			return err // it is whole, and its writer will want it back
		}
		if err == nil && ID(s.file.Info().ID) != e.ID {
			err = errors.Join(fmt.Errorf("%w: it is snapshot %v", snapshot.ErrMismatch, ID(s.file.Info().ID)), s.file.Close())
		}
		if err != nil {
			if err := v.markLost(s, err); err != nil {
				return err
			}
			// What is left of it may be of use to somebody.
			err := dir.Rename(snapshotFile(e.ID), snapshotFile(e.ID)+brokenSuffix)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("set an unreadable snapshot aside: %w", err)
			}
			continue
		}
		v.keep(func(k *keepers) { k.snaps = append(slices.Clip(k.snaps), s) })
	}
	return nil
}

// namesSnapshot reports whether a file with this id in its name is that of a snapshot
// which is whole.
func namesSnapshot(list []SnapshotEntry, id string) bool {
	return slices.ContainsFunc(list, func(e SnapshotEntry) bool { return e.Lost == "" && e.ID.String() == id })
}

func (v *Volume) newKept(e *SnapshotEntry) *keptSnapshot {
	return &keptSnapshot{v: v, name: e.Name, id: e.ID, at: e.At.LSN}
}

// kept is the snapshot of that name, if it is whole.
func (v *Volume) kept(name string) (*keptSnapshot, error) {
	if k := v.keepers.Load(); k != nil {
		for _, s := range k.snaps {
			if s.name == name && !s.gone.Load() {
				return s, nil
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.super.Snapshots {
		if e.Name == name && e.Lost != "" {
			return nil, fmt.Errorf("snapshot %q of volume %q: %w: %s", name, v.opts.Volume, ErrSnapshotLost, e.Lost)
		}
	}
	return nil, fmt.Errorf("snapshot %q of volume %q: %w", name, v.opts.Volume, ErrNoSnapshot)
}

// Snapshots lists the replica's snapshots, oldest first, the lost ones too.
func (v *Volume) Snapshots() []SnapshotStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.snapshotsStatus()
}

// snapshotsStatus: v.mu is held.
func (v *Volume) snapshotsStatus() []SnapshotStatus {
	list := []SnapshotStatus{}
	k, target := v.keepers.Load(), RollbackTarget{v.opts.Node, ""}
	if t := v.rollingBack(); t.Node == v.opts.Node {
		target = t
	}
	for _, e := range v.super.Snapshots {
		s := SnapshotStatus{Name: e.Name, ID: e.ID, At: e.At, Created: e.Created, Limit: v.opts.SnapshotLimit, Peer: e.Peer, Before: e.Before, Lost: e.Lost}
		if e.Name == target.Snapshot {
			s.Rollback = &RollbackProgress{}
		}
		if k != nil {
			if i := slices.IndexFunc(k.snaps, func(s *keptSnapshot) bool { return s.id == e.ID }); i >= 0 {
				x := k.snaps[i]
				s.Preserved, s.Used, s.Image = x.file.Preserved(), x.file.Used(), x.image.status()
				if s.Rollback != nil {
					*s.Rollback = RollbackProgress{x.done.Load(), x.total.Load()}
				}
			}
		}
		list = append(list, s)
	}
	return list
}

// editSnapshot returns the list with what edit makes of one entry.
func editSnapshot(list []SnapshotEntry, id ID, edit func(*SnapshotEntry)) []SnapshotEntry {
	list = slices.Clone(list)
	for i := range list {
		if list[i].ID == id {
			edit(&list[i])
		}
	}
	return list
}

// markLost has the superblock say that a snapshot is lost. Its error is that of the
// replica's own disk: then nothing may be overwritten.
func (v *Volume) markLost(s *keptSnapshot, why error) error {
	s.gone.Store(true)
	reason := strings.ToValidUTF8(why.Error()[:min(len(why.Error()), maxName)], "")
	err := v.commitSuper(func(sb *Superblock) {
		sb.Snapshots = editSnapshot(sb.Snapshots, s.id, func(e *SnapshotEntry) { e.Lost = reason })
	})
	if err != nil {
		return err
	}
	v.log.Error("a snapshot is lost: what is overwritten from now on could not be kept for it; the volume goes on", "snapshot", s.name, "error", why)
	return nil
}

// loseSnapshot gives a snapshot up that could not keep what is about to be
// overwritten, and its space back.
func (v *Volume) loseSnapshot(s *keptSnapshot, why error) error {
	if err := v.markLost(s, why); err != nil {
		return err
	}
	v.drop(s, fmt.Errorf("snapshot %q: %w: %w", s.name, ErrSnapshotLost, why))
	return nil
}

// yieldSnapshot gives up the snapshot that takes the most space, for the store has
// none left for what was acknowledged, and reports whether it did.
func (v *Volume) yieldSnapshot(err error) bool {
	k := v.keepers.Load()
	if !v.opts.SharedDisk || errors.Is(err, snapshot.ErrFull) || k == nil {
		return false
	}
	var most *keptSnapshot
	for _, s := range k.snaps {
		if !v.settling(s.id) && (most == nil || s.file.Used() > most.file.Used()) {
			most = s
		}
	}
	return most != nil && v.loseSnapshot(most, fmt.Errorf("its space was needed: %w", err)) == nil
}

// drop ends a snapshot that the superblock does not name as whole any more.
func (v *Volume) drop(s *keptSnapshot, reason error) {
	s.gone.Store(true)
	s.endImage(reason)
	v.keep(func(k *keepers) {
		k.snaps = slices.DeleteFunc(slices.Clone(k.snaps), func(x *keptSnapshot) bool { return x == s })
	})
	if err := s.file.Discard(); err != nil {
		v.log.Warn("a snapshot's file could not be removed; the next start does", "snapshot", s.name, "error", err)
	}
}

// settling reports whether the snapshot is the losing side of a split-brain, and the
// resync that overwrites that is not through.
func (v *Volume) settling(id ID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.super.Resync != nil && slices.ContainsFunc(v.super.Snapshots, func(e SnapshotEntry) bool { return e.ID == id && e.Settling })
}

// settledSnapshots: the resync is through, or will not come.
func settledSnapshots(list []SnapshotEntry) []SnapshotEntry {
	for _, e := range list {
		if e.Settling {
			list = editSnapshot(list, e.ID, func(e *SnapshotEntry) { e.Settling = false })
		}
	}
	return list
}

// losingIsFull says, for people, why a resync pauses and what to do.
func (v *Volume) losingIsFull(s *keptSnapshot, err error) string {
	return fmt.Sprintf("the resync is paused, for the losing side of the split-brain could not be kept (%v): mend that in %v, or give that side up with "+
		"'lockstep snapshot delete %s %s', and run 'lockstep connect %s'", err, v.opts.FS, v.opts.Volume, s.name, v.opts.Volume)
}

// close closes the files; what they keep stays.
func (k *keepers) close() error {
	var errs []error
	if k.undo != nil {
		errs = append(errs, k.undo.Close())
	}
	for _, s := range k.snaps {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}

// readAt reads the image. What it read of a snapshot that was lost meanwhile counts
// for nothing.
func (s *keptSnapshot) readAt(p []byte, off int64) error {
	if off < 0 || off > s.file.Info().Size-int64(len(p)) {
		return block.ErrOutOfRange
	}
	err := s.file.ReadAt(currentStore{s.v}, p, off)
	if s.gone.Load() {
		return fmt.Errorf("snapshot %q: %w", s.name, ErrSnapshotLost)
	}
	return err
}

// currentStore reads the store, unless that has failed.
type currentStore struct{ v *Volume }

// ReadAt implements io.ReaderAt.
func (c currentStore) ReadAt(p []byte, off int64) (int, error) {
	if _, err := c.v.readStore(p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}
