package journal

import (
	"fmt"
	"slices"
)

// roll ends the last segment, which is made durable first, and begins another:
// every segment but the last is durable as a whole.
func (j *Journal) roll() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	if err := j.syncLocked(); err != nil {
		return err
	}
	j.mu.Lock()
	h := segmentHeader{
		id: j.id, prev: j.tail().seq, oldest: j.chain[0].seq,
		first: j.End() + 1, seed: j.endCRC, notes: j.notes,
	}
	j.mu.Unlock()
	return j.begin(h, func(s *segment) { j.chain = append(j.chain, s) })
}

// begin makes a free segment the newest one. Its header is durable before link,
// with j.mu held, puts it into the chain: until then the journal on disk is the
// old one, and what the segment once held is still whole. j.syncMu is held.
func (j *Journal) begin(h segmentHeader, link func(*segment)) error {
	if err := j.ensureFree(1); err != nil {
		return err
	}
	j.mu.Lock()
	old := j.free[0]
	j.free = slices.Delete(j.free, 0, 1)
	h.seq, h.size, h.most = j.tail().seq+1, j.opts.SegmentSize, j.opts.segments()
	j.mu.Unlock()
	if h.oldest == 0 {
		h.oldest = h.seq
	}
	s := old.next(h)
	err := s.writeHeader()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.free = append(j.free, old)
		return j.fail(err)
	}
	link(s)
	j.publish()
	return nil
}

// made is the outcome of making a segment.
type made struct {
	s   *segment
	err error
}

// makeAhead makes the next segment once the last one is half full, for it takes
// long. Should it fail, whoever needs the segment tries again and is told.
func (j *Journal) makeAhead() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.opts.noAhead || j.making != nil || len(j.free) > 0 || j.files >= int(j.opts.segments()) || j.tail().tail < j.opts.SegmentSize/2 {
		return
	}
	number, h, done := j.files+1, j.freeHeader(), make(chan made, 1)
	j.making = done
	go func() {
		s, err := createSegment(j.dir, number, h)
		done <- made{s, err}
	}()
}

// awaitMade waits for the segment that is being made, if one is.
func (j *Journal) awaitMade() {
	if j.making == nil {
		return
	}
	m := <-j.making
	j.making = nil
	if m.err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.files++
	j.free = append(j.free, m.s)
}

// ensureFree makes sure of n free segments. It goes beyond Options.Size if need
// be: Append does not ask for that, and a truncation may not fail for it.
func (j *Journal) ensureFree(n int) error {
	for {
		j.mu.Lock()
		missing, number, h := n > len(j.free), j.files+1, j.freeHeader()
		j.mu.Unlock()
		if !missing {
			return nil
		}
		if j.making != nil {
			j.awaitMade()
			continue
		}
		s, err := createSegment(j.dir, number, h)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		j.mu.Lock()
		j.files++
		j.free = append(j.free, s)
		j.mu.Unlock()
	}
}

// freeHeader is the header of a segment that holds nothing yet.
func (j *Journal) freeHeader() segmentHeader {
	return segmentHeader{first: 1, size: j.opts.SegmentSize, most: j.opts.segments()}
}
