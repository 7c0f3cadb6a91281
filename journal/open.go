package journal

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
)

func segmentNames(dir disk.FS) ([]string, error) {
	all, err := dir.List()
	if err != nil {
		return nil, fmt.Errorf("list the journal's directory: %w", err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasSuffix(name, ".seg") }), nil
}

// Open finds the journal in dir and where it ends. What a crash left torn at its
// end is cut, durably, and so is whatever Options.Valid refuses; a record that
// had been durable and cannot be read is ErrDamaged, never a shorter journal.
//
// A record is part of the journal if its LSN follows on, its CRC chains to its
// predecessor's, its payload's CRC is right, and Valid accepts its generation.
// Old records in recycled segments fail the first two.
func Open(dir disk.FS, o Options) (_ *Journal, _ State, err error) {
	j, err := load(dir, o)
	if err != nil {
		return nil, State{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.Close())
		}
	}()
	st, clean, err := j.scan()
	if err != nil {
		return nil, State{}, err
	}
	j.end.Store(uint64(st.End))
	j.endCRC = st.EndCRC
	j.publish()
	if !clean {
		if err := j.Truncate(st.End); err != nil {
			return nil, State{}, fmt.Errorf("cut the journal's torn end after LSN %d: %w", st.End, err)
		}
	}
	st.First = j.First()
	return j, st, nil
}

// load reads the segments' headers and links the chain: from the newest
// sequence number back.
func load(dir disk.FS, o Options) (_ *Journal, err error) {
	names, err := segmentNames(dir)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("there is no journal in %v: %w", dir, ErrDamaged)
	}
	j := &Journal{dir: dir}
	var all []*segment
	defer func() {
		if err != nil {
			for _, s := range all {
				err = errors.Join(err, s.f.Close())
			}
		}
	}()
	var newest *segment
	for _, name := range names {
		s, err := openSegment(dir, name)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
		var number int
		if _, err := fmt.Sscanf(name, "%d.seg", &number); err == nil {
			j.files = max(j.files, number)
		}
		if s.seq > 0 && (newest == nil || s.seq > newest.seq) {
			newest = s
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("%w: every segment in %v is free", ErrDamaged, dir)
	}
	j.id, j.lastSeq = newest.id, newest.seq
	o.SegmentSize, o.Size = newest.size, newest.size*int64(newest.most)
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	j.opts = o
	j.link(newest, all)
	return j, nil
}

// link sorts the segments into the chain and the free ones.
func (j *Journal) link(newest *segment, all []*segment) {
	bySeq := make(map[uint64]*segment, len(all))
	for _, s := range all {
		if s.id == j.id && s.seq > 0 {
			bySeq[s.seq] = s
		}
	}
	for s := newest; s != nil; {
		j.chain = append(j.chain, s)
		delete(bySeq, s.seq)
		next := bySeq[s.prev]
		if next != nil && next.seq >= s.seq {
			next = nil
		}
		s = next
	}
	slices.Reverse(j.chain)
	for _, s := range all {
		if !slices.Contains(j.chain, s) {
			j.free = append(j.free, s)
		}
	}
}

// scan reads every record of the chain. clean reports whether the next batch
// can go where the last one ended.
func (j *Journal) scan() (st State, clean bool, err error) {
	first := j.chain[0]
	sc := &scanner{j: j, next: first.first, crc: first.seed}
	st.LastEnd = first.first - 1
	clean = true
	for i, s := range j.chain {
		sc.limit = 0
		if i+1 < len(j.chain) {
			sc.limit = j.chain[i+1].first
		}
		whole, err := sc.segment(s)
		if err != nil {
			return st, false, err
		}
		if !whole {
			// Everything after is dead.
			clean = false
			break
		}
		if i+1 == len(j.chain) {
			clean = sc.clean
		} else if next := j.chain[i+1]; next.first != sc.next || next.seed != sc.crc {
			return st, false, fmt.Errorf("%w: segment %s begins at LSN %d, and the one before ends at LSN %d", ErrDamaged, next.name, next.first, sc.next-1)
		}
	}
	st.End, st.EndCRC, st.Noted = sc.next-1, sc.crc, sc.noted
	st.LastEnd = max(st.LastEnd, sc.lastEnd)
	if st.End >= first.first && st.Noted.Checkpoint < first.first-1 {
		return st, false, fmt.Errorf("%w: it begins at LSN %d, and only what is before LSN %d is noted as no longer needed: segments are missing", ErrDamaged, first.first, st.Noted.Checkpoint+1)
	}
	return st, clean, nil
}

// A scanner reads segments in order.
type scanner struct {
	j       *Journal
	next    LSN // the record that is due
	crc     uint32
	limit   LSN // records from here on are dead, the next segment has them; 0: none
	noted   Notes
	lastEnd LSN
	clean   bool
}

// segment reads one segment. whole reports whether the journal goes on after
// it.
func (sc *scanner) segment(s *segment) (whole bool, err error) {
	sc.clean = true
	for sc.limit == 0 || sc.next < sc.limit {
		h, ok, err := sc.header(s)
		if err != nil {
			return false, err
		}
		if !ok {
			return sc.endOf(s)
		}
		end, why, err := sc.records(s, h)
		if err != nil {
			return false, err
		}
		if why == endDead {
			s.end = end
			return false, nil
		}
		if why == endInvalid {
			sc.clean = false
			return sc.endOf(s)
		}
		sc.note(h.notes)
		s.end, s.tail = sc.next-1, s.tail+padded(h.length)
	}
	return true, nil
}

func (sc *scanner) note(n Notes) {
	sc.noted.Stable = max(sc.noted.Stable, n.Stable)
	sc.noted.Durable = max(sc.noted.Durable, n.Durable)
	sc.noted.Checkpoint = max(sc.noted.Checkpoint, n.Checkpoint)
	sc.noted.SuperblockSeq = max(sc.noted.SuperblockSeq, n.SuperblockSeq)
}

// header reads the batch header at s.tail; ok is false if there is none that
// continues the journal.
func (sc *scanner) header(s *segment) (h batchHeader, ok bool, err error) {
	room := s.size - s.tail
	if room < batchHeaderSize {
		return h, false, nil
	}
	var p [batchHeaderSize]byte
	if _, err := s.f.ReadAt(p[:], s.tail); err != nil {
		return h, false, fmt.Errorf("read segment %s at %d: %w", s.name, s.tail, err)
	}
	ours := h.decode(p[:], room) && h.id == s.id && h.seq == s.seq
	if ours && h.first == sc.next && h.prev == sc.crc {
		return h, true, nil
	}
	// A header of this very life of the segment that does not continue: torn.
	sc.clean = sc.clean && !ours
	return h, false, nil
}

// Why a batch's records ended.
const (
	endWhole   = iota
	endInvalid // torn, or damaged
	endDead    // outside the history
)

// records reads the records of the batch at s.tail and takes them in only if
// all are valid: a batch that is torn was never synced, and goes as a whole.
func (sc *scanner) records(s *segment, h batchHeader) (end LSN, why int, err error) {
	buf := block.Get(int(min(h.length, MaxPayload)))
	defer func() { buf.Unref() }()
	next, crc, lastEnd := sc.next, sc.crc, sc.lastEnd
	at, stop := s.tail+batchHeaderSize, s.tail+h.length
	var head [HeaderSize]byte
	var r Record
	for range h.count {
		if sc.limit != 0 && next >= sc.limit {
			break // the rest was cut off
		}
		if at+HeaderSize > stop {
			return 0, endInvalid, nil
		}
		if _, err := s.f.ReadAt(head[:], at); err != nil {
			return 0, 0, fmt.Errorf("read segment %s at %d: %w", s.name, at, err)
		}
		if r.DecodeHeader(head[:], crc) != nil || r.LSN != next {
			return 0, endInvalid, nil
		}
		n, _ := PayloadLen(head[:])
		at += HeaderSize
		if at+int64(n) > stop {
			return 0, endInvalid, nil
		}
		if n > len(buf.Bytes()) {
			buf.Unref()
			buf = block.Get(n)
		}
		r.Payload = buf.Bytes()[:n]
		if n == 0 {
			r.Payload = nil
		} else if _, err := s.f.ReadAt(r.Payload, at); err != nil {
			return 0, 0, fmt.Errorf("read segment %s at %d: %w", s.name, at, err)
		}
		if r.CheckPayload() != nil {
			return 0, endInvalid, nil
		}
		if !sc.j.opts.Valid(r.LSN, r.Generation) {
			why = endDead
			break
		}
		at += int64(n)
		next, crc = next+1, r.CRC
		if r.Flags&FlagLast != 0 {
			lastEnd = r.LSN
		}
	}
	if next > sc.next {
		s.batches = append(s.batches, batchRef{first: sc.next, off: s.tail})
	}
	sc.next, sc.crc, sc.lastEnd = next, crc, lastEnd
	return next - 1, why, nil
}

// endOf judges a segment in which no valid batch continues the journal: that is
// its end, unless something proves that what is missing had been durable.
func (sc *scanner) endOf(s *segment) (whole bool, err error) {
	damaged := func(proof string) error {
		return fmt.Errorf("%w: segment %s, offset %d: LSN %d is unreadable, and %s", ErrDamaged, s.name, s.tail, sc.next, proof)
	}
	if sc.limit != 0 {
		return false, damaged(fmt.Sprintf("the segment holds everything below LSN %d", sc.limit))
	}
	if sc.noted.Durable >= sc.next {
		return false, damaged(fmt.Sprintf("everything up to LSN %d was noted as durable", sc.noted.Durable))
	}
	for off := s.tail; off+batchHeaderSize <= s.size; off += pageSize {
		var p [batchHeaderSize]byte
		var h batchHeader
		if _, err := s.f.ReadAt(p[:], off); err != nil {
			return false, fmt.Errorf("read segment %s at %d: %w", s.name, off, err)
		}
		if !h.decode(p[:], s.size-off) || h.id != s.id || h.seq != s.seq || h.first < sc.next {
			continue
		}
		if h.notes.Durable >= sc.next && (h.count == 0 || sc.j.opts.Valid(h.first+LSN(h.count)-1, h.tag)) {
			return false, damaged(fmt.Sprintf("a batch at offset %d notes that everything up to LSN %d was durable", off, h.notes.Durable))
		}
	}
	return true, nil
}
