package snapshot

import (
	"fmt"
	"hash/crc32"
	"io"
)

// ReadAt reads the image: len(p) bytes at off, from what is preserved or else from
// src, while others overwrite that.
func (s *Snapshot) ReadAt(src io.ReaderAt, p []byte, off int64) error {
	if off < 0 || off > s.info.Size-int64(len(p)) {
		return fmt.Errorf("read %d bytes at %d of a snapshot of %d", len(p), off, s.info.Size)
	}
	for len(p) > 0 {
		s.mu.RLock()
		x, end, ok := s.index.at(off)
		s.mu.RUnlock()
		n := min(int64(len(p)), end-off)
		if ok {
			if err := s.readExtent(x, p[:n], off-x.off); err != nil {
				return err
			}
		} else {
			if k, err := src.ReadAt(p[:n], off); int64(k) < n {
				return fmt.Errorf("read the image of snapshot %s at %d: %w", s.path, off, err)
			}
			// A block is preserved before it is overwritten. So what is still not
			// preserved was read as it was.
			s.mu.RLock()
			changed := s.index.any(off, n)
			s.mu.RUnlock()
			if changed {
				continue
			}
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readExtent reads len(p) bytes of an extent, at byte skip of it.
func (s *Snapshot) readExtent(x extent, p []byte, skip int64) error {
	if x.zero() {
		clear(p)
		return nil
	}
	data, err := s.dataOf(x)
	if err == nil {
		copy(p, data[skip:])
	}
	return err
}

// dataOf reads the data of an extent, all of it, for its CRC is of all.
func (s *Snapshot) dataOf(x extent) ([]byte, error) {
	data, err := s.read(x.pos, x.n)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s.path, err)
	}
	if crc := crc32.Checksum(data, castagnoli); crc != x.crc {
		return nil, fmt.Errorf("snapshot %s: %w", s.path, s.damaged(x.pos, fmt.Sprintf("%d bytes preserved of %d have CRC %08x, not %08x", x.n, x.off, crc, x.crc)))
	}
	return data, nil
}

// Verify reads everything that is preserved, and returns the first damage.
func (s *Snapshot) Verify() error {
	s.write.Lock()
	defer s.write.Unlock()
	return s.index.all(func(x extent) error {
		if x.zero() {
			return nil
		}
		_, err := s.dataOf(x)
		return err
	})
}

// A Target is what an image is written back to.
type Target interface {
	io.WriterAt
	// Zero makes a range read as zeroes; with punch its space may be given back.
	Zero(off, n int64, punch bool) error
	// Sync makes every finished write durable.
	Sync() error
}

// Restore writes what is preserved over dst, durably: then dst holds the image.
// Nobody else may write to dst from the beginning of the first attempt on; one that
// did not come to its end may be repeated.
func (s *Snapshot) Restore(dst Target) error {
	s.write.Lock()
	defer s.write.Unlock()
	err := s.index.all(func(x extent) error {
		if x.zero() {
			if err := dst.Zero(x.off, x.n, true); err != nil {
				return fmt.Errorf("restore %d bytes of zeroes at %d: %w", x.n, x.off, err)
			}
			return nil
		}
		data, err := s.dataOf(x)
		if err != nil {
			return err
		}
		if _, err := dst.WriteAt(data, x.off); err != nil {
			return fmt.Errorf("restore %d bytes at %d: %w", x.n, x.off, err)
		}
		return nil
	})
	if err == nil {
		err = dst.Sync()
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", s.path, err)
	}
	return nil
}

// A Piece is a range of the image that is preserved; zero: all of it is zeroes.
type Piece struct {
	Range
	Zero bool
}

// Pieces are what is preserved by now, by offset: everywhere else the image is what
// the store holds. One with data has at most 256 KiB, one of zeroes 16 MiB.
func (s *Snapshot) Pieces() []Piece {
	s.mu.RLock()
	defer s.mu.RUnlock()
	pieces := make([]Piece, 0, s.index.extents)
	_ = s.index.all(func(x extent) error { // which is that of the function
		pieces = append(pieces, Piece{Range{x.off, x.n}, x.zero()})
		return nil
	})
	return pieces
}
