package mirror

import (
	"fmt"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/snapshot"
)

// A heldBatch is blocks that came from the source and are not written yet, so that
// what many of them overwrite is preserved by one sync.
type heldBatch struct {
	blocks []heldBlock
	bytes  int64     // of payload
	since  time.Time // the first of them came
	end    bool      // the source has no more
}

// A heldBlock is a range of zeroes if it has no buffer.
type heldBlock struct {
	off, n int64
	buf    *block.Buffer
}

func (b *heldBlock) write(store Store) error {
	if b.buf == nil {
		return store.Zero(b.off, b.n, true)
	}
	_, err := store.WriteAt(b.buf.Bytes(), b.off)
	return err
}

// drop lets go of the batch, written or not: what was not acknowledged is sent again.
func (b *heldBatch) drop() {
	for _, x := range b.blocks {
		if x.buf != nil {
			x.buf.Unref()
		}
	}
	*b = heldBatch{}
}

// hold has nothing be applied but what is stable now, until the batch that begins is
// written.
func (v *Volume) hold(r *resyncTarget) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r.heldAt = append(r.heldAt, v.stable)
	v.held, v.heldAt = true, r.heldAt[0]
}

// letGo: the oldest batch is written.
func (v *Volume) letGo(r *resyncTarget) {
	v.mu.Lock()
	if r.heldAt = append(r.heldAt[:0], r.heldAt[1:]...); len(r.heldAt) == 0 {
		v.held = false
	} else {
		v.heldAt = r.heldAt[0]
	}
	v.mu.Unlock()
	kick(v.applyKick)
}

// dropHeld lets go of everything once the session's goroutines have ended.
func (l *link) dropHeld() {
	v, r := l.v, l.target.resync
	if r == nil {
		return
	}
	r.filling.drop()
	v.mu.Lock()
	v.held, r.heldAt = false, nil
	v.mu.Unlock()
	kick(v.applyKick)
}

// resyncSyncDelay is how long blocks wait for a sync at most: so a slow resync is
// acknowledged as it goes on.
const resyncSyncDelay = 200 * time.Millisecond

// writeLoop writes batches to the store and syncs and acknowledges them, beside the
// receiver, which takes in the next one and the live records meanwhile.
func (l *link) writeLoop() error {
	r := l.target.resync
	if r == nil {
		<-l.ctx.Done()
		return l.ctx.Err()
	}
	timer := time.NewTimer(resyncSyncDelay)
	defer timer.Stop()
	unsynced, pending := int64(0), 0 // bytes of payload, and blocks, since the last sync
	for {
		var due <-chan time.Time
		if pending > 0 {
			due = timer.C
		}
		end := false
		select {
		case b := <-r.batches:
			if pending == 0 {
				timer.Reset(resyncSyncDelay)
			}
			unsynced, pending, end = unsynced+b.bytes, pending+len(b.blocks), b.end
			if err := l.writeBatch(b); err != nil {
				return err
			}
			if !end && unsynced < resyncSyncBytes && pending < resyncSyncBlocks {
				continue
			}
		case <-due:
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
		if err := l.syncBlocks(end); err != nil {
			return err
		}
		unsynced, pending = 0, 0
	}
}

// writeBatch writes a batch to the store, once what it overwrites is preserved.
func (l *link) writeBatch(b *heldBatch) error {
	defer b.drop()
	if len(b.blocks) == 0 {
		return nil
	}
	v, r := l.v, l.target.resync
	ranges := make([]snapshot.Range, len(b.blocks))
	for i, x := range b.blocks {
		ranges[i] = snapshot.Range{Off: x.off, N: x.n}
	}
	if err := v.preserve(ranges); err != nil {
		return fmt.Errorf("preserve what resync blocks overwrite: %w", err)
	}
	bytes := int64(0)
	for _, x := range b.blocks {
		err := x.write(v.store)
		for isNoSpace(err) && v.yieldSnapshot(err) {
			err = x.write(v.store)
		}
		if err != nil {
			if !isNoSpace(err) {
				v.faultStore(err)
			}
			return fmt.Errorf("write a resync block at %d: %w", x.off, err)
		}
		bytes += x.n
	}
	v.mu.Lock()
	r.blocks += uint64(len(b.blocks))
	r.bytes += bytes
	v.mu.Unlock()
	v.letGo(r)
	return nil
}

// syncBlocks makes every block that was written durable in the store, and says so;
// with end those are all.
func (l *link) syncBlocks(end bool) error {
	v, r := l.v, l.target.resync
	if err := v.syncStore(); err != nil {
		return err
	}
	if err := l.write(&BlockAck{Blocks: r.blocks, Bytes: r.bytes}); err != nil || !end {
		return err
	}
	v.mu.Lock()
	r.whole = true
	v.mu.Unlock()
	kick(l.kick)
	return nil
}
