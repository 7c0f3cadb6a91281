package mirror

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// A resyncSource copies the blocks that a bitmap names to a peer whose missing
// records the journal no longer holds (replication.md 7). The peer's bitmap
// itself only grows until the peer is a member again.
type resyncSource struct {
	left *bitmap.Blocks // what the target may lack, at the start
	// remaining is what the target may lack after this session.
	remaining *remainder
	upTo      LSN   // the newest record that is not on the stream, but in the blocks
	total     int64 // bytes
	began     time.Time
	compares  bool            // the target's checksums are asked for first
	sums      chan *Checksums // for the feeder (resync_feed.go)
	feedKick  chan struct{}

	// v.mu guards these.
	ready      []feed // what has to be sent, as the feeder found
	readyBytes int64  // of it that is data
	fed        bool   // it has found everything
	compared   int64  // bytes
	equal      int64  // bytes of those that did not have to cross
	estimate   estimator
	flight     []flyingBlock // under way
	inFlight   int64         // bytes of their payload
	sentBytes  int64
	sentBlocks uint64
	ackedBytes int64
	acked      uint64
	endSent    bool
	done       bool // the target has every block durably
}

type flyingBlock struct{ off, n, payload int64 }

// A remainder is the remaining bitmap (replication.md 7): what the target of a resync
// lacks, durably, of what its bitmap names, so that a resync that is interrupted goes
// on where it was. It is in memory, and good for a target that still says that it is
// in the middle of that resync: of the same base, in the same incarnation. One that
// was rolled back, or that lost its memory, is another, and gets all of its bitmap.
//
// A block is taken out before it is read and put back unless the target acknowledges
// it; and a record that leaves the journal puts its blocks in, as it does in the
// bitmap. Either comes first: the block as it is read has the record, or it is in.
type remainder struct {
	*bitmap.Blocks
	base        Position
	incarnation uint64
}

// mark sets a range that p lacks in its bitmap.
func (p *peer) mark(off, n int64) {
	p.bits.Set(off, n)
	if r := p.remaining.Load(); r != nil {
		r.Set(off, n)
	}
}

// takeRemaining is what is to be sent to a target at base: its remainder if that is
// good, else all of its bitmap.
func (l *link) takeRemaining(base Position, anew bool) *remainder {
	l.v.tail.Lock() // no record leaves the journal between the look and the copy
	defer l.v.tail.Unlock()
	r := l.peer.remaining.Load()
	mark := l.theirs.Resync
	if anew || r == nil || mark == nil || mark.Source != l.v.opts.Node || r.base != base || r.incarnation != l.theirs.Incarnation {
		r = &remainder{l.peer.bits.Snapshot(), base, l.theirs.Incarnation}
		l.peer.remaining.Store(r)
	}
	return r
}

// putBack: what was not acknowledged when the session ended may not have come.
func (r *resyncSource) putBack(v *Volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, b := range r.flight {
		r.remaining.Set(b.off, b.n)
	}
	r.flight = nil
}

// resyncWindow is how many bytes of payload may be under way, and resyncBlocks
// how many blocks: one that is all zeroes has no payload.
const (
	resyncWindow = 64 << 20
	resyncBlocks = 8 * resyncSyncBlocks
)

// planResync fixes where the live stream begins, and which blocks differ: those
// in the peer's bitmap, if that is relative to no later point than the peer's
// own base, and those of every record since that is still in the journal. All
// of it is durable before the first block is sent.
//
// A peer that lost its journal has everything that it ever acknowledged as
// durable, outside of the regions that it named: more than its base, and all
// that our bitmap is relative to (replication.md 14).
func (l *link) planResync() (*Proceed, error) {
	v, p, c := l.v, l.peer, &l.verdict
	base := l.mine.Description.History.Position(c.Common)
	if l.theirs.Resync != nil {
		base = l.theirs.Resync.Base
	}
	v.seq.Lock()
	v.mu.Lock()
	from, crc, sb := v.end+1, v.chain, v.super
	if v.crcAt == v.committed {
		// A block shows no more than what is committed, and what is not may have to
		// wait for this very peer (quorum.go): it comes on the stream.
		from, crc = v.committed+1, v.commitCRC
	}
	v.mu.Unlock()
	v.seq.Unlock()

	have := p.bits.Base()
	relative := Position{Generation: have.Generation, LSN: LSN(have.LSN)}
	lost := l.theirs.Resync != nil && l.theirs.Resync.JournalLost
	full := !sb.History.Holds(relative, v.journal.End()) || relative.LSN > base.LSN && !lost
	if full {
		p.bits.SetAll()
	} else {
		v.mu.Lock()
		first := p.bitsThrough + 1
		v.mu.Unlock()
		if err := l.markRecords(first, from-1); err != nil {
			return nil, err
		}
	}
	if err := p.bits.Flush(); err != nil {
		err = fmt.Errorf("write the out-of-sync bitmap of %q: %w", p.node, err)
		v.fault(err)
		return nil, err
	}
	remaining := l.takeRemaining(base, full || lost)
	left := remaining.Snapshot()
	v.mu.Lock()
	p.bitsThrough = max(p.bitsThrough, from-1)
	l.source.resync = &resyncSource{
		left: left, remaining: remaining, upTo: from - 1, total: left.Count(), began: time.Now(), compares: l.mayCompare(),
		sums: make(chan *Checksums, maxCompares), feedKick: make(chan struct{}, 1),
	}
	l.source.resync.note()
	v.mu.Unlock()
	v.log.Info("the journal does not reach back: blocks are copied", "peer", p.node, "bytes", left.Count(), "outOfSync", p.bits.Count(), "full", full, "base", base.LSN)
	return &Proceed{Mode: ModeResync, Volume: sb.Volume, Epoch: sb.Epoch, Common: c.Common, From: from, PrevCRC: crc, History: sb.History}, nil
}

// mayCompare: the target may have blocks that are as ours. A new one has none but
// zeroes, which cross as a length.
func (l *link) mayCompare() bool {
	isNew := l.theirs.Resync == nil && len(l.theirs.History) == 0
	return l.version >= 2 && !isNew && !l.v.opts.NoResyncChecksums
}

// markRecords sets the blocks of the records from … upTo in the peer's bitmap.
func (l *link) markRecords(from, upTo LSN) error {
	if from > upTo {
		return nil
	}
	err := l.v.scan(from, upTo, func(r *journal.Record) bool {
		if r.Kind != journal.KindGeneration {
			l.peer.mark(r.Offset, r.Length)
		}
		return true
	})
	if errors.Is(err, journal.ErrTrimmed) {
		return errAgain // they went into the bitmap meanwhile
	}
	return err
}

// sendBlock sends the next block that the feeder found, or the end, if the window
// allows it. It is called between frames of records, on the sender's goroutine: every
// record that was sent before is older than what the block was read after, or
// is not yet stable and so not applied there before it (replication.md 7).
func (l *link) sendBlock(r *resyncSource) (bool, error) {
	v := l.v
	v.mu.Lock()
	wait := r.endSent || r.inFlight >= resyncWindow || len(r.flight) >= resyncBlocks || len(r.ready) == 0 && !r.fed
	if wait {
		v.mu.Unlock()
		return false, nil
	}
	if len(r.ready) == 0 {
		r.endSent = true
		v.mu.Unlock()
		return true, l.write(&ResyncEnd{LSN: l.source.next - 1})
	}
	off, n := r.ready[0].off, r.ready[0].n
	committed := v.committed
	v.mu.Unlock()
	r.remaining.Clear(off, n) // before it is read
	run := n
	n, buf, err := v.readBlock(off, n)
	r.remaining.Set(off+n, run-n)
	if err != nil {
		r.remaining.Set(off, run)
		err = fmt.Errorf("resync of %q: %w", l.peer.node, err)
		return false, err
	}
	b := Block{Offset: off, Length: n, Zero: buf == nil, LSN: committed}
	var payload []byte
	if buf != nil {
		payload = buf.Bytes()
		defer buf.Unref()
	}
	v.mu.Lock()
	r.pop(n)
	r.sentBytes += n
	r.sentBlocks++
	r.flight = append(r.flight, flyingBlock{off, n, int64(len(payload))})
	r.inFlight += int64(len(payload))
	v.mu.Unlock()
	return true, l.writeBuffers(net.Buffers{AppendBlockHeader(nil, &b, payload), payload})
}

// doneBytes is how many the target has, durably. v.mu is held.
func (r *resyncSource) doneBytes() int64 { return r.ackedBytes + r.equal }

// note keeps the estimate of the time left true. v.mu is held.
func (r *resyncSource) note() { r.estimate.note(time.Now(), r.doneBytes()) }

// readBlock reads up to n bytes at off as clients see them. A buffer of nil
// means that the range of the returned length reads as zeroes.
func (v *Volume) readBlock(off, n int64) (int64, *block.Buffer, error) {
	n, data := v.extentAt(off, n)
	if !data {
		return n, nil, nil
	}
	n = min(n, MaxBlockPayload)
	buf := block.Get(int(n))
	s := session{v: v}
	if err := s.ReadAt(buf.Bytes(), off); err != nil {
		buf.Unref()
		return 0, nil, err
	}
	if allZero(buf.Bytes()) {
		buf.Unref()
		return n, nil, nil
	}
	return n, buf, nil
}

// extentAt is the length of what begins at off, up to n, and whether that is data
// or a hole, which reads as zeroes. Something that is pending counts as data.
func (v *Volume) extentAt(off, n int64) (length int64, data bool) {
	n = min(n, journal.MaxZeroRange)
	var o overlay
	v.pending.take(&o, off, n)
	pending := off + n // where something pending begins
	for _, e := range o.parts {
		pending = min(pending, e.off)
	}
	o.release()
	if pending == off {
		return n, true
	}
	length, data = pending-off, true
	err := v.store.Extents(off, length, func(_, n int64, isData bool) error {
		length, data = n, isData
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return n, true // to read it says why
	}
	return length, data
}

// errStop ends an enumeration that has seen enough.
var errStop = errors.New("enough")

func allZero(p []byte) bool {
	for len(p) >= 8 {
		if le.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func (l *link) blockAck(body []byte) error {
	var m BlockAck
	if err := m.Decode(body); err != nil {
		return err
	}
	v := l.v
	v.mu.Lock()
	defer v.mu.Unlock()
	r := l.source.resync
	if r == nil || m.Blocks > r.sentBlocks || m.Bytes > r.sentBytes {
		return fmt.Errorf("%w: %d blocks acknowledged that were never sent", ErrFrame, m.Blocks)
	}
	for ; r.acked < m.Blocks; r.acked++ {
		r.inFlight -= r.flight[0].payload
		r.flight = r.flight[1:]
	}
	r.ackedBytes = max(r.ackedBytes, m.Bytes)
	r.note()
	r.done = r.endSent && r.acked == r.sentBlocks
	kick(l.kick)
	v.broadcast()
	return nil
}
