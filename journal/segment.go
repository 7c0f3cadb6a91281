package journal

import (
	"errors"
	"fmt"
	"sort"

	"github.com/lockstep-storage/lockstep/disk"
)

// A segment is one file of the journal. Journal.mu guards what changes.
type segment struct {
	name string
	f    disk.File
	segmentHeader
	end     LSN   // its last record that is part of the journal; first-1 without one
	tail    int64 // where the next batch goes
	batches []batchRef
}

// batchRef says where a batch with records lies.
type batchRef struct {
	first LSN
	off   int64
}

// find returns the place of the batch that holds lsn.
func (s *segment) find(lsn LSN) batchRef {
	i := sort.Search(len(s.batches), func(i int) bool { return s.batches[i].first > lsn })
	return s.batches[i-1]
}

// writeHeader makes h the segment's header, durably: one copy after the other,
// so that a crash tears at most one of them.
func (s *segment) writeHeader(h segmentHeader) error {
	var p [segmentHeaderSize]byte
	h.encode(p[:])
	for _, off := range []int64{0, pageSize} {
		if _, err := s.f.WriteAt(p[:], off); err != nil {
			return fmt.Errorf("write the header of segment %s: %w", s.name, err)
		}
		if err := s.f.Datasync(); err != nil {
			return fmt.Errorf("sync the header of segment %s: %w", s.name, err)
		}
	}
	s.segmentHeader = h
	s.end, s.tail = h.first-1, firstBatch
	s.batches = s.batches[:0]
	return nil
}

// createSegment makes a free segment, written full of zeroes: a sync of blocks
// that were written before takes half the time.
func createSegment(dir disk.FS, number int, id uint64, o *Options) (*segment, error) {
	size := o.SegmentSize
	name := fmt.Sprintf("%04d.seg", number)
	tmp := name + ".tmp"
	_ = dir.Remove(tmp)
	f, err := dir.Create(tmp)
	if err != nil {
		return nil, fmt.Errorf("create segment %s: %w", name, err)
	}
	s := &segment{name: name, f: f}
	err = func() error {
		zero := make([]byte, 1<<20)
		for off := int64(0); off < size; off += int64(len(zero)) {
			if _, err := f.WriteAt(zero[:min(int64(len(zero)), size-off)], off); err != nil {
				return err
			}
		}
		if err := s.writeHeader(segmentHeader{id: id, size: o.SegmentSize, most: o.segments(), first: 1}); err != nil {
			return err
		}
		if err := dir.Rename(tmp, name); err != nil {
			return err
		}
		return dir.SyncDir()
	}()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create segment %s of %d bytes: %w", name, size, err), f.Close())
	}
	return s, nil
}

// openSegment reads a segment's header: the newer of the two copies that are
// whole.
func openSegment(dir disk.FS, name string) (*segment, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open segment %s: %w", name, err)
	}
	s := &segment{name: name, f: f}
	var errs []error
	found := false
	for _, off := range []int64{0, pageSize} {
		var p [segmentHeaderSize]byte
		var h segmentHeader
		if _, err := f.ReadAt(p[:], off); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := h.decode(p[:]); err != nil {
			errs = append(errs, err)
			continue
		}
		if !found || h.seq > s.seq {
			s.segmentHeader, found = h, true
		}
	}
	for _, err := range errs {
		if errors.Is(err, errVersion) {
			return nil, errors.Join(fmt.Errorf("segment %s: %w", name, err), f.Close())
		}
	}
	if !found {
		return nil, errors.Join(fmt.Errorf("%w: segment %s: both copies of its header are unreadable: %w", ErrDamaged, name, errors.Join(errs...)), f.Close())
	}
	s.end, s.tail = s.first-1, firstBatch
	return s, nil
}
