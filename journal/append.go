package journal

import "fmt"

var zeroPage [pageSize]byte

// Append writes records, in order, and what n notes, in one vectored write per
// segment touched, and returns when they are written, not when they are
// durable. The records must follow on the newest one, sealed; it panics if they
// do not, for what was written could not be read again. It keeps nothing of
// them. Without records it writes a batch that only notes. n.Durable is filled
// in: nobody knows it better.
//
// ErrFull: no segment is free, or none can be made; nothing was written. One
// segment is kept back for callers that set reserve. Any other error is final.
func (j *Journal) Append(recs []*Record, n Notes, reserve bool) error {
	rolls, err := j.checkAppend(recs, reserve)
	if err != nil {
		return err
	}
	if err := j.ensureFree(rolls); err != nil {
		return err
	}
	for {
		off := j.place()
		fit := j.fits(recs, j.opts.SegmentSize-off)
		if fit < 0 {
			j.leave()
			if err := j.roll(); err != nil {
				return err
			}
			continue
		}
		if err := j.appendBatch(recs[:fit], n, off); err != nil {
			return err
		}
		if recs = recs[fit:]; len(recs) == 0 {
			j.makeAhead()
			return nil
		}
	}
}

// checkAppend returns how many new segments the records need.
func (j *Journal) checkAppend(recs []*Record, reserve bool) (rolls int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return 0, err
	}
	next, crc := j.End()+1, j.endCRC
	for _, r := range recs {
		if r.LSN != next || r.chain(crc, &j.scratch) != r.CRC {
			panic(fmt.Sprintf("journal: record LSN %d appended after LSN %d, or not chained to it", r.LSN, next-1))
		}
		next, crc = next+1, r.CRC
	}
	rolls = j.rolls(recs)
	most := int(j.opts.segments())
	if !reserve {
		most--
	}
	// What is in use already may go on being filled, but for the last segment.
	if len(j.chain)+rolls > most && (rolls > 0 || !reserve) {
		return 0, fmt.Errorf("%w: %d of %d segments are in use; trim it", ErrFull, len(j.chain), j.opts.segments())
	}
	return rolls, nil
}

// rolls is how many segments the records begin. j.mu is held.
func (j *Journal) rolls(recs []*Record) (n int) {
	room, empty := j.opts.SegmentSize-padded(j.tail().tail), j.opts.SegmentSize-firstBatch
	for {
		fit := j.fits(recs, room)
		if fit < 0 {
			if room == empty {
				panic(fmt.Sprintf("journal: LSN %d is larger than a segment", recs[0].LSN))
			}
			n, room = n+1, empty
			continue
		}
		if recs = recs[fit:]; len(recs) == 0 {
			return n
		}
		n, room = n+1, empty
	}
}

// place says where the next batch goes: right behind the last one, or in the
// next page if a sync may have made durable what lies in this one. Until leave,
// a sync that begins waits for the batch.
func (j *Journal) place() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.tail() // only the appender changes which one it is
	if j.sealed {
		s.tail, j.sealed = padded(s.tail), false
	}
	j.sharing = s.tail%pageSize != 0
	return s.tail
}

// leave ends what place began.
func (j *Journal) leave() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.left()
}

// left is leave with j.mu held.
func (j *Journal) left() {
	j.sharing = false
	j.unshared.Broadcast()
}

// fits is how many of recs one batch of at most room bytes takes; -1 if it has
// no room for what there is.
func (j *Journal) fits(recs []*Record, room int64) int {
	room -= batchHeaderSize
	if room < 0 {
		return -1
	}
	for i, r := range recs {
		if room -= HeaderSize + int64(len(r.Payload)); room < 0 {
			if i == 0 {
				return -1
			}
			return i
		}
	}
	return len(recs)
}

// appendBatch writes one batch, which fits, to the last segment at off.
func (j *Journal) appendBatch(recs []*Record, n Notes, off int64) error {
	j.mu.Lock()
	s := j.tail()
	h := batchHeader{count: len(recs), id: s.id, seq: s.seq, first: j.End() + 1, prev: j.endCRC, notes: n}
	h.notes.Durable = j.Durable()
	j.mu.Unlock()
	err := s.f.WritevAt(j.encode(&h, recs, off), off)
	clear(j.vec) // the payloads are the caller's
	j.mu.Lock()
	defer j.mu.Unlock()
	j.left()
	if err != nil {
		return j.fail(fmt.Errorf("append LSN %d to segment %s at %d: %w", h.first, s.name, off, err))
	}
	s.tail = behind(off, h.length)
	j.written++
	j.notes.raise(h.notes)
	if len(recs) > 0 {
		last := recs[len(recs)-1]
		s.index(h.first, off)
		s.markRecords(recs, off+batchHeaderSize, off+h.length)
		s.end = last.LSN
		j.endCRC = last.CRC
		j.end.Store(uint64(last.LSN))
	}
	j.publish()
	return nil
}

// encode lays a batch out that begins at off: headers from the journal's own
// scratch, payloads where they are, and zeroes to the end of its last page, so
// that the kernel need not read what it has not in memory.
func (j *Journal) encode(h *batchHeader, recs []*Record, off int64) [][]byte {
	need := batchHeaderSize + len(recs)*HeaderSize
	if cap(j.head) < need {
		j.head = make([]byte, need)
	}
	head := j.head[:need]
	j.vec = j.vec[:0]
	h.length = int64(need)
	at, from := batchHeaderSize, 0 // head[from:at] is not in vec yet
	for _, r := range recs {
		r.EncodeHeader(head[at:])
		at += HeaderSize
		if len(r.Payload) > 0 {
			j.vec = append(j.vec, head[from:at], r.Payload)
			from = at
			h.length += int64(len(r.Payload))
		}
		h.tag = r.Generation
	}
	h.encode(head)
	if from < at {
		j.vec = append(j.vec, head[from:at])
	}
	if end := off + h.length; end < padded(end) {
		j.vec = append(j.vec, zeroPage[:padded(end)-end])
	}
	return j.vec
}

// raise makes each note the greater one.
func (n *Notes) raise(o Notes) {
	n.Stable = max(n.Stable, o.Stable)
	n.Durable = max(n.Durable, o.Durable)
	n.Checkpoint = max(n.Checkpoint, o.Checkpoint)
	n.SuperblockSeq = max(n.SuperblockSeq, o.SuperblockSeq)
}
