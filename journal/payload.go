package journal

import "fmt"

// ReadPayload reads len(p) bytes of the payload of lsn, from byte skip of it on,
// and checks its CRC. ErrTrimmed: the record has left the journal. ErrDamaged:
// it cannot be read. The way to it is the batch that holds it, from an index in
// memory, and from there its headers one by one.
func (j *Journal) ReadPayload(lsn LSN, skip int64, p []byte) error {
	s, from, ok, err := j.locate(lsn)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("read the payload of LSN %d: the journal ends at LSN %d", lsn, j.End())
	}
	rec, err := readAt(s, from, lsn)
	defer drop(&rec)
	j.mu.Lock()
	closed, gone := j.closed.Load(), s.gone || lsn > s.end
	j.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case gone:
		return fmt.Errorf("LSN %d: %w", lsn, ErrTrimmed)
	case err != nil:
		return fmt.Errorf("%w: segment %s, LSN %d: %w", ErrDamaged, s.name, lsn, err)
	case skip < 0 || skip+int64(len(p)) > int64(len(rec.Payload)):
		return fmt.Errorf("read %d bytes from %d on of the payload of LSN %d, which has %d", len(p), skip, lsn, len(rec.Payload))
	}
	copy(p, rec.Payload[skip:])
	return nil
}

func readAt(s *segment, from place, lsn LSN) (rec Record, err error) {
	var c cursor
	if err := c.open(s, from, lsn); err != nil {
		return rec, err
	}
	for l := c.first; l <= lsn && err == nil; l++ {
		drop(&rec) // of the record before, if that is no write
		err = c.read(&rec, l == lsn)
	}
	return rec, err
}
