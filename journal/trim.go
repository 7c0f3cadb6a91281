package journal

import (
	"fmt"
)

// Trim lets the segments go whose records are all at or below upTo; never the
// last one. They are free, durably, before they are used again. Why that is
// safe is the owner's affair (invariant 5, retention or bitmap).
//
// The owner has a durable note of a checkpoint at or past what it trims: Open
// takes a journal that begins later than that for damaged.
func (j *Journal) Trim(upTo LSN) error {
	for {
		j.mu.Lock()
		s := j.chain[0]
		last := len(j.chain) == 1 || s.end > upTo
		if !last {
			j.chain = append(j.chain[:0:0], j.chain[1:]...)
		}
		j.mu.Unlock()
		if last {
			return nil
		}
		if err := j.release(s); err != nil {
			return err
		}
	}
}

// release makes a segment that is no longer in the chain free, durably. Readers
// see at once that it is gone.
func (j *Journal) release(s *segment) error {
	j.mu.Lock()
	s.seq = 0
	j.publish()
	j.mu.Unlock()
	err := s.writeHeader(segmentHeader{id: j.id, size: j.opts.SegmentSize, most: j.opts.segments(), first: 1})
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		return j.fail(err)
	}
	j.free = append(j.free, s)
	return nil
}

// Truncate drops every record past c, durably: a new segment begins at c+1,
// linked to the one that holds c, and what lies beyond is dead. c may be First-1.
func (j *Journal) Truncate(c LSN) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	if c+1 < j.First() || c > j.End() {
		return fmt.Errorf("truncate to LSN %d a journal that holds LSN %d to %d", c, j.First(), j.End())
	}
	if err := j.syncLocked(); err != nil {
		return err
	}
	crc, err := j.crcOf(c)
	if err != nil {
		return err
	}
	j.mu.Lock()
	keep := 0
	for keep < len(j.chain) && j.chain[keep].first <= c {
		keep++
	}
	h := segmentHeader{first: c + 1, seed: crc}
	if keep > 0 {
		h.prev = j.chain[keep-1].seq
	}
	dead := append([]*segment(nil), j.chain[keep:]...)
	j.mu.Unlock()
	err = j.begin(h, func(s *segment) {
		if keep > 0 {
			holder := j.chain[keep-1]
			holder.end = c
			for n := len(holder.batches); n > 0 && holder.batches[n-1].first > c; n-- {
				holder.batches = holder.batches[:n-1]
			}
		}
		j.chain = append(j.chain[:keep:keep], s)
		j.end.Store(uint64(c))
		j.durable.Store(uint64(c))
		j.endCRC = crc
	})
	if err != nil {
		return err
	}
	for _, s := range dead {
		if err := j.release(s); err != nil {
			return err
		}
	}
	return nil
}

// crcOf is the CRC of record c, which the record after it is chained to.
func (j *Journal) crcOf(c LSN) (uint32, error) {
	j.mu.Lock()
	first, end, endCRC := j.chain[0], j.End(), j.endCRC
	j.mu.Unlock()
	switch c {
	case end:
		return endCRC, nil
	case first.first - 1:
		return first.seed, nil
	}
	r, err := j.NewReader(c)
	if err != nil {
		return 0, err
	}
	var rec Record
	ok, err := r.Next(&rec)
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, fmt.Errorf("LSN %d is past the journal's end", c)
	}
	defer drop(&rec)
	return rec.CRC, nil
}

// Reset empties the journal, under a new id: its next record is next, chained
// to seed. After a crash Open finds the old journal or the empty new one.
func (j *Journal) Reset(next LSN, seed uint32) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	id, err := newID()
	if err != nil {
		return err
	}
	j.mu.Lock()
	old := append([]*segment(nil), j.chain...)
	j.mu.Unlock()
	err = j.begin(segmentHeader{id: id, first: next, seed: seed}, func(s *segment) {
		j.id = id
		j.chain = []*segment{s}
		j.end.Store(uint64(next - 1))
		j.durable.Store(uint64(next - 1))
		j.endCRC = seed
	})
	if err != nil {
		return err
	}
	for _, s := range old {
		if err := j.release(s); err != nil {
			return err
		}
	}
	return nil
}
