package journal

import (
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/block"
)

// A Reader reads records in order, beside the appender. It is for one goroutine
// at a time.
type Reader struct {
	j    *Journal
	next LSN  // j.mu
	cut  bool // j.mu: what was read is no longer part of the journal

	s      *segment
	batch  cursor
	within bool // batch has records left
	w      window
}

// NewReader reads from LSN from on, which must be in the journal or the next
// one to come. ErrTrimmed: it has left the journal.
func (j *Journal) NewReader(from LSN) (*Reader, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed.Load() {
		return nil, ErrClosed
	}
	if from < j.First() {
		return nil, fmt.Errorf("LSN %d, the journal begins at %d: %w", from, j.First(), ErrTrimmed)
	}
	if from > j.End()+1 {
		return nil, fmt.Errorf("read from LSN %d of a journal that ends at LSN %d", from, j.End())
	}
	r := &Reader{j: j, next: from}
	j.readers[r] = struct{}{}
	return r, nil
}

// Close ends the reader; the journal forgets it.
func (r *Reader) Close() error {
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	delete(r.j.readers, r)
	return nil
}

// Next reads the next record into rec, whose payload lies in a buffer with one
// reference for the caller, and checks its CRCs. It reports false at the
// journal's end; a later call goes on. ErrTrimmed: the record has left the
// journal since, or what was read before it was truncated. ErrDamaged: it
// cannot be read.
func (r *Reader) Next(rec *Record) (bool, error) { return r.read(rec, true) }

// NextHeader is Next, but leaves the payload of a write where it is, and does
// not check it: ReadPayload does. Of other kinds of records it reads it.
func (r *Reader) NextHeader(rec *Record) (bool, error) { return r.read(rec, false) }

func (r *Reader) read(rec *Record, payload bool) (bool, error) {
	*rec = Record{}
	for {
		if !r.within {
			if ok, err := r.seek(); !ok || err != nil {
				return false, err
			}
		}
		err := r.batch.read(rec, payload)
		switch found, serr := r.settle(rec.LSN, err == nil); {
		case serr != nil:
			drop(rec)
			return false, serr
		case found == elsewhere:
			r.within = false
		case err != nil:
			return false, r.damaged(r.batch.off, err)
		default:
			r.within = r.batch.left > 0
			if found == due {
				return true, nil
			}
		}
		drop(rec)
	}
}

func (r *Reader) damaged(off int64, err error) error {
	return fmt.Errorf("%w: segment %s, offset %d, LSN %d: %w", ErrDamaged, r.s.name, off, r.next, err)
}

func drop(rec *Record) {
	if rec.Buf != nil {
		rec.Buf.Unref()
	}
	*rec = Record{}
}

// What bytes that were read turned out to be.
type finding int

const (
	early     finding = iota // before the record that is due
	due                      // that record
	elsewhere                // no longer the journal's; it is to be looked for again
)

// settle judges, after bytes were read, whether they were the journal's, and
// takes the record if it is the one that is due.
func (r *Reader) settle(lsn LSN, read bool) (finding, error) {
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	switch {
	case r.j.closed.Load():
		return 0, ErrClosed
	case r.cut:
		return 0, fmt.Errorf("LSN %d: %w", r.next, ErrTrimmed)
	case r.s.gone || r.next > r.s.end:
		return elsewhere, nil
	case read && lsn == r.next:
		r.next++
		return due, nil
	}
	return early, nil
}

// seek finds the batch that holds r.next; ok is false at the journal's end.
func (r *Reader) seek() (ok bool, err error) {
	for {
		r.j.mu.Lock()
		next, cut := r.next, r.cut
		r.j.mu.Unlock()
		if cut {
			return false, fmt.Errorf("LSN %d: %w", next, ErrTrimmed)
		}
		s, from, ok, err := r.j.locate(next)
		if !ok || err != nil {
			return false, err
		}
		r.ahead(s)
		oerr := r.batch.open(s, from, next)
		found, err := r.settle(0, false)
		switch {
		case err != nil:
			return false, err
		case found == elsewhere:
			continue
		case oerr != nil:
			return false, r.damaged(from.batch.off, oerr)
		}
		r.within = true
		return true, nil
	}
}

// ahead lets the cursor read ahead in s, up to what has been appended by now:
// behind that, what is read may be written a moment later.
func (r *Reader) ahead(s *segment) {
	if r.s != s {
		r.w = window{f: s.f, buf: r.w.buf}
	}
	r.j.mu.Lock()
	r.w.size = s.tail
	r.j.mu.Unlock()
	r.s, r.batch.w = s, &r.w
}

// locate finds where to begin to look for an LSN. ok is false past the journal's end.
func (j *Journal) locate(lsn LSN) (s *segment, from place, ok bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed.Load() {
		return nil, from, false, ErrClosed
	}
	if first := j.chain[0].first; lsn < first {
		return nil, from, false, fmt.Errorf("LSN %d, the journal begins at %d: %w", lsn, first, ErrTrimmed)
	}
	for i := len(j.chain) - 1; i >= 0; i-- {
		if s := j.chain[i]; s.first <= lsn {
			if lsn > s.end {
				return nil, from, false, nil
			}
			return s, s.find(lsn), true, nil
		}
	}
	return nil, from, false, nil
}

// A cursor walks the records of one batch.
type cursor struct {
	s     *segment
	w     *window // of s, to read ahead in; nil reads what is asked for
	first LSN     // that it reads: the batch's, or that of a mark
	off   int64   // of the next record
	stop  int64   // where the batch ends
	crc   uint32
	left  int
	head  [batchHeaderSize]byte // scratch
}

// open finds the batch that holds lsn, beginning at from, and reads its header unless
// a mark stands in for that.
func (c *cursor) open(s *segment, from place, lsn LSN) error {
	c.s = s
	first, off := from.batch.first, from.batch.off
	if m := &from.mark; m.lsn > 0 {
		if first, off = m.lsn+LSN(m.left), behind(m.stop, 0); lsn < first {
			c.first, c.off, c.stop, c.crc, c.left = m.lsn, m.off, m.stop, m.crc, m.left
			return nil
		}
	}
	for {
		if err := c.readAt(c.head[:], off); err != nil {
			return err
		}
		var h batchHeader
		if !h.decode(c.head[:], s.size-off) || h.id != s.id || h.seq != s.seq || h.first != first {
			return errors.New("batch header is unreadable")
		}
		if next := first + LSN(h.count); next <= lsn {
			first, off = next, behind(off, h.length)
			continue
		}
		c.first, c.off, c.stop, c.crc, c.left = first, off+batchHeaderSize, off+h.length, h.prev, h.count
		return nil
	}
}

// readAt fills p from the segment's byte off.
func (c *cursor) readAt(p []byte, off int64) error {
	if c.w != nil && len(p) < readAhead && off+int64(len(p)) <= c.w.size {
		// If it cannot, what is wrong may lie behind what is asked for.
		if b, err := c.w.at(off, len(p)); err == nil {
			copy(p, b)
			return nil
		}
	}
	_, err := c.s.f.ReadAt(p, off)
	return err
}

// read reads the next record; its payload too, into a buffer, if that is wanted
// or it is no write.
func (c *cursor) read(rec *Record, payload bool) error {
	if c.left == 0 || c.off+HeaderSize > c.stop {
		return fmt.Errorf("%w: it is not in its batch", ErrRecord)
	}
	head := c.head[:HeaderSize]
	if err := c.readAt(head, c.off); err != nil {
		return err
	}
	if err := rec.DecodeHeader(head, c.crc); err != nil {
		return err
	}
	n, err := PayloadLen(head)
	if err != nil {
		return err
	}
	at := c.off + HeaderSize
	if at+int64(n) > c.stop {
		return fmt.Errorf("%w: LSN %d: its payload ends past its batch", ErrRecord, rec.LSN)
	}
	if payload || rec.Kind != KindWrite {
		if err := c.readPayload(rec, at, n); err != nil {
			return err
		}
	}
	c.off, c.crc, c.left = at+int64(n), rec.CRC, c.left-1
	return nil
}

func (c *cursor) readPayload(rec *Record, at int64, n int) (err error) {
	if n > 0 {
		rec.Buf = block.Get(n)
		rec.Payload = rec.Buf.Bytes()
		err = c.readAt(rec.Payload, at)
	}
	if err == nil {
		err = rec.CheckPayload()
	}
	if err != nil {
		drop(rec)
	}
	return err
}
