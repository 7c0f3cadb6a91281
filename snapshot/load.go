package snapshot

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A lastBatch is the last one of a file, whole.
type lastBatch struct {
	pos int64
	raw []byte // nil: there is none
}

// load reads the header and every batch's, and the data of the last one. It
// changes nothing in the file.
func (s *Snapshot) load(size int64) (last lastBatch, err error) {
	if err := s.readHeader(size); err != nil {
		return last, err
	}
	s.end = firstBatch
	var held batch // its entries are not in the index yet: it may be torn
	for {
		b, why, err := s.readBatch(s.end)
		if err != nil {
			return last, err
		}
		if why == "" && b.seq != s.seq+1 {
			return last, s.damaged(s.end, fmt.Sprintf("batch %d stands where %d is due", b.seq, s.seq+1))
		}
		if why != "" {
			break
		}
		if err := s.enter(held); err != nil {
			return last, err
		}
		held, last.pos = b, s.end
		s.seq, s.end = b.seq, s.end+b.length
	}
	if held.seq > 0 {
		raw, why, err := s.readWhole(last.pos, &held)
		if err != nil {
			return last, err
		}
		if why == "" {
			last.raw, s.vouched = raw, len(held.entries) == 0
			if err := s.enter(held); err != nil {
				return last, err
			}
		} else {
			s.seq, s.end = held.seq-1, last.pos
			// What is before it was synced before it was begun, and this may
			// have been all of it: it is written over, and vouched for anew.
			last = lastBatch{}
		}
	}
	if err := s.noMore(); err != nil {
		return last, err
	}
	s.used.Store(s.end)
	s.vouched = s.vouched || s.seq == 0
	return last, nil
}

// readHeader takes either copy.
func (s *Snapshot) readHeader(size int64) error {
	var errs [2]error
	var infos [2]Info
	for i := range infos {
		p, err := s.read(int64(i)*headerSize, headerSize)
		if err != nil {
			return err
		}
		if errs[i] = infos[i].decode(p); errors.Is(errs[i], ErrVersion) {
			return errs[i]
		}
	}
	switch {
	case errs[0] == nil:
		s.info = infos[0]
	case errs[1] == nil:
		s.info = infos[1]
	default:
		return fmt.Errorf("neither copy of the header can be read: %w; %w", errs[0], errs[1])
	}
	if s.info.Size != size {
		return fmt.Errorf("%w: a volume of %d bytes, and this one has %d", ErrMismatch, s.info.Size, size)
	}
	return nil
}

// read reads n bytes at pos; what lies past the file's end reads as zeroes.
func (s *Snapshot) read(pos, n int64) ([]byte, error) {
	p := make([]byte, n)
	if k, err := s.file.ReadAt(p, pos); int64(k) < n && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read at %d: %w", pos, err)
	}
	return p, nil
}

// readBatch reads the header of the batch at pos, or says why there is none.
func (s *Snapshot) readBatch(pos int64) (b batch, why string, err error) {
	p, err := s.read(pos, BlockSize)
	if err != nil {
		return b, "", err
	}
	length, ok := claims(p, s.info.ID)
	if !ok {
		return b, "no batch begins there", nil
	}
	if length > BlockSize {
		if p, err = s.read(pos, length); err != nil {
			return b, "", err
		}
	}
	if err := b.decode(p, pos, s.info.Size); err != nil {
		return b, err.Error(), nil
	}
	return b, "", nil
}

// readWhole reads a batch with its data, or says what is wrong with that.
func (s *Snapshot) readWhole(pos int64, b *batch) (raw []byte, why string, err error) {
	if raw, err = s.read(pos, b.length); err != nil {
		return nil, "", err
	}
	for _, x := range b.entries {
		if !x.zero() && crc32.Checksum(raw[x.pos-pos:][:x.n], castagnoli) != x.crc {
			return nil, fmt.Sprintf("the data of %d bytes at %d is not what was written", x.n, x.off), nil
		}
	}
	return raw, "", nil
}

// enter puts a batch into the index.
func (s *Snapshot) enter(b batch) error {
	for _, x := range b.entries {
		if !s.index.insert(x) {
			return fmt.Errorf("%w: batch %d preserves %d bytes at %d, of which some are preserved already", ErrDamaged, b.seq, x.n, x.off)
		}
	}
	return nil
}

// noMore makes sure that the file ends where a crash can have ended it: a batch is
// begun once all before it are durable. One that is lost has at most maxBatch
// bytes, so the next one is found.
func (s *Snapshot) noMore() error {
	const window = 1 << 20
	size, err := s.file.Size()
	if err != nil {
		return err
	}
	for from := s.end; from <= s.end+maxBatch && from < size; from += window {
		p, err := s.read(from, window)
		if err != nil {
			return err
		}
		for at := int64(0); at < window; at += BlockSize {
			if _, ok := claims(p[at:at+BlockSize], s.info.ID); !ok || from+at == s.end {
				continue
			}
			b, why, err := s.readBatch(from + at)
			if err != nil {
				return err
			}
			if why == "" && b.seq > s.seq {
				return s.damaged(s.end, fmt.Sprintf("batch %d cannot be read, and there is batch %d at %d", s.seq+1, b.seq, from+at))
			}
		}
	}
	return nil
}

func (s *Snapshot) damaged(pos int64, what string) error {
	return fmt.Errorf("%w: at %d: %s", ErrDamaged, pos, what)
}
