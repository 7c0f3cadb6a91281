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
	next LSN

	// Where the reader is within a batch; left is 0 between two.
	s    *segment
	seq  uint64
	off  int64
	crc  uint32
	left int
}

// NewReader reads from LSN from on, which must be in the journal or the next
// one to come.
func (j *Journal) NewReader(from LSN) (*Reader, error) {
	if from < j.First() {
		return nil, fmt.Errorf("LSN %d, the journal begins at %d: %w", from, j.First(), ErrTrimmed)
	}
	if from > j.End()+1 {
		return nil, fmt.Errorf("read from LSN %d of a journal that ends at LSN %d", from, j.End())
	}
	return &Reader{j: j, next: from}, nil
}

// Close ends the reader.
func (r *Reader) Close() error { return nil }

// Next reads the next record into rec, whose payload lies in a buffer with one
// reference for the caller, and checks its CRCs. It reports false at the
// journal's end; a later call goes on. ErrTrimmed: the record has left the
// journal since.
func (r *Reader) Next(rec *Record) (bool, error) {
	*rec = Record{}
	if r.left == 0 {
		if ok, err := r.seek(); !ok || err != nil {
			return false, err
		}
	}
	for {
		err := r.read(rec)
		if r.moved() {
			drop(rec)
			return false, fmt.Errorf("LSN %d: %w", r.next, ErrTrimmed)
		}
		if err != nil {
			return false, fmt.Errorf("%w: segment %s, offset %d, LSN %d: %w", ErrDamaged, r.s.name, r.off, r.next, err)
		}
		if rec.LSN == r.next {
			r.next++
			return true, nil
		}
		drop(rec) // before the one that was asked for
	}
}

func drop(rec *Record) {
	if rec.Buf != nil {
		rec.Buf.Unref()
	}
	*rec = Record{}
}

// seek finds the batch that holds r.next.
func (r *Reader) seek() (bool, error) {
	s, ref, seq, ok, err := r.j.locate(r.next)
	if !ok || err != nil {
		return false, err
	}
	var p [batchHeaderSize]byte
	var h batchHeader
	_, err = s.f.ReadAt(p[:], ref.off)
	r.s, r.seq = s, seq
	if r.moved() {
		return false, fmt.Errorf("LSN %d: %w", r.next, ErrTrimmed)
	}
	if err == nil && (!h.decode(p[:], s.size-ref.off) || h.seq != seq) {
		err = errors.New("batch header is unreadable")
	}
	if err != nil {
		return false, fmt.Errorf("%w: segment %s, offset %d, LSN %d: %w", ErrDamaged, s.name, ref.off, r.next, err)
	}
	r.off, r.crc, r.left = ref.off+batchHeaderSize, h.prev, h.count
	return true, nil
}

// locate finds the batch of an LSN. ok is false past the journal's end.
func (j *Journal) locate(lsn LSN) (s *segment, ref batchRef, seq uint64, ok bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed.Load() {
		return nil, ref, 0, false, ErrClosed
	}
	if lsn < j.chain[0].first {
		return nil, ref, 0, false, fmt.Errorf("LSN %d, the journal begins at %d: %w", lsn, j.chain[0].first, ErrTrimmed)
	}
	for i := len(j.chain) - 1; i >= 0; i-- {
		if s := j.chain[i]; s.first <= lsn {
			if lsn > s.end {
				return nil, ref, 0, false, nil
			}
			return s, s.find(lsn), s.seq, true, nil
		}
	}
	return nil, ref, 0, false, nil
}

// moved reports whether the segment was recycled, or cut before what was read.
func (r *Reader) moved() bool {
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	return r.s.seq != r.seq || r.next > r.s.end || r.next < r.j.chain[0].first
}

// read reads the record at r.off.
func (r *Reader) read(rec *Record) error {
	var head [HeaderSize]byte
	if _, err := r.s.f.ReadAt(head[:], r.off); err != nil {
		return err
	}
	if err := rec.DecodeHeader(head[:], r.crc); err != nil {
		return err
	}
	n, err := PayloadLen(head[:])
	if err != nil {
		return err
	}
	at := r.off + HeaderSize
	if n > 0 {
		rec.Buf = block.Get(n)
		rec.Payload = rec.Buf.Bytes()
		_, err = r.s.f.ReadAt(rec.Payload, at)
	}
	if err == nil {
		err = rec.CheckPayload()
	}
	if err != nil {
		drop(rec)
		return err
	}
	r.off, r.crc = at+int64(n), rec.CRC
	r.left--
	return nil
}

// ReadPayload reads len(p) bytes of the payload of lsn, from byte skip of it on.
// The CRC is not checked: it was, when the record was written or recovered.
// ErrTrimmed: the record has left the journal.
func (j *Journal) ReadPayload(lsn LSN, skip int64, p []byte) error {
	s, ref, seq, ok, err := j.locate(lsn)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("LSN %d is past the journal's end", lsn)
	}
	at := ref.off + batchHeaderSize
	var head [HeaderSize]byte
	for l := ref.first; err == nil; l++ {
		if _, err = s.f.ReadAt(head[:], at); err != nil {
			break
		}
		n := int64(le.Uint32(head[36:]))
		at += HeaderSize
		if l == lsn {
			if skip+int64(len(p)) > n {
				err = fmt.Errorf("payload of %d bytes, %d from %d on are asked for", n, len(p), skip)
				break
			}
			_, err = s.f.ReadAt(p, at+skip)
			break
		}
		at += n
	}
	j.mu.Lock()
	moved := s.seq != seq || lsn > s.end || lsn < j.chain[0].first
	j.mu.Unlock()
	if moved {
		return fmt.Errorf("LSN %d: %w", lsn, ErrTrimmed)
	}
	if err != nil {
		return fmt.Errorf("read the payload of LSN %d in segment %s: %w", lsn, s.name, err)
	}
	return nil
}
