package snapshot

import (
	"cmp"
	"maps"
	"slices"
)

// An extent is a range of the image that is preserved.
type extent struct {
	off int64 // in the volume, bytes
	n   int64 // bytes
	pos int64 // of its data in the file; 0: it is zeroes
	crc uint32
}

func (x extent) zero() bool { return x.pos == 0 }
func (x extent) end() int64 { return x.off + x.n }

// regionSize is how much of the volume one list of extents is for: short enough
// that one is put into it in no time. No extent lies in two.
const regionSize = 16 << 20

// An index says what of a volume is preserved, and where. It is not safe for
// concurrent use.
type index struct {
	regions map[int64][]extent // by number; sorted, none overlaps another
	bytes   int64              // preserved
	extents int
}

func newIndex() *index { return &index{regions: map[int64][]extent{}} }

// search is where in its region's list the first extent is that ends past off.
func (ix *index) search(off int64) (list []extent, i int) {
	list = ix.regions[off/regionSize]
	i, _ = slices.BinarySearchFunc(list, off, func(x extent, off int64) int {
		if x.end() <= off {
			return -1
		}
		return 1
	})
	return list, i
}

// at returns the extent that holds off. If there is none, nothing from off to end
// is preserved, and end is past off.
func (ix *index) at(off int64) (x extent, end int64, ok bool) {
	list, i := ix.search(off)
	switch {
	case i == len(list):
		return extent{}, (off/regionSize + 1) * regionSize, false
	case list[i].off > off:
		return extent{}, list[i].off, false
	}
	return list[i], list[i].end(), true
}

// any reports whether something of the n bytes at off is preserved.
func (ix *index) any(off, n int64) bool {
	for end := off + n; off < end; {
		_, next, ok := ix.at(off)
		if ok {
			return true
		}
		off = next
	}
	return false
}

// insert adds x, and reports whether it did: not if something of it is there.
func (ix *index) insert(x extent) bool {
	if ix.any(x.off, x.n) {
		return false
	}
	ix.bytes += x.n
	for x.n > 0 { // zeroes alone may be longer than a region
		part := x
		part.n = min(x.n, (x.off/regionSize+1)*regionSize-x.off)
		list, i := ix.search(part.off)
		ix.regions[part.off/regionSize] = slices.Insert(list, i, part)
		ix.extents++
		x.off, x.n = part.end(), x.n-part.n
	}
	return true
}

// missing are the blocks of ranges of a volume of size bytes that are not
// preserved, in order, and none twice.
func (ix *index) missing(ranges []Range, size int64) (gaps []Range) {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	done := int64(0)
	for _, r := range sorted {
		off, end := max(r.Off&^(BlockSize-1), done), min(roundUp(r.Off+r.N), size)
		done = max(done, end)
		for off < end {
			_, next, ok := ix.at(off)
			next = min(next, end)
			switch last := len(gaps) - 1; {
			case ok:
			case last >= 0 && gaps[last].Off+gaps[last].N == off:
				gaps[last].N += next - off
			default:
				gaps = append(gaps, Range{off, next - off})
			}
			off = next
		}
	}
	return gaps
}

// all gives the extents in order.
func (ix *index) all(f func(extent) error) error {
	for _, k := range slices.Sorted(maps.Keys(ix.regions)) {
		for _, x := range ix.regions[k] {
			if err := f(x); err != nil {
				return err
			}
		}
	}
	return nil
}
