package mirror

import (
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/journal"
)

// maxSplitRanges is how many ranges a SplitSide lists at most.
const maxSplitRanges = 1024

// measureTries bounds how often a measurement begins anew because records left
// the journal under it.
const measureTries = 10

// measureSplit says what this replica has past c, which the peer's history does
// not have, and which blocks that may be in: all of them, nil, if that is not
// known. What the journal still holds is exact; of what left it the peer's
// out-of-sync bitmap has the blocks (invariant 5, retention or bitmap), if it is
// relative to no later record than c.
func (v *Volume) measureSplit(p *peer, c LSN) (side SplitSide, blocks *bitmap.Blocks, err error) {
	for range measureTries {
		side, blocks, err = v.measureOnce(p, c)
		if !errors.Is(err, journal.ErrTrimmed) {
			break
		}
	}
	return side, blocks, err
}

func (v *Volume) measureOnce(p *peer, c LSN) (SplitSide, *bitmap.Blocks, error) {
	v.mu.Lock()
	h, end, first := v.super.History, v.end, max(c+1, v.journal.First())
	if v.detached != nil {
		first = end + 1 // its journal counts for nothing
	}
	s := SplitSide{
		Node: v.opts.Node, Role: v.role, Disk: v.disk(), End: end, Stable: v.stable,
		Writes: h.Writes(c+1, end), Trimmed: h.Writes(c+1, min(first-1, end)),
		Generations: generationsPast(h, c, end, v.genNotes),
	}
	v.mu.Unlock()
	set := rangeSet{limit: maxSplitRanges}
	blocks := bitmap.NewBlocks(v.store.Size())
	if s.Trimmed > 0 {
		base := p.bits.Base()
		held := h.Holds(Position{Generation: base.Generation, LSN: LSN(base.LSN)}, end)
		s.Accuracy = RangesBlocks
		if !held || LSN(base.LSN) > c || v.diskless() {
			s.Accuracy, blocks = RangesUnknown, nil
		} else {
			blocks.Merge(p.bits.Blocks)
			for off, n, ok := blocks.Next(0); ok; off, n, ok = blocks.Next(off + n) {
				set.add(off, n)
			}
		}
	}
	if first <= end {
		err := v.scanHeaders(first, end, func(r *journal.Record) {
			if r.Kind == journal.KindGeneration {
				return
			}
			s.Bytes += r.Length
			set.add(r.Offset, r.Length)
			if blocks != nil {
				blocks.Set(r.Offset, r.Length)
			}
		})
		if err != nil {
			return SplitSide{}, nil, err
		}
	}
	s.Ranges = set.ranges()
	if set.filled {
		s.Accuracy = max(s.Accuracy, RangesFilled)
	}
	return s, blocks, nil
}

// scanHeaders calls f with the header of each record from … upTo that is in the
// journal by now.
func (v *Volume) scanHeaders(from, upTo LSN, f func(*journal.Record)) error {
	r, err := v.journal.NewReader(from)
	if err != nil {
		return fmt.Errorf("read the journal from LSN %d: %w", from, err)
	}
	defer r.Close()
	for {
		var rec journal.Record
		ok, err := r.NextHeader(&rec)
		if err != nil {
			return fmt.Errorf("read the journal past LSN %d: %w", from, err)
		}
		if rec.Buf != nil {
			rec.Buf.Unref()
		}
		if !ok || rec.LSN > upTo {
			return nil
		}
		f(&rec)
	}
}
