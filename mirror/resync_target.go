package mirror

import (
	"context"
	"fmt"
	"time"
)

// A resyncTarget receives blocks (replication.md 7). The receiver fills one batch of
// them while writeLoop writes the one before (resync_write.go).
type resyncTarget struct {
	batches chan *heldBatch // to writeLoop

	// v.mu guards these.
	blocks uint64
	bytes  int64
	total  int64
	whole  bool  // every block came and is durable
	heldAt []LSN // of the batches that are not written yet, oldest first

	filling *heldBatch // the receiver's own
}

// resyncSyncBytes is how much is written to the store between two syncs, each
// of which is acknowledged, and resyncSyncBlocks how many blocks: ranges of
// zeroes cost little, and are many in a sparse volume.
const resyncSyncBlocks = 1024

var resyncSyncBytes int64 = 16 << 20 // less in tests of small volumes

// beginResync makes the replica the target of a bitmap resync: truncated to the
// common point, everything up to it applied and durable, the superblock says
// Inconsistent with its base, and only then does the journal begin anew where
// the live stream will. A resync that was interrupted keeps its base.
func (l *link) beginResync(m *Proceed) error {
	v := l.v
	mark := l.mine.Description.Resync
	if mark == nil {
		var err error
		if mark, err = l.leaveSuffix(m); err != nil {
			return err
		}
	}
	if mark.RollingBack {
		return &refusal{CodeDisconnected, fmt.Sprintf("this replica is being rolled back: finish that with 'lockstep rollback %s'", v.opts.Volume)}
	}
	mark = &ResyncMark{Base: mark.Base, Source: l.peer.node, JournalLost: mark.JournalLost, Undo: mark.Undo}
	v.tail.Lock()
	defer v.tail.Unlock()
	v.apply.Lock()
	defer v.apply.Unlock()
	v.seq.Lock()
	defer v.seq.Unlock()
	if l.over() {
		return errAgain
	}
	for _, p := range v.peers {
		if err := v.forget(p); err != nil {
			return err
		}
	}
	err := v.commitSuper(func(sb *Superblock) {
		sb.Disk, sb.Resync = Inconsistent, mark
		sb.History = m.History.CutTo(m.From - 1)
	})
	if err != nil {
		return err
	}
	if err := v.journal.Reset(m.From, m.PrevCRC); err != nil {
		v.fault(err)
		return fmt.Errorf("begin the journal anew at LSN %d: %w", m.From, err)
	}
	v.standAt(m.From-1, m.PrevCRC)
	v.mu.Lock()
	defer v.mu.Unlock()
	l.target.resync = &resyncTarget{batches: make(chan *heldBatch), filling: &heldBatch{}}
	l.target.compares = make(chan ChecksumRequest, maxCompares)
	kick(l.kick) // the source is told of a pause
	v.emit(EventResync, l.peer.node, "it begins")
	v.broadcast()
	return nil
}

// leaveSuffix parts with what we have past the common point: it is truncated, or
// given up by the loser of a split-brain. Everything before is in the store then,
// durably.
func (l *link) leaveSuffix(m *Proceed) (*ResyncMark, error) {
	if l.loser == Ours {
		return &ResyncMark{Base: l.mine.Description.History.Position(m.Common)}, l.giveUp(m.Common)
	}
	return l.leaveImage(m)
}

// leaveImage brings the store to the image at the common point and begins the undo
// that keeps it.
//
// The common point may be in the middle of a write: the Primary sends what lies
// past it, and nothing before. Then the image, and until the parts before it are
// applied the base too, is what lies before that write; and the replica is
// Inconsistent before the first of the parts is applied.
func (l *link) leaveImage(m *Proceed) (*ResyncMark, error) {
	v, h := l.v, l.mine.Description.History
	if err := v.truncateTo(m.Common, l, nextEntry(m.History, m.Common)); err != nil {
		return nil, err
	}
	v.mu.Lock()
	whole := v.queue.wholeTo(m.Common)
	v.mu.Unlock()
	if err := v.applyThrough(l.ctx, whole); err != nil {
		return nil, err
	}
	undo, err := v.beginUndo(whole)
	if err != nil {
		return nil, err
	}
	if whole < m.Common {
		err := v.commitSuper(func(sb *Superblock) {
			sb.Disk = Inconsistent
			sb.Resync = &ResyncMark{Base: h.Position(whole), Source: l.peer.node, Undo: undo}
		})
		if err != nil {
			return nil, err
		}
		if err := v.applyThrough(l.ctx, m.Common); err != nil {
			return nil, err
		}
	}
	return &ResyncMark{Base: h.Position(m.Common), Undo: undo}, nil
}

// applyThrough brings the store to the state at lsn, durably: everything up to
// it is common with the Primary.
func (v *Volume) applyThrough(ctx context.Context, lsn LSN) error {
	v.mu.Lock()
	v.stable, v.applyCut, v.applyWant = max(v.stable, lsn), lsn, lsn
	v.mu.Unlock()
	v.note()
	if err := v.syncNow(); err != nil {
		return err
	}
	kick(v.applyKick)
	v.mu.Lock()
	err := v.await(ctx, func() (bool, error) { return v.applied >= lsn, v.failure })
	v.applyCut = 0
	v.mu.Unlock()
	if err != nil {
		return err
	}
	return v.takeCheckpoint()
}

// forget: this replica's journal will no longer tell what a peer lacks, so every
// block may differ, until both are members again.
func (v *Volume) forget(p *peer) error {
	p.bits.SetAll()
	p.remaining.Store(nil)
	if err := p.bits.Flush(); err != nil {
		err = fmt.Errorf("write the out-of-sync bitmap of %q: %w", p.node, err)
		v.fault(err)
		return err
	}
	return nil
}

// agree clears the bitmaps of the members of the set that the Primary confirmed:
// they and we have everything that is stable.
func (v *Volume) agree(set []Member) error {
	v.mu.Lock()
	at := v.stable
	base := v.position(at)
	v.mu.Unlock()
	for _, p := range v.peers {
		if !setHasNode(set, p.node) || p.bits.Count() == 0 {
			continue
		}
		p.remaining.Store(nil)
		if err := p.bits.Reset(base); err != nil {
			err = fmt.Errorf("clear the out-of-sync bitmap of %q: %w", p.node, err)
			v.fault(err)
			return err
		}
		v.mu.Lock()
		p.bitsThrough = max(p.bitsThrough, at)
		v.mu.Unlock()
	}
	return nil
}

func (l *link) resyncFrame(t FrameType, body []byte) error {
	v, r := l.v, l.target.resync
	if r == nil {
		return l.unexpected(t)
	}
	switch t {
	case FrameResyncStart:
		var m ResyncStart
		if err := m.Decode(body); err != nil {
			return err
		}
		v.mu.Lock()
		r.total = m.Bytes
		v.mu.Unlock()
		return v.reserveKeepers(m.Bytes)
	case FrameResyncEnd:
		var m ResyncEnd
		if err := m.Decode(body); err != nil {
			return err
		}
		r.filling.end = true
		return l.passHeld()
	}
	return l.block(body)
}

// block takes a block in. Records that are older than its content follow it on the
// stream or are pending, and are applied over it in order; newer ones were not
// applied before it. What is read in the end is right.
//
// For that, nothing is applied while it is held but what was stable when the first
// of those that are held came: the source read each of them after that (8a).
func (l *link) block(body []byte) error {
	v, r := l.v, l.target.resync
	var m Block
	if err := m.Decode(body); err != nil {
		return err
	}
	if m.Offset+m.Length > v.store.Size() {
		return fmt.Errorf("%w: block of %d bytes at %d, past the volume's end", ErrFrame, m.Length, m.Offset)
	}
	buf, err := l.in.ReadBlock(&m)
	if err != nil {
		return err
	}
	b := r.filling
	if len(b.blocks) == 0 {
		b.since = time.Now()
		v.hold(r)
	}
	b.blocks = append(b.blocks, heldBlock{m.Offset, m.Length, buf})
	b.bytes += int64(m.PayloadLen())
	if b.bytes >= resyncSyncBytes || len(b.blocks) >= resyncSyncBlocks {
		return l.passHeld()
	}
	return nil
}

// resyncHoldDelay is how long blocks are held for others to come, at most while
// anything comes: a source that compares has gaps between them.
const resyncHoldDelay = 20 * time.Millisecond

// passInTime passes what is held on to be written if that has waited long enough.
func (l *link) passInTime() error {
	r := l.target.resync
	if r == nil || len(r.filling.blocks) == 0 || time.Since(r.filling.since) < resyncHoldDelay {
		return nil
	}
	return l.passHeld()
}

// passHeld passes what is held on to be written. It waits while two batches are.
func (l *link) passHeld() error {
	r := l.target.resync
	if r == nil || len(r.filling.blocks) == 0 && !r.filling.end {
		return nil
	}
	select {
	case r.batches <- r.filling:
		r.filling = &heldBatch{}
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}
