package mirror

import (
	"fmt"
	"hash/crc32"
	"runtime"
	"sync"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// A write's path begins here (architecture, section 5):
//
//  1. Submit puts requests into the inbox. If nobody is at work there, the
//     submitter itself becomes the sequencer and takes out what has arrived, so
//     a lone request pays for no change of goroutine, and under load one round
//     carries what every connection put in meanwhile.
//  2. admit waits for credit: pending bytes and room in the journal.
//  3. order, under v.seq: the requests become records with LSNs and CRCs
//     (invariant 4, one order), enter the queue, from which the peers' senders
//     take them at once, and go to the journal in one vectored write.
//  4. advance (commit.go) completes what is committed.

// crowdTurns is for how many lone flushes a crowd of clients is remembered.
const crowdTurns = 16

// inbox holds submitted requests until they are ordered.
type inbox struct {
	mu         sync.Mutex
	head, tail *block.Request
	busy       bool // somebody is the sequencer
}

// put adds a batch and reports whether the caller is the sequencer now.
func (in *inbox) put(s *session, reqs []*block.Request) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, r := range reqs {
		r.State = block.RequestState{Aux: s}
		if in.tail == nil {
			in.head = r
		} else {
			in.tail.State.Next = r
		}
		in.tail = r
	}
	if in.busy {
		return false
	}
	in.busy = true
	return true
}

// take empties the inbox; nil means that the caller's turn as sequencer is over.
func (in *inbox) take() *block.Request {
	in.mu.Lock()
	defer in.mu.Unlock()
	r := in.head
	in.head, in.tail = nil, nil
	if r == nil {
		in.busy = false
	}
	return r
}

// idle reports whether nothing waits to be ordered.
func (in *inbox) idle() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.head == nil
}

// Submit implements block.Session.
func (s *session) Submit(reqs []*block.Request) {
	v := s.v
	if len(reqs) == 0 || !v.inbox.put(s, reqs) {
		return
	}
	if v.crowd.Load() > 0 {
		// Whom the last sync woke want to be in this round: they are about to submit.
		// Where there was but one this would only wake a thread, for nothing.
		runtime.Gosched()
	}
	lone := false
	for r := v.inbox.take(); r != nil; r = v.inbox.take() {
		for r != nil {
			v.admit(r)
			r = v.order(r)
		}
		lone = v.callSyncer()
	}
	if lone {
		_ = v.syncNow() // fault has told everybody of an error
	}
}

// callSyncer has the journal synced if a flush waits for it. A flush that is all
// there is to do is lone: its submitter syncs by itself, which spares it two
// changes of goroutine, and delays nobody.
func (v *Volume) callSyncer() (lone bool) {
	idle := v.inbox.idle()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.syncWant <= v.durable || v.appended <= v.durable {
		return false
	}
	if idle && len(v.flushes) == 1 && v.committed == v.end {
		return true
	}
	kick(v.syncKick)
	return false
}

// admit waits until the volume can take a round that begins with r.
func (v *Volume) admit(r *block.Request) {
	n := int64(0)
	if r.Op == block.OpWrite { // the others have no payload
		n = r.Len
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.await(v.ctx, func() (bool, error) {
		if v.queue.held < v.opts.PendingLimit && v.queue.n < maxQueue && v.journalRoom(n) {
			return true, nil
		}
		if v.limits.judge(r) != nil || v.failure != nil || !v.serving || v.closing || v.noSpace || v.refusesWrites() {
			return true, nil // judge refuses what comes
		}
		kick(v.syncKick)
		kick(v.applyKick)
		kick(v.checkpointKick)
		return false, nil
	})
	v.starved = false // nobody waits any more
}

// maxQueue bounds the records between the journal and the store, which matters
// for trims, whose payload weighs nothing.
const maxQueue = 1 << 17

// journalRoom reports whether the journal can take a round that begins with a
// write of n bytes. v.mu is held.
func (v *Volume) journalRoom(n int64) bool { return v.journalHas(v.limits.room(n)) }

// journalHas reports whether so many bytes of the journal are free, and tells trim if
// they are not. v.mu is held.
func (v *Volume) journalHas(bytes int64) bool {
	v.starved = v.detached == nil && v.journal.Size()-v.journal.Used() < bytes
	return !v.starved
}

// order turns requests into records, up to a round's limits, and returns those
// that are left.
func (v *Volume) order(r *block.Request) (rest *block.Request) {
	v.seq.Lock()
	defer v.seq.Unlock()
	b := &v.scratch
	bytes, durably, ask := int64(0), false, false
	v.mu.Lock()
	first := v.end + 1
	for head := r; r != nil && bytes < v.limits.round && len(b.mem) < roundRecords; {
		if r != head && r.Op == block.OpWrite && r.Len > v.limits.round {
			break // admit waits for room for the first one, and for so much behind it
		}
		next := r.State.Next
		if err := v.judge(r); err != nil {
			refuse(r, err)
		} else if r.Op == block.OpFlush {
			ask = v.addFlush(r, v.end+LSN(len(b.mem))) || ask
		} else {
			b.cut(r, v.limits.record)
			bytes += r.Len
			durably = durably || r.FUA || !v.super.WriteCache
		}
		r = next
	}
	v.enqueue(b)
	if durably { // here and on the peers at the same time, not once it commits
		ask = v.noteSync(v.end) || ask
	}
	if ask || v.end >= first {
		v.handOver(first, bytes)
	}
	notes := v.notes()
	v.mu.Unlock()
	for _, l := range v.lone {
		l.sendNow()
	}
	clear(v.lone)
	v.lone = v.lone[:0]
	v.append(b, notes, false)
	return r
}

// loneBytes is how large a round is at most that the sequencer sends by itself.
const loneBytes = 16 << 10

// handOver sees to it that a round, which begins at first, goes to the peers: by
// their senders, or, if it is all that a peer has to be sent and small, by the
// sequencer itself once it has let go of v.mu. That spares a lone write a change of
// goroutine. v.seq and v.mu are held.
func (v *Volume) handOver(first LSN, bytes int64) {
	for _, p := range v.peers {
		switch l := p.link; {
		case l == nil:
		case bytes <= loneBytes && l.idleBefore(first):
			v.lone = append(v.lone, l)
		default:
			kick(l.kick)
		}
	}
}

// judge says whether a request may be ordered now. v.seq and v.mu are held.
func (v *Volume) judge(r *block.Request) error {
	s := r.State.Aux.(*session)
	switch {
	case s.closed.Load():
		return block.ErrSessionClosed
	case v.failure != nil:
		return v.failure
	case !v.serving || s.term != v.term:
		return block.ErrNotServing
	case v.refusesWrites() && (r.Op != block.OpFlush || v.stable < v.end):
		return ErrNoQuorum
	case r.Op == block.OpFlush:
		return nil
	case r.Off < 0 || r.Len <= 0 || r.Off > v.super.Size-r.Len:
		return fmt.Errorf("%v of %d bytes at %d: %w", r.Op, r.Len, r.Off, block.ErrOutOfRange)
	case v.noSpace:
		return block.ErrNoSpace
	}
	return v.limits.judge(r)
}

// refuse completes a request that was never ordered.
func refuse(r *block.Request, err error) {
	if r.Buf != nil {
		r.Buf.Unref()
		r.Buf = nil
	}
	r.Done.Complete(r, err)
}

// finish completes a request that was ordered: its buffer is the queue's.
func finish(r *block.Request, err error) {
	r.Buf = nil
	r.Done.Complete(r, err)
}

// batch is the working memory of one append.
type batch struct {
	mem  []journal.Record
	reqs []*block.Request // beside mem: the request that a record completes
	recs []*journal.Record
}

// cut makes a request's records. The last one is flagged and carries the
// request; a write's take up to limit bytes each. The buffer's reference is
// multiplied so that each record has its own.
func (b *batch) cut(r *block.Request, limit int64) {
	kind := journal.KindWrite
	var flags uint8
	switch r.Op {
	case block.OpTrim:
		kind, limit = journal.KindTrim, journal.MaxZeroRange
	case block.OpWriteZeroes:
		kind, limit = journal.KindZeroes, journal.MaxZeroRange
		if r.NoHole {
			flags = journal.FlagNoHole
		}
	}
	if parts := (r.Len + limit - 1) / limit; r.Buf != nil && parts > 1 {
		r.Buf.Ref(int32(parts - 1))
	}
	for off := int64(0); off < r.Len; off += limit {
		n := min(limit, r.Len-off)
		rec := journal.Record{Kind: kind, Flags: flags, Offset: r.Off + off, Length: n}
		if kind == journal.KindWrite {
			rec.Buf, rec.Payload = r.Buf, r.Buf.Bytes()[off:off+n]
			rec.PayloadCRC = crc32.Checksum(rec.Payload, journal.Castagnoli)
		}
		b.add(rec, nil)
	}
	b.mem[len(b.mem)-1].Flags |= journal.FlagLast
	b.reqs[len(b.reqs)-1] = r
}

func (b *batch) add(rec journal.Record, req *block.Request) {
	b.mem = append(b.mem, rec)
	b.reqs = append(b.reqs, req)
}

func (b *batch) reset() {
	clear(b.mem)
	clear(b.reqs)
	clear(b.recs)
	b.mem, b.reqs, b.recs = b.mem[:0], b.reqs[:0], b.recs[:0]
}

// enqueue gives a batch its LSNs and CRCs and puts it into the queue, where the
// peers' senders find it once they are kicked. v.seq and v.mu are held.
func (v *Volume) enqueue(b *batch) {
	if len(b.mem) == 0 {
		return
	}
	tag := v.super.History.Last().Tag()
	for i := range b.mem {
		rec := &b.mem[i]
		v.end++
		rec.LSN, rec.Generation = v.end, tag
		v.chain = rec.Seal(v.chain)
		v.queue.push(*rec, b.reqs[i], false)
	}
	if !v.suspended {
		v.pace.ordered(v.end)
	}
}

// append writes a batch that is in the queue to the journal. v.seq is held.
func (v *Volume) append(b *batch, notes journal.Notes, reserve bool) {
	if v.abandoned() {
		v.passOver(b)
		return
	}
	if len(b.mem) > 0 {
		bytes := int64(0)
		for i := range b.mem {
			b.recs = append(b.recs, &b.mem[i])
			bytes += int64(len(b.mem[i].Payload)) + journal.HeaderSize
			v.intent.Mark(b.mem[i].Offset, b.mem[i].Length)
		}
		end := b.mem[len(b.mem)-1].LSN
		if err := v.journal.Append(b.recs, notes, reserve); err != nil {
			v.fault(err)
			b.reset()
			return
		}
		b.reset()
		v.mu.Lock()
		v.appended, v.noted = end, notes.Stable
		v.unsynced += bytes
		v.advance()
	} else {
		v.mu.Lock()
	}
	if v.unsynced > syncBytes {
		kick(v.syncKick)
	}
	v.mu.Unlock()
}
