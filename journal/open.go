package journal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/lockstep-storage/lockstep/disk"
)

// Open finds the journal in dir and where it ends. Size and SegmentSize are the
// journal's own, not those of o. What a crash left torn at its end is cut,
// durably, and so is whatever Options.Valid refuses; a record that had been
// durable and cannot be read is ErrDamaged, never a shorter journal.
//
// A record is part of the journal if its LSN follows on, its CRC chains to its
// predecessor's, its payload's CRC is right, and Valid accepts its generation.
// Old records in recycled segments fail the first two. A batch that is torn was
// never synced, and goes as a whole.
//
// What it finds may be in the page cache only: it is durable after Sync.
func Open(dir disk.FS, o Options) (_ *Journal, _ State, err error) {
	j, err := load(dir, o)
	if err != nil {
		return nil, State{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.Close())
		}
	}()
	st, clean, err := j.scan(nil)
	if err != nil {
		return nil, State{}, err
	}
	if o.Accept != nil {
		if err := o.Accept(st); err != nil {
			return nil, State{}, err
		}
	}
	j.end.Store(uint64(st.End))
	j.endCRC, j.notes = st.EndCRC, st.Noted
	j.durable.Store(uint64(max(st.Noted.Durable, j.tail().first-1)))
	j.publish()
	if err := j.recoverNames(); err != nil {
		return nil, State{}, err
	}
	if err := j.heal(); err != nil {
		return nil, State{}, err
	}
	if err := j.recoverTail(st.Noted.Durable); err != nil {
		return nil, State{}, err
	}
	if !clean {
		if err := j.Truncate(st.End); err != nil {
			return nil, State{}, fmt.Errorf("cut the journal's torn end after LSN %d: %w", st.End, err)
		}
	}
	return j, st, nil
}

// load reads the segments' headers and links the chain: from the newest
// sequence number back.
func load(dir disk.FS, o Options) (_ *Journal, err error) {
	all, err := openSegments(dir)
	defer func() {
		if err != nil {
			for _, s := range all {
				err = errors.Join(err, s.f.Close())
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	newest := slices.MaxFunc(all, func(a, b *segment) int { return cmp.Compare(a.seq, b.seq) })
	if newest.seq == 0 {
		return nil, fmt.Errorf("%w: every segment in %v is free", ErrDamaged, dir)
	}
	j := &Journal{dir: dir, files: len(all), id: newest.id, readers: map[*Reader]struct{}{}, sealed: true}
	j.unshared.L = &j.mu
	o.SegmentSize, o.Size, o.AnySize = newest.size, newest.size*int64(newest.most), true
	if err := o.ensureDefaults(); err != nil {
		return nil, fmt.Errorf("%w: segment %s: %w", ErrDamaged, newest.name, err)
	}
	j.opts = o
	return j, j.link(newest, all)
}

// openSegments opens every segment. Their numbers have no gap, or one is lost.
func openSegments(dir disk.FS) (all []*segment, err error) {
	names, err := segmentNames(dir)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: there is no journal in %v", ErrDamaged, dir)
	}
	for i, name := range names {
		if want := segmentName(i + 1); !slices.Contains(names, want) {
			return all, fmt.Errorf("%w: segment %s is missing in %v", ErrDamaged, want, dir)
		}
		s, err := openSegment(dir, name)
		if err != nil {
			return all, err
		}
		all = append(all, s)
	}
	return all, nil
}

// link sorts the segments into the chain, back to the oldest one needed, and
// the free ones.
func (j *Journal) link(newest *segment, all []*segment) error {
	bySeq := make(map[uint64]*segment, len(all))
	for _, s := range all {
		if s.seq > 0 && bySeq[s.seq] != nil {
			return fmt.Errorf("%w: segments %s and %s have the same sequence number %d", ErrDamaged, bySeq[s.seq].name, s.name, s.seq)
		}
		bySeq[s.seq] = s
	}
	for s := newest; ; {
		if s.size != newest.size || s.id != j.id {
			return fmt.Errorf("%w: segment %s is of journal %016x, with %d bytes; the newest one, %s, of %016x, with %d", ErrDamaged, s.name, s.id, s.size, newest.name, newest.id, newest.size)
		}
		j.chain = append(j.chain, s)
		if s.seq == newest.oldest {
			break
		}
		prev := bySeq[s.prev]
		if s.prev == 0 || prev == nil || s.prev >= s.seq || s.prev < newest.oldest {
			return fmt.Errorf("%w: the segment with sequence number %d, before %s, is missing", ErrDamaged, s.prev, s.name)
		}
		s = prev
	}
	slices.Reverse(j.chain)
	for _, s := range all {
		if !slices.Contains(j.chain, s) {
			s.gone = true
			j.free = append(j.free, s)
		}
	}
	return nil
}
