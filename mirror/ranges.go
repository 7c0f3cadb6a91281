package mirror

import (
	"cmp"
	"slices"
)

// A Range of a volume, bytes.
type Range struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

func (r Range) end() int64 { return r.Offset + r.Length }

// A rangeSet gathers ranges, in any order, as sorted ones that do not touch. It
// keeps some multiple of limit of them while it gathers, and limit in the end:
// beyond that the narrowest gaps are taken for part of what lies around them.
type rangeSet struct {
	limit  int
	list   []Range
	filled bool // a gap was filled
}

func (s *rangeSet) add(off, n int64) {
	if n <= 0 {
		return
	}
	if last := len(s.list) - 1; last >= 0 && s.list[last].end() == off {
		s.list[last].Length += n
		return
	}
	if len(s.list) >= 16*s.limit {
		s.compact(8 * s.limit)
	}
	s.list = append(s.list, Range{off, n})
}

// ranges is what was gathered. Nothing is to be added afterwards.
func (s *rangeSet) ranges() []Range {
	s.compact(s.limit)
	return slices.Clip(s.list)
}

// compact sorts the list, joins what touches, and fills gaps until no more than
// limit are left.
func (s *rangeSet) compact(limit int) {
	slices.SortFunc(s.list, func(a, b Range) int { return cmp.Compare(a.Offset, b.Offset) })
	s.join(0)
	if len(s.list) <= limit {
		return
	}
	gaps := make([]int64, 0, len(s.list)-1)
	for i := 1; i < len(s.list); i++ {
		gaps = append(gaps, s.list[i].Offset-s.list[i-1].end())
	}
	slices.Sort(gaps)
	s.join(gaps[len(s.list)-limit-1])
	s.filled = true
}

// join joins the ranges of a sorted list that lie no further apart than gap.
func (s *rangeSet) join(gap int64) {
	out := s.list[:0]
	for _, r := range s.list {
		if last := len(out) - 1; last >= 0 && r.Offset-out[last].end() <= gap {
			out[last].Length = max(out[last].end(), r.end()) - out[last].Offset
			continue
		}
		out = append(out, r)
	}
	s.list = out
}

// overlap is what two lists of sorted ranges have in common.
func overlap(a, b []Range) []Range {
	var both []Range
	for len(a) > 0 && len(b) > 0 {
		off, end := max(a[0].Offset, b[0].Offset), min(a[0].end(), b[0].end())
		if off < end {
			both = append(both, Range{off, end - off})
		}
		if a[0].end() < b[0].end() {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}

// lengthOf is how many bytes ranges that do not overlap have.
func lengthOf(ranges []Range) (n int64) {
	for _, r := range ranges {
		n += r.Length
	}
	return n
}
