package journal

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/lockstep-storage/lockstep/disk"
)

// A segment is one life of one of the journal's files, from header to header.
// Journal.mu guards what changes.
type segment struct {
	name string
	f    disk.File
	segmentHeader
	gone    bool       // no longer in the chain; its bytes may be another's
	end     LSN        // its last record that is part of the journal; first-1 without one
	tail    int64      // where the next batch goes, or in the next page
	batches []batchRef // the first that begins in each page: at most 0.4 % of the file's size
	marks   []mark     // within long batches
	worn    bool       // one copy of the header is unreadable, or older
}

// batchRef says where a batch with records lies. Those behind it that begin in
// the same page are found from there, one by one.
type batchRef struct {
	first LSN
	off   int64
}

// A mark says where a record lies within a long batch, so that nobody has to walk
// there from the batch's beginning. Every markEvery records have one.
type mark struct {
	lsn  LSN
	off  int64  // of the record
	stop int64  // where its batch ends
	crc  uint32 // of the record before it
	left int    // records of the batch, it included
}

const markEvery = 64

// A place is where to begin to look for a record: at a mark, if it has an LSN, else
// at a batch.
type place struct {
	batch batchRef
	mark  mark
}

func newSegment(name string, f disk.File, h segmentHeader) *segment {
	return &segment{name: name, f: f, segmentHeader: h, end: h.first - 1, tail: firstBatch}
}

// next is the file's next life. The memory of the index lives on.
func (s *segment) next(h segmentHeader) *segment {
	n := newSegment(s.name, s.f, h)
	n.batches, n.marks = s.batches[:0], s.marks[:0]
	return n
}

// index notes where a batch with records lies, if it is the first of its page.
func (s *segment) index(first LSN, off int64) {
	if n := len(s.batches); n == 0 || s.batches[n-1].off/pageSize < off/pageSize {
		s.batches = append(s.batches, batchRef{first, off})
	}
}

// markRecords marks a batch's records; the first lies at off, the batch ends at stop.
func (s *segment) markRecords(recs []*Record, off, stop int64) {
	if len(recs) <= markEvery {
		return
	}
	for i, r := range recs {
		if i > 0 && i%markEvery == 0 {
			s.marks = append(s.marks, mark{r.LSN, off, stop, recs[i-1].CRC, len(recs) - i})
		}
		off += HeaderSize + int64(len(r.Payload))
	}
}

// find returns where to begin to look for lsn.
func (s *segment) find(lsn LSN) place {
	i := sort.Search(len(s.batches), func(i int) bool { return s.batches[i].first > lsn })
	p := place{batch: s.batches[i-1]}
	i = sort.Search(len(s.marks), func(i int) bool { return s.marks[i].lsn > lsn })
	if i > 0 && s.marks[i-1].lsn > p.batch.first {
		p.mark = s.marks[i-1]
	}
	return p
}

// cut makes c the last record that counts.
func (s *segment) cut(c LSN) {
	s.end = c
	for n := len(s.batches); n > 0 && s.batches[n-1].first > c; n-- {
		s.batches = s.batches[:n-1]
	}
	for n := len(s.marks); n > 0 && s.marks[n-1].lsn > c; n-- {
		s.marks = s.marks[:n-1]
	}
}

// headerCopies are the offsets of the two copies of a segment's header.
var headerCopies = [2]int64{0, pageSize}

// writeHeader writes the header, durably: one copy after the other, so that a
// crash tears at most one of them.
func (s *segment) writeHeader() error {
	var p [segmentHeaderSize]byte
	s.encode(p[:])
	for _, off := range headerCopies {
		if _, err := s.f.WriteAt(p[:], off); err != nil {
			return fmt.Errorf("write the header of segment %s: %w", s.name, err)
		}
		if err := s.f.Datasync(); err != nil {
			return fmt.Errorf("sync the header of segment %s: %w", s.name, err)
		}
	}
	s.worn = false
	return nil
}

const (
	segmentSuffix = ".seg"
	tmpSuffix     = ".tmp"
)

func segmentName(number int) string { return fmt.Sprintf("%04d%s", number, segmentSuffix) }

// IsSegment reports whether a file of that name is one of a journal's: a segment,
// one that a crash left half made, or one that was set aside.
func IsSegment(name string) bool { return strings.Contains(name, segmentSuffix) }

func segmentNames(dir disk.FS) ([]string, error) {
	all, err := dir.List()
	if err != nil {
		return nil, fmt.Errorf("list the journal's directory: %w", err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasSuffix(name, segmentSuffix) }), nil
}

// createSegment makes a segment, written full of zeroes: a sync of blocks that
// were written before takes half the time. It has its name only once it is whole.
func createSegment(dir disk.FS, number int, h segmentHeader) (*segment, error) {
	name := segmentName(number)
	f, err := dir.Create(name + tmpSuffix)
	if err == nil {
		return fillSegment(dir, newSegment(name, f, h))
	}
	// Left by a crash, perhaps.
	if rerr := dir.Remove(name + tmpSuffix); rerr == nil {
		if f, err = dir.Create(name + tmpSuffix); err == nil {
			return fillSegment(dir, newSegment(name, f, h))
		}
	}
	return nil, fmt.Errorf("create segment %s in %v: %w", name, dir, err)
}

// fillSize is how much of a new segment is written at once. The page cache keeps
// what one write brought as one folio, whose every block is looked at when some of
// it is written again: the larger, the more a small append costs.
const fillSize = 256 << 10

func fillSegment(dir disk.FS, s *segment) (*segment, error) {
	err := func() error {
		zero := make([]byte, min(s.size, fillSize))
		for off := int64(0); off < s.size; off += int64(len(zero)) {
			if _, err := s.f.WriteAt(zero[:min(int64(len(zero)), s.size-off)], off); err != nil {
				return err
			}
		}
		if err := s.writeHeader(); err != nil {
			return err
		}
		if err := dir.Rename(s.name+tmpSuffix, s.name); err != nil {
			return err
		}
		return dir.SyncDir()
	}()
	if err == nil {
		return s, nil
	}
	err = fmt.Errorf("create segment %s of %d bytes in %v: %w", s.name, s.size, dir, err)
	return nil, errors.Join(err, s.f.Close())
}

// openSegment reads a segment's header: the newer of the two copies that are
// whole.
func openSegment(dir disk.FS, name string) (*segment, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open segment %s: %w", name, err)
	}
	s, err := readHeader(name, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func readHeader(name string, f disk.File) (*segment, error) {
	var errs []error
	var found []segmentHeader
	// Both copies in one read: after two small ones the kernel takes what follows for
	// small reads too, and reading ahead makes half of what it can. Of a file that is
	// unreadable in part each is read alone.
	var both [pageSize + segmentHeaderSize]byte
	_, bothErr := f.ReadAt(both[:], 0)
	for _, off := range headerCopies {
		p := both[off:][:segmentHeaderSize]
		var h segmentHeader
		err := bothErr
		if err != nil {
			_, err = f.ReadAt(p, off)
		}
		if err == nil {
			err = h.decode(p)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("copy at %d: %w", off, err))
			continue
		}
		found = append(found, h)
	}
	err := errors.Join(errs...)
	if len(found) == 0 {
		if errors.Is(err, ErrVersion) {
			return nil, fmt.Errorf("segment %s: %w", name, err)
		}
		return nil, fmt.Errorf("%w: segment %s: no copy of its header is readable: %w", ErrDamaged, name, err)
	}
	newer := slices.MaxFunc(found, func(a, b segmentHeader) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("segment %s: %w", name, err)
	}
	if size < newer.size {
		return nil, fmt.Errorf("%w: segment %s has %d bytes of %d", ErrDamaged, name, size, newer.size)
	}
	s := newSegment(name, f, newer)
	s.worn = len(found) < 2 || found[0] != found[1]
	return s, nil
}
