package mirror

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// A session is one client connection's use of the volume.
type session struct {
	v       *Volume
	term    uint64
	closed  atomic.Bool // set under v.seq; nothing of it is ordered afterwards
	revoked func(error)
}

// Attach implements block.Device.
func (v *Volume) Attach(ctx context.Context, revoked func(error)) (block.Session, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	term, settled := v.term, v.end
	err := v.await(ctx, func() (bool, error) {
		if !v.serving || v.closing || v.term != term {
			return false, v.notServing()
		}
		if err := v.halfRolledBack(); err != nil {
			return false, fmt.Errorf("%w: %w", block.ErrNotServing, err)
		}
		return v.committed >= settled, nil
	})
	if err != nil {
		return nil, err
	}
	s := &session{v: v, term: v.term, revoked: revoked}
	v.sessions[s] = struct{}{}
	return s, nil
}

// notServing says why the volume serves nobody. v.mu is held.
func (v *Volume) notServing() error {
	switch {
	case v.failure != nil:
		return fmt.Errorf("volume %q: %w: %w", v.opts.Volume, block.ErrNotServing, v.failure)
	case v.role == Secondary:
		return fmt.Errorf("volume %q is Secondary on node %q: %w", v.opts.Volume, v.opts.Node, block.ErrNotServing)
	}
	return fmt.Errorf("volume %q on node %q: %w", v.opts.Volume, v.opts.Node, block.ErrNotServing)
}

// Close implements block.Session.
func (s *session) Close() {
	s.v.seq.Lock()
	s.closed.Store(true)
	s.v.seq.Unlock()
	s.v.mu.Lock()
	delete(s.v.sessions, s)
	s.v.mu.Unlock()
}

// revokeSessions ends every session: the role is lost, or the volume closes.
// No request of theirs is ordered after it returns (replication.md 11).
func (v *Volume) revokeSessions(reason error) {
	v.seq.Lock()
	v.mu.Lock()
	all := v.sessions
	v.sessions = make(map[*session]struct{})
	v.mu.Unlock()
	for s := range all {
		s.closed.Store(true)
	}
	v.seq.Unlock()
	for s := range all {
		if s.revoked != nil {
			go s.revoked(reason)
		}
	}
}

// ReadAt implements block.Session.
func (s *session) ReadAt(p []byte, off int64) error {
	if !s.v.diskless() {
		_, err := s.read(p, off, s.v.readStore, s.v.journal)
		if !s.v.diskless() { // by now
			return err
		}
	}
	return s.readPeers(p, off)
}

// TryReadAt implements block.Session.
func (s *session) TryReadAt(p []byte, off int64) (bool, error) {
	if s.v.diskless() {
		return false, nil
	}
	done, err := s.read(p, off, s.v.tryReadStore, nil)
	if s.v.diskless() { // by now
		return false, nil
	}
	return done, err
}

// read fills p with committed bytes (invariant 3, a read returns committed data
// only): what is pending lies over what the store has. The extents are taken
// before the store is read, and a record leaves the index only after the store
// has it, so no byte of a committed write is missed. Without j, which may wait for
// a disk, it is not done if some of it is in the journal only.
func (s *session) read(p []byte, off int64, store func([]byte, int64) (bool, error), j *journal.Journal) (bool, error) {
	v := s.v
	if err := s.check(off, int64(len(p))); err != nil {
		return true, err
	}
	if v.pending.n.Load() == 0 {
		done, err := store(p, off)
		return done, s.storeRead(err)
	}
	var o overlay
	for {
		covered := v.pending.take(&o, off, int64(len(p)))
		if !covered {
			if done, err := store(p, off); !done || err != nil {
				o.release()
				return done, s.storeRead(err)
			}
		}
		err := o.copyTo(p, off, j)
		o.release()
		switch err {
		case errMoved:
			continue
		case errEvicted:
			return false, nil
		}
		return true, s.storeRead(err)
	}
}

func (s *session) storeRead(err error) error {
	if err != nil {
		err = fmt.Errorf("read the backing store: %w", err)
		s.v.faultRead(err)
	}
	return err
}

func (s *session) check(off, n int64) error {
	if s.closed.Load() {
		return block.ErrNotServing
	}
	if err := s.v.refused(fromNothing); err != nil {
		return err
	}
	if off < 0 || n < 0 || off > s.v.store.Size()-n {
		return block.ErrOutOfRange
	}
	return nil
}
