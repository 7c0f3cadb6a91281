package mirror

import (
	"errors"
	"io/fs"
	"time"
)

// What happens when the replica's own disk fails (replication.md 12).

// ErrFailed: the replica's own disk failed; errors that wrap it say how.
var ErrFailed = errors.New("the replica has failed")

// Where reads go, for Volume.readFrom. It only ever moves down.
const (
	fromStore   = iota // the backing store, under what is pending
	fromPeers          // a member of the in-sync set (remote.go)
	fromPending        // only what is pending: the store has failed
	fromNothing
)

// fault: a file of the replica's failed, for good (invariant 9). A Primary that
// may goes on through its peers (detach.go). Else the replica is Failed, tells
// its peers at once, and acknowledges nothing any more: clients stay connected
// and are answered with the error; their reads go on, for what the backing store
// holds was synced, or is pending.
func (v *Volume) fault(err error) {
	v.mu.Lock()
	v.faultLocked(err, fromStore)
	v.mu.Unlock()
}

// faultStore is fault for the backing store itself: it may have forgotten what
// was written and not synced (16a), so only what is pending is read any more.
func (v *Volume) faultStore(err error) {
	v.mu.Lock()
	v.faultLocked(err, fromPending)
	v.mu.Unlock()
}

func (v *Volume) faultLocked(err error, readFrom uint32) {
	if v.failure != nil || v.detached != nil || v.ctx.Err() != nil {
		return
	}
	v.emit(EventLocalIOError, "", err.Error())
	v.heed(diskFailed{err, readFrom, time.Now()})
	// The caller may hold the superblock's lock.
	v.wg.Go(v.noteFailure)
}

// faultRead: the disk did not give what a client reads. A Primary that can have
// it read by a peer does without its disk from then on. Else the client is
// answered with the error, and nothing has failed: it is the only copy, and what
// cannot be read now may be read later, or written anew.
func (v *Volume) faultRead(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch now := time.Now(); {
	case v.failure != nil:
	case v.mayDetach(now):
		v.faultLocked(err, fromPeers)
	case now.Sub(v.readFailed) >= time.Second: // a bad block may be asked for again and again
		v.readFailed = now
		v.log.Error("a read failed, and no member of the in-sync set could answer it in this replica's place", "error", err)
	}
}

// failLocked ends everything but reads from where readFrom says.
func (v *Volume) failLocked(err error, readFrom uint32) {
	v.failure = err
	v.refusal.Store(&err)
	v.readFrom.Store(readFrom)
	v.serving = false
	for l := v.queue.first; l < v.queue.next(); l++ {
		if e := v.queue.at(l); e.req != nil {
			finish(e.req, err)
			e.req = nil
		}
	}
	v.failFlushes(err)
	if v.image != nil {
		v.wg.Go(func() { v.endImage(err) })
	}
	for _, p := range v.peers {
		p.closeLink(CodeFailed, err.Error())
	}
	v.broadcast()
}

// noteFailure records, where that is still possible, that the replica failed: in
// the superblock, or, should it be what failed, beside it.
func (v *Volume) noteFailure() {
	v.superMu.Lock()
	defer v.superMu.Unlock()
	v.mu.Lock()
	sb := v.super
	v.mu.Unlock()
	sb.Disk = Failed
	if v.superFile.Commit(&sb) != nil {
		v.noteFailed()
	}
	v.mu.Lock()
	v.super.Disk = Failed
	v.mu.Unlock()
}

// failedName is a file that says that the replica failed and its superblock
// could not say so.
const failedName = "failed"

// noteFailed does what can be done on a disk that fails.
func (v *Volume) noteFailed() {
	f, err := v.opts.FS.Create(failedName)
	if err == nil {
		err = errors.Join(f.Close(), v.opts.FS.SyncDir())
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		v.log.Error("that the replica failed could not be noted: do not start it again, create it anew", "error", err)
	}
}

// refused is the answer to a read if no better place is left for it than
// readFrom.
func (v *Volume) refused(readFrom uint32) error {
	if v.readFrom.Load() < readFrom {
		return nil
	}
	return *v.refusal.Load()
}

// readStore reads the backing store. What it gave while the store failed counts
// for nothing.
func (v *Volume) readStore(p []byte, off int64) (done bool, err error) {
	if v.refused(fromPending) == nil {
		n, err := v.store.ReadAt(p, off)
		if err != nil && n < len(p) {
			return true, err
		}
	}
	return true, v.refused(fromPending)
}

// tryReadStore is readStore if that takes no wait for a disk.
func (v *Volume) tryReadStore(p []byte, off int64) (done bool, err error) {
	if v.refused(fromPending) == nil {
		if done, err := v.store.TryReadAt(p, off); !done || err != nil {
			return done, err
		}
	}
	return true, v.refused(fromPending)
}
