package journal

import (
	"bytes"
	"fmt"
)

// scan reads every record of the chain. clean reports whether the next batch
// can go where the last one ended.
func (j *Journal) scan(v *Visitor) (st State, clean bool, err error) {
	first := j.chain[0]
	sc := &scanner{valid: j.opts.Valid, visit: v, found: j.opts.Found, next: first.first, crc: first.seed, lastEnd: first.first - 1}
	defer sc.w.stop()
	end := endClean
	for i, s := range j.chain {
		sc.begin(s, j.chain[i+1:])
		if end, err = sc.segment(); err != nil {
			return st, false, err
		}
		if end == endDead {
			break // and so is everything after
		}
	}
	st = State{First: first.first, End: sc.next - 1, EndCRC: sc.crc, LastEnd: sc.lastEnd, Noted: sc.noted}
	st.Noted.Durable = min(st.Noted.Durable, st.End)
	return st, end == endClean, nil
}

// A scanner reads segments in order.
type scanner struct {
	valid   func(LSN, uint64) bool
	visit   *Visitor
	found   func(*Record, Notes)
	batch   []Record // those of a batch that is being read, for found
	marks   []mark   // of that batch
	s       *segment
	w       stream
	next    LSN // the record that is due
	crc     uint32
	limit   LSN // records from here on are dead, the next segment has them; 0: none
	noted   Notes
	lastEnd LSN // the newest record with FlagLast
}

// How a segment, or a batch, ended.
type ending int

const (
	endClean ending = iota // nothing follows
	endTorn                // something unreadable follows, or what does not belong
	endDead                // records follow that are outside the history
)

func (sc *scanner) begin(s *segment, after []*segment) {
	sc.s, sc.limit = s, 0
	sc.w.begin(s.f, s.size)
	if len(after) > 0 {
		sc.limit = after[0].first
	}
	sc.noted.raise(s.notes)
	sc.visit.segment(s)
}

// segment reads one segment.
func (sc *scanner) segment() (ending, error) {
	s := sc.s
	if s.first != sc.next || s.seed != sc.crc {
		return 0, fmt.Errorf("%w: segment %s begins at LSN %d, CRC %08x; the one before ends at LSN %d, CRC %08x",
			ErrDamaged, s.name, s.first, s.seed, sc.next-1, sc.crc)
	}
	for {
		h, ok, err := sc.header()
		if err != nil {
			return 0, err
		}
		if sc.limit != 0 && sc.next == sc.limit && (!ok || h.count > 0) {
			return endClean, nil // the next segment goes on; what is here is dead
		}
		if !ok {
			return sc.endOf("no batch continues the journal there")
		}
		end, why, err := sc.records(h)
		if err != nil {
			return 0, err
		}
		if end == endTorn {
			return sc.endOf(why)
		}
		if end == endDead {
			// Dead or not, this very journal wrote it under that superblock: if it
			// is newer than ours, it is ours that is wrong about what is dead.
			sc.noted.SuperblockSeq = max(sc.noted.SuperblockSeq, h.notes.SuperblockSeq)
			return endDead, nil
		}
		sc.noted.raise(h.notes)
		s.tail = behind(s.tail, h.length)
	}
}

// header reads the header of the batch that continues the journal, which lies at
// s.tail or, and then s.tail is moved there, in the next page. ok is false if
// there is none.
func (sc *scanner) header() (h batchHeader, ok bool, err error) {
	s := sc.s
	for _, off := range [...]int64{s.tail, padded(s.tail)} {
		if s.size-off < batchHeaderSize {
			return h, false, nil
		}
		p, err := sc.read(off, batchHeaderSize)
		if err != nil {
			return h, false, err
		}
		if h.decode(p, s.size-off) && h.id == s.id && h.seq == s.seq && h.first == sc.next && h.prev == sc.crc {
			s.tail = off
			return h, true, nil
		}
	}
	return h, false, nil
}

// records takes the records of the batch at s.tail in, if all of them that are
// not dead are valid.
func (sc *scanner) records(h batchHeader) (end ending, why string, err error) {
	s := sc.s
	next, crc, lastEnd := sc.next, sc.crc, sc.lastEnd
	at, stop := s.tail+batchHeaderSize, s.tail+h.length
	sc.visit.batch(s.tail, h)
	clear(sc.batch)
	sc.batch, sc.marks = sc.batch[:0], sc.marks[:0]
	for i := 0; i < h.count && (sc.limit == 0 || next < sc.limit); i++ {
		var r Record
		n, why, err := sc.record(&r, at, stop, crc)
		if err != nil || why != "" {
			return endTorn, why, err
		}
		if r.LSN != next {
			return endTorn, fmt.Sprintf("a record of LSN %d is in its place", r.LSN), nil
		}
		if !sc.valid(r.LSN, r.Generation) {
			end = endDead
			break
		}
		sc.visit.record(at, &r)
		sc.keep(&r)
		if i > 0 && i%markEvery == 0 {
			sc.marks = append(sc.marks, mark{next, at, stop, crc, h.count - i})
		}
		at += n
		next, crc = next+1, r.CRC
		if r.Flags&FlagLast != 0 {
			lastEnd = r.LSN
		}
	}
	if next > sc.next {
		s.index(sc.next, s.tail)
		s.marks = append(s.marks, sc.marks...)
	}
	sc.next, sc.crc, sc.lastEnd, s.end = next, crc, lastEnd, next-1
	for i := range sc.batch {
		sc.found(&sc.batch[i], sc.noted)
	}
	return end, "", nil
}

// keep remembers a record until its batch turns out to be whole: without its
// payload, which the window may overwrite by then, if it is a write.
func (sc *scanner) keep(r *Record) {
	if sc.found == nil {
		return
	}
	k := *r
	k.Payload = nil
	if r.Kind != KindWrite {
		k.Payload = bytes.Clone(r.Payload)
	}
	sc.batch = append(sc.batch, k)
}

// record reads the record at at, of a batch that ends at stop. why says what is
// wrong with it.
func (sc *scanner) record(r *Record, at, stop int64, crc uint32) (n int64, why string, err error) {
	if at+HeaderSize > stop {
		return 0, "its batch ends before it", nil
	}
	p, err := sc.read(at, HeaderSize)
	if err != nil {
		return 0, "", err
	}
	if err := r.DecodeHeader(p, crc); err != nil {
		return 0, err.Error(), nil
	}
	size, err := PayloadLen(p)
	if err != nil {
		return 0, err.Error(), nil
	}
	n = HeaderSize + int64(size)
	if at+n > stop {
		return 0, "its batch ends within it", nil
	}
	if size > 0 {
		if r.Payload, err = sc.read(at+HeaderSize, size); err != nil {
			return 0, "", err
		}
	}
	if err := r.CheckPayload(); err != nil {
		return 0, err.Error(), nil
	}
	return n, "", nil
}

// endOf judges a segment in which no valid batch continues the journal: that is
// its end, unless something proves that what is missing had been durable. A
// non-last segment was synced as a whole; of the last one a later batch may
// note how far it was.
func (sc *scanner) endOf(why string) (ending, error) {
	s := sc.s
	damaged := func(proof string) error {
		return fmt.Errorf("%w: segment %s, offset %d, LSN %d: %s; but %s", ErrDamaged, s.name, s.tail, sc.next, why, proof)
	}
	if sc.limit != 0 {
		return 0, damaged(fmt.Sprintf("the segment was durable up to LSN %d", sc.limit-1))
	}
	if sc.noted.Durable >= sc.next {
		return 0, damaged(fmt.Sprintf("the journal was durable up to LSN %d", sc.noted.Durable))
	}
	end := endClean
	for off := s.tail; off+batchHeaderSize <= s.size; off += batchAlign {
		p, err := sc.read(off, batchHeaderSize)
		if err != nil {
			return 0, err
		}
		var h batchHeader
		if !h.decode(p, s.size-off) || h.id != s.id || h.seq != s.seq {
			continue
		}
		// Of this very life of the segment. What is written next must not meet
		// it by chance.
		end = endTorn
		if h.first >= sc.next && h.notes.Durable >= sc.next && sc.vouches(h) {
			return 0, damaged(fmt.Sprintf("the batch at offset %d notes that the journal was durable up to LSN %d", off, h.notes.Durable))
		}
	}
	return end, nil
}

// vouches reports whether a batch is within the history, so that its notes are
// about this journal. One without records has no generation; it is believed.
func (sc *scanner) vouches(h batchHeader) bool {
	return h.count == 0 || sc.valid(h.first+LSN(h.count)-1, h.tag)
}

func (sc *scanner) read(off int64, n int) ([]byte, error) {
	p, err := sc.w.at(off, n)
	if err != nil {
		return nil, fmt.Errorf("read segment %s at %d: %w", sc.s.name, off, err)
	}
	return p, nil
}
