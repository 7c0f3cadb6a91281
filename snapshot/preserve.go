package snapshot

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"syscall"
)

// A Range of a volume, bytes.
type Range struct{ Off, N int64 }

// A Source is what is being overwritten.
type Source interface {
	io.ReaderAt
	// Extents reports, in order, which parts of a range hold data and which are
	// holes that read as zeroes.
	Extents(off, n int64, report func(off, n int64, data bool) error) error
}

// Preserve keeps what src holds in those ranges, as far as it is not kept
// already, durably: whole blocks. Once it has returned nil they may be
// overwritten. If it fails, what was preserved before the failure stays so, and
// nothing of the ranges may be overwritten. See ErrFull and ErrFailed; any other
// error is one of reading src.
func (s *Snapshot) Preserve(src Source, ranges []Range) error {
	s.write.Lock()
	defer s.write.Unlock()
	if s.failed != nil {
		return s.failed
	}
	defer s.drop()
	// Nobody else adds to the index meanwhile.
	for _, gap := range s.index.missing(ranges, s.info.Size) {
		if err := s.take(src, gap); err != nil {
			return err
		}
	}
	return s.commit()
}

// take puts what src holds in a range into batches.
func (s *Snapshot) take(src Source, r Range) error {
	for off, end := r.Off, r.Off+r.N; off < end; {
		n, data := end-off, true
		err := src.Extents(off, n, func(_, length int64, isData bool) error {
			n, data = length, isData
			return errStop
		})
		if err != nil && !errors.Is(err, errStop) {
			return fmt.Errorf("look for data to preserve at %d: %w", off, err)
		}
		if !data && n >= BlockSize {
			n &^= BlockSize - 1
			if err := s.add(extent{off: off, n: n}); err != nil {
				return err
			}
		} else {
			n = min(roundUp(n), end-off)
			if err := s.takeData(src, off, n); err != nil {
				return err
			}
		}
		off += n
	}
	return nil
}

var errStop = errors.New("enough")

// takeData reads a range. Blocks that turn out to be zeroes are kept without data.
func (s *Snapshot) takeData(src Source, off, n int64) error {
	for n > 0 {
		piece := min(n, maxEntry-off%maxEntry)
		if int64(len(s.data))+piece > maxData {
			if err := s.commit(); err != nil {
				return err
			}
		}
		at := len(s.data)
		s.data = slices.Grow(s.data, int(piece))
		p := s.data[at : at+int(piece)] // what it holds is overwritten
		if k, err := src.ReadAt(p, off); k < len(p) {
			return fmt.Errorf("read what is to be preserved at %d: %w", off, err)
		}
		for in := at; len(p) > 0; {
			run, zero := runOf(p)
			x := extent{off: off, n: int64(run)}
			if !zero {
				x.crc, x.pos = crc32.Checksum(p[:run], castagnoli), hasData
			}
			if err := s.add(x); err != nil {
				return err
			}
			switch {
			case zero:
			case len(s.data) == in: // it is where it belongs
				s.data = s.data[:in+run]
			default:
				s.data = append(s.data, p[:run]...)
			}
			p, in, off, n = p[run:], in+run, off+int64(run), n-int64(run)
		}
	}
	return nil
}

// hasData stands for a place in the file that is not settled yet.
const hasData = 1

// runOf is how many bytes at the beginning of p are blocks of zeroes, or blocks
// that are not.
func runOf(p []byte) (n int, zero bool) {
	zero = allZero(p[:BlockSize])
	for n = BlockSize; n < len(p) && allZero(p[n:n+BlockSize]) == zero; n += BlockSize {
	}
	return n, zero
}

// add puts an extent into the batch that is being made.
func (s *Snapshot) add(x extent) error {
	if last := len(s.entries) - 1; last >= 0 && x.zero() && s.entries[last].zero() && s.entries[last].end() == x.off {
		s.entries[last].n += x.n
		return nil
	}
	if len(s.entries) == maxEntries {
		// The bytes of x, if it has some, are not in s.data yet, but behind it.
		if err := s.commitEntries(); err != nil {
			return err
		}
	}
	s.entries = append(s.entries, x)
	return nil
}

// commit writes the batch and makes it durable; only then is it in the index.
func (s *Snapshot) commit() error {
	if len(s.entries) == 0 {
		return nil
	}
	return s.commitEntries()
}

func (s *Snapshot) commitEntries() error {
	b := batch{id: s.info.ID, seq: s.seq + 1, entries: s.entries}
	head := batchHeader(len(b.entries))
	b.length = head + int64(len(s.data))
	if err := s.room(b.length); err != nil {
		return err
	}
	err := s.file.WritevAt([][]byte{b.encode(), s.data}, s.end)
	if errors.Is(err, syscall.ENOSPC) {
		return s.full(err) // what was written is torn, and will be written over
	}
	if err == nil {
		err = s.file.Datasync()
	}
	if err != nil {
		return s.fail(err)
	}
	data := s.end + head
	s.mu.Lock()
	for _, x := range s.entries {
		if !x.zero() {
			x.pos = data
			data += x.n
		}
		s.index.insert(x)
	}
	s.mu.Unlock()
	s.seq, s.end, s.vouched = b.seq, s.end+b.length, false
	s.used.Store(s.end)
	s.drop()
	return nil
}

// drop forgets the batch that is being made.
func (s *Snapshot) drop() { s.entries, s.data = s.entries[:0], s.data[:0] }

// reserveStep is how much space is taken at least, where there is so much.
const reserveStep = 16 << 20

// room makes sure that n bytes more may be written, and the empty batch behind them:
// a full disk keeps no snapshot from being closed and found again.
func (s *Snapshot) room(n int64) error {
	end := s.end + n
	if s.limit > 0 && end > s.limit {
		return s.full(fmt.Errorf("its limit is %d bytes, and %d are wanted", s.limit, end))
	}
	n += BlockSize
	if s.end+n <= s.reserved {
		return nil
	}
	step := max(n, reserveStep)
	if s.limit > 0 {
		step = min(step, s.limit-s.end+BlockSize)
	}
	for _, n := range []int64{step, n} {
		err := s.file.Reserve(s.end, n)
		if err == nil {
			s.reserved = s.end + n
			return nil
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return s.fail(err)
		}
	}
	return s.full(fmt.Errorf("its disk has no room for %d bytes more", n))
}

// Reserve takes the space for n bytes of data more, so that nobody else does. It
// fails with ErrFull if the limit or the disk do not allow that, and has then
// reserved nothing.
func (s *Snapshot) Reserve(n int64) error {
	s.write.Lock()
	defer s.write.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if n <= 0 { // which a file system refuses to reserve
		return nil
	}
	n += n / 64 // the batches' headers
	if end := s.end + n; s.limit > 0 && end > s.limit {
		return s.full(fmt.Errorf("its limit is %d bytes, and it may become %d", s.limit, end))
	}
	err := s.file.Reserve(s.end, n)
	if errors.Is(err, syscall.ENOSPC) {
		return s.full(fmt.Errorf("its disk has no room for %d bytes", n))
	}
	if err != nil {
		return s.fail(err)
	}
	s.reserved = max(s.reserved, s.end+n)
	return nil
}

func (s *Snapshot) full(err error) error {
	return fmt.Errorf("snapshot %s: %w: %w", s.path, ErrFull, err)
}

// fail makes a failure final.
func (s *Snapshot) fail(err error) error {
	s.failed = fmt.Errorf("write snapshot %s: %w: %w", s.path, ErrFailed, err)
	return s.failed
}
