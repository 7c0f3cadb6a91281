package mirror

import (
	"github.com/tidwall/btree"

	"github.com/lockstep-storage/lockstep/block"
)

// An extent is a range of the volume whose newest bytes are those of one
// record.
type extent struct {
	off, end int64 // bytes, half open
	lsn      LSN
	// data holds end-off bytes, and buf what they lie in, for a payload in
	// memory. Both nil: zeroes, or with journaled a payload that has to be read
	// back from the journal, from byte skip of it on.
	data      []byte
	buf       *block.Buffer
	journaled bool
	skip      int64
	keep      bool // zeroes that keep their space
}

// cut returns the part of e that lies in [off, end).
func (e extent) cut(off, end int64) extent {
	off, end = max(off, e.off), min(end, e.end)
	if e.data != nil {
		e.data = e.data[off-e.off : end-e.off]
	}
	e.skip += off - e.off
	e.off, e.end = off, end
	return e
}

// extents is a set of extents that do not overlap, by offset. It holds no
// references to buffers: whoever inserts an extent keeps its buffer alive until
// it is removed.
type extents struct {
	t       *btree.BTreeG[extent]
	scratch []extent
}

func newExtents() *extents {
	less := func(a, b extent) bool { return a.off < b.off }
	return &extents{t: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})}
}

func (x *extents) len() int { return x.t.Len() }

// overlapping calls yield for each extent that has bytes in [off, end), in
// order, uncut.
func (x *extents) overlapping(off, end int64, yield func(extent) bool) {
	start := off
	x.t.Descend(extent{off: off}, func(e extent) bool {
		if e.end > off {
			start = e.off
		}
		return false
	})
	x.t.Ascend(extent{off: start}, func(e extent) bool {
		return e.off < end && yield(e)
	})
}

// insert puts e over whatever was there.
func (x *extents) insert(e extent) {
	x.carve(e.off, e.end, func(extent) bool { return true })
	x.t.Set(e)
}

// remove takes out what the records up to upTo have in [off, end).
func (x *extents) remove(off, end int64, upTo LSN) {
	x.carve(off, end, func(e extent) bool { return e.lsn <= upTo })
}

// carve takes the range [off, end) out of every extent that which accepts.
func (x *extents) carve(off, end int64, which func(extent) bool) {
	// Downwards, one search finds them all.
	old := x.scratch[:0]
	x.t.Descend(extent{off: end - 1}, func(e extent) bool {
		if e.end <= off {
			return false
		}
		if which(e) {
			old = append(old, e)
		}
		return true
	})
	for _, e := range old {
		x.t.Delete(e)
		if e.off < off {
			x.t.Set(e.cut(e.off, off))
		}
		if e.end > end {
			x.t.Set(e.cut(end, e.end))
		}
	}
	clear(old)
	x.scratch = old[:0]
}

// all calls yield for every extent in order.
func (x *extents) all(yield func(extent) bool) { x.t.Scan(yield) }

func (x *extents) clear() { x.t.Clear() }
