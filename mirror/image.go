package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/block"
)

// An Image is what a replica holds or held, to be read beside the volume: a
// block.Device that takes no writes, and does not change.
//
// That of OpenImage is what a replica that is not Primary holds: its store under
// everything that its journal has, which is what clients would read if it were
// promoted now. Whatever would change it ends it first, and with it every session,
// which is told why: a Primary to follow, a promotion, the end of the volume. That of
// OpenSnapshot lasts until the snapshot is deleted or lost, or the volume ends.
type Image struct {
	v     *Volume
	snap  *keptSnapshot // nil: the replica as it is
	upTo  LSN
	ends  chan struct{} // closed when it is over
	count atomic.Int32  // of sessions

	// reads is held for reading while one is under way, and guards the rest.
	reads    sync.RWMutex
	over     error
	sessions map[*imageSession]struct{}
}

// ImageStatus is an Image for people and programs.
type ImageStatus struct {
	UpTo     LSN `json:"upTo"` // the newest record in it
	Sessions int `json:"sessions"`
}

// OpenImage makes an Image of a Secondary that follows nobody. There is one at a
// time. It waits for the end of a connection that was closed just now.
func (v *Volume) OpenImage(ctx context.Context) (*Image, error) {
	v.change.Lock() // nobody is promoted meanwhile
	defer v.change.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.await(ctx, func() (bool, error) {
		for _, p := range v.peers {
			if p.following && p.link == nil {
				return false, nil
			}
		}
		return true, v.judgeImage()
	})
	if err != nil {
		return nil, err
	}
	i := newImage(v, v.queue.wholeTo(v.end))
	if from := max(v.committed, v.applied) + 1; from <= i.upTo {
		v.pending.enter(v.queue, from, i.upTo)
		v.committed = i.upTo
	}
	v.image = i
	v.log.Info("the replica is read as it is", "upTo", i.upTo)
	return i, nil
}

func newImage(v *Volume, upTo LSN) *Image {
	return &Image{v: v, upTo: upTo, ends: make(chan struct{}), sessions: make(map[*imageSession]struct{})}
}

// OpenSnapshot makes an Image of a snapshot, whatever the replica's role. There is
// one at a time of each.
func (v *Volume) OpenSnapshot(name string) (*Image, error) {
	s, err := v.kept(name)
	if err != nil {
		return nil, err
	}
	i := newImage(v, s.at)
	i.snap = s
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closing:
		err = errClosed
	case s.gone.Load():
		err = ErrNoSnapshot
	case s.image != nil:
		err = errors.New("it is exported already")
	}
	if err != nil {
		return nil, fmt.Errorf("export snapshot %q of volume %q read-only: %w", name, v.opts.Volume, err)
	}
	s.image = i
	return i, nil
}

// endImage ends what is read of the snapshot, if something is.
func (s *keptSnapshot) endImage(reason error) {
	s.v.mu.Lock()
	i := s.image
	s.image = nil
	s.v.mu.Unlock()
	if i != nil {
		i.end(reason)
		close(i.ends)
	}
}

// endSnapshotImages ends what is read of all snapshots.
func (v *Volume) endSnapshotImages(reason error) {
	if k := v.keepers.Load(); k != nil {
		for _, s := range k.snaps {
			s.endImage(reason)
		}
	}
}

// judgeImage says why there can be no image, nil if there can. v.mu is held.
func (v *Volume) judgeImage() error {
	no := func(format string, a ...any) error {
		return fmt.Errorf("volume %q on node %q is not exported read-only: %s", v.opts.Volume, v.opts.Node, fmt.Sprintf(format, a...))
	}
	switch {
	case v.failure != nil:
		return no("%v", v.failure)
	case v.closing:
		return no("it is being closed")
	case v.role == Primary:
		return no("it is Primary, and serves its clients what it has")
	case v.super.Disk == Inconsistent:
		return no("it is Inconsistent, half old, half new: %v", v.super.Resync)
	case len(v.super.History) == 0:
		return no("it holds nothing of the volume yet")
	case v.image != nil:
		return no("it is already")
	}
	if err := v.halfRolledBack(); err != nil {
		return no("%v", err)
	}
	for _, p := range v.peers {
		if p.following {
			return no("it follows node %q and changes with every write: part the two first with 'lockstep disconnect %s %s'", p.node, v.opts.Volume, p.node)
		}
	}
	return nil
}

// endImage ends the image, if there is one. When it returns no read of it is
// under way and none will be: what it showed may change. Neither v.apply nor v.mu
// is held.
func (v *Volume) endImage(reason error) {
	v.imageEnd.Lock()
	defer v.imageEnd.Unlock()
	v.mu.Lock()
	i := v.image
	v.image = nil
	v.mu.Unlock()
	if i == nil {
		return
	}
	i.end(reason)
	v.apply.Lock() // no round takes out of the index what is no longer in it
	v.mu.Lock()
	v.committed = v.applied
	v.pending.reset()
	v.mu.Unlock()
	v.apply.Unlock()
	close(i.ends)
	v.log.Info("the replica is no longer read as it was", "reason", reason)
}

// end drops the sessions. When it returns no read is under way and none begins.
func (i *Image) end(reason error) {
	i.reads.Lock()
	i.over = reason
	all := i.sessions
	i.sessions = nil
	i.reads.Unlock()
	for s := range all {
		if s.revoked != nil {
			go s.revoked(reason)
		}
	}
}

// Close ends the image. It may be called more than once.
func (i *Image) Close() {
	v, reason := i.v, errors.New("the read-only export was ended")
	v.mu.Lock()
	mine := v.image == i || i.snap != nil && i.snap.image == i
	v.mu.Unlock()
	switch {
	case !mine:
	case i.snap != nil:
		i.snap.endImage(reason)
	default:
		v.endImage(reason)
	}
}

// Ended is closed once the image is over, for whatever reason.
func (i *Image) Ended() <-chan struct{} { return i.ends }

// status is nil without an image.
func (i *Image) status() *ImageStatus {
	if i == nil {
		return nil
	}
	return &ImageStatus{UpTo: i.upTo, Sessions: int(i.count.Load())}
}

// Info implements block.Device.
func (i *Image) Info() block.Info {
	info := i.v.Info()
	info.ReadOnly, info.WriteCache, info.AtomicWrite = true, false, 0
	return info
}

// Attach implements block.Device.
func (i *Image) Attach(_ context.Context, revoked func(error)) (block.Session, error) {
	i.reads.Lock()
	defer i.reads.Unlock()
	if i.over != nil {
		return nil, fmt.Errorf("%w: %w", block.ErrNotServing, i.over)
	}
	s := &imageSession{image: i, reader: session{v: i.v}, revoked: revoked}
	i.sessions[s] = struct{}{}
	i.count.Add(1)
	return s, nil
}

// An imageSession is one client's use of an image.
type imageSession struct {
	image   *Image
	reader  session
	revoked func(error)
	closed  bool
}

// ReadAt implements block.Session.
func (s *imageSession) ReadAt(p []byte, off int64) error {
	s.image.reads.RLock()
	defer s.image.reads.RUnlock()
	if s.image.over != nil {
		return block.ErrNotServing
	}
	if s.image.snap != nil {
		return s.image.snap.readAt(p, off)
	}
	return s.reader.ReadAt(p, off)
}

// TryReadAt implements block.Session.
func (s *imageSession) TryReadAt(p []byte, off int64) (bool, error) {
	s.image.reads.RLock()
	defer s.image.reads.RUnlock()
	if s.image.over != nil {
		return true, block.ErrNotServing
	}
	if s.image.snap != nil {
		return false, nil
	}
	return s.reader.TryReadAt(p, off)
}

// Submit implements block.Session: there is nothing to flush, and nothing else is
// taken.
func (s *imageSession) Submit(batch []*block.Request) {
	for _, r := range batch {
		var err error
		if r.Op != block.OpFlush {
			err = block.ErrReadOnly
		}
		if r.Buf != nil {
			r.Buf.Unref()
		}
		finish(r, err)
	}
}

// Close implements block.Session.
func (s *imageSession) Close() {
	s.image.reads.Lock()
	defer s.image.reads.Unlock()
	if !s.closed {
		s.closed = true
		s.image.count.Add(-1)
	}
	delete(s.image.sessions, s)
}
