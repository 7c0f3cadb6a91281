package journal

import "fmt"

// Truncate drops every record past c, durably: a new segment begins at c+1,
// linked to the one that holds c, and what lies beyond is dead (replication.md
// 6). That segment is the terminator; nothing is rewritten in place, so a crash
// leaves either the old journal or the new one. c may be First-1.
func (j *Journal) Truncate(c LSN) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	if c+1 < j.First() || c > j.End() {
		return fmt.Errorf("truncate to LSN %d a journal that holds LSN %d to %d", c, j.First(), j.End())
	}
	if err := j.syncLocked(); err != nil {
		return err
	}
	crc, err := j.CRCOf(c)
	if err != nil {
		return fmt.Errorf("truncate to LSN %d: %w", c, err)
	}
	j.mu.Lock()
	keep := 0
	for keep < len(j.chain) && j.chain[keep].first <= c {
		keep++
	}
	h := segmentHeader{id: j.id, first: c + 1, seed: crc, notes: j.notes.upTo(c)}
	if keep > 0 {
		h.prev, h.oldest = j.chain[keep-1].seq, j.chain[0].seq
	}
	j.mu.Unlock()
	return j.begin(h, func(s *segment) {
		if keep > 0 {
			j.chain[keep-1].cut(c)
		}
		j.release(j.chain[keep:])
		j.chain = append(j.chain[:keep:keep], s)
		j.restart(c, crc, h.notes)
	})
}

// Reset empties the journal, durably, under a new id: its next record is next,
// chained to seed. After a crash Open finds the old journal or the empty new one.
func (j *Journal) Reset(next LSN, seed uint32) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	err := j.usable()
	notes := j.notes.upTo(next - 1)
	j.mu.Unlock()
	if err != nil {
		return err
	}
	id, err := newID()
	if err != nil {
		return err
	}
	return j.begin(segmentHeader{id: id, first: next, seed: seed, notes: notes}, func(s *segment) {
		j.id = id
		j.release(j.chain)
		j.chain = []*segment{s}
		for r := range j.readers {
			r.cut = true
		}
		j.restart(next-1, seed, notes)
	})
}

// restart makes c, which is durable, the journal's end. j.mu is held.
func (j *Journal) restart(c LSN, crc uint32, notes Notes) {
	for r := range j.readers {
		r.cut = r.cut || r.next > c+1
	}
	j.end.Store(uint64(c))
	j.durable.Store(uint64(c))
	j.endCRC, j.notes = crc, notes
}

// upTo is what may still be said of a journal that ends at c.
func (n Notes) upTo(c LSN) Notes {
	return Notes{
		Stable: min(n.Stable, c), Durable: min(n.Durable, c),
		Checkpoint: min(n.Checkpoint, c), SuperblockSeq: n.SuperblockSeq,
	}
}

// CRCOf is the CRC of record c, First-1 to End, which the record after it is
// chained to.
func (j *Journal) CRCOf(c LSN) (uint32, error) {
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
	defer r.Close()
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
