package mirror

import (
	"context"
	"fmt"
)

// A resyncTarget receives blocks (replication.md 7).
type resyncTarget struct {
	blocks   uint64
	bytes    int64
	unsynced int64 // bytes written since the store was synced
	pending  int   // blocks since then
	total    int64
	whole    bool // every block came and is durable
}

// resyncSyncBytes is how much is written to the store between two syncs, each
// of which is acknowledged, and resyncSyncBlocks how many blocks: ranges of
// zeroes cost little, and are many in a sparse volume.
const (
	resyncSyncBytes  = 16 << 20
	resyncSyncBlocks = 1024
)

// beginResync makes the replica the target of a bitmap resync: truncated to the
// common point, everything up to it applied and durable, the superblock says
// Inconsistent with its base, and only then does the journal begin anew where
// the live stream will. A resync that was interrupted keeps its base.
func (l *link) beginResync(m *Proceed) error {
	v := l.v
	mark := l.mine.Description.Resync
	if mark == nil {
		if err := v.truncateTo(m.Common, l, nextEntry(m.History, m.Common)); err != nil {
			return err
		}
		if err := l.markCut(m.Common); err != nil {
			return err
		}
		if err := v.applyThrough(l.ctx, m.Common); err != nil {
			return err
		}
		mark = &ResyncMark{Base: l.mine.Description.History.Position(m.Common)}
	}
	mark = &ResyncMark{Base: mark.Base, Source: l.peer.node, JournalLost: mark.JournalLost}
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
	v.mu.Lock()
	defer v.mu.Unlock()
	at := m.From - 1
	v.cuts++
	v.pending.reset()
	v.queue.reset(m.From)
	v.end, v.appended, v.durable, v.applied, v.checkpoint, v.committed = at, at, at, at, at, at
	v.stable, v.noted, v.stableNote, v.trimmed, v.applyWant = at, at, at, 0, 0
	v.chain = m.PrevCRC
	for _, p := range v.peers {
		p.bitsThrough = at
	}
	l.target.resync = &resyncTarget{}
	v.broadcast()
	return nil
}

// markCut makes the replica Inconsistent before anything of a write is applied
// that was cut at the common point: the Primary sends what lies past it, and
// nothing before. Its base is, until the cut parts are applied, what lies before
// that write.
func (l *link) markCut(common LSN) error {
	v := l.v
	v.mu.Lock()
	whole := v.queue.wholeTo(common)
	v.mu.Unlock()
	if whole == common {
		return nil
	}
	base := l.mine.Description.History.Position(whole)
	return v.commitSuper(func(sb *Superblock) {
		sb.Disk, sb.Resync = Inconsistent, &ResyncMark{Base: base, Source: l.peer.node}
	})
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
		return nil
	case FrameResyncEnd:
		var m ResyncEnd
		if err := m.Decode(body); err != nil {
			return err
		}
		if err := l.syncBlocks(); err != nil {
			return err
		}
		v.mu.Lock()
		r.whole = true
		v.mu.Unlock()
		kick(l.kick)
		return nil
	}
	return l.block(body)
}

// block writes a block to the store. Records that are older than its content
// follow it on the stream or are pending, and are applied over it in order;
// newer ones were not applied before it. What is read in the end is right.
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
	if m.Zero {
		err = v.store.Zero(m.Offset, m.Length, true)
	} else {
		_, err = v.store.WriteAt(buf.Bytes(), m.Offset)
		buf.Unref()
	}
	if err != nil {
		if !isNoSpace(err) {
			v.faultStore(err)
		}
		return fmt.Errorf("write a resync block at %d: %w", m.Offset, err)
	}
	v.mu.Lock()
	r.blocks++
	r.bytes += m.Length
	v.mu.Unlock()
	r.unsynced += int64(m.PayloadLen())
	r.pending++
	if r.unsynced >= resyncSyncBytes || r.pending >= resyncSyncBlocks {
		return l.syncBlocks()
	}
	return nil
}

func (l *link) syncBlocks() error {
	v, r := l.v, l.target.resync
	if err := v.store.Sync(); err != nil {
		v.faultStore(err)
		return fmt.Errorf("sync the backing store: %w", err)
	}
	r.unsynced, r.pending = 0, 0
	return l.write(&BlockAck{Blocks: r.blocks, Bytes: r.bytes})
}
