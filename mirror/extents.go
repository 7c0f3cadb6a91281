package mirror

import (
	"math"
	"slices"

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
	skip      int64
	journaled bool
	keep      bool // zeroes that keep their space
}

func (e *extent) zeroes() bool { return e.data == nil && !e.journaled }

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

// chunkSize is what one chunk of an extents set covers. A write of 4 KiB takes
// one search in a short list, one of 1 MiB is cut into 33 at most.
const chunkSize = 32 << 10

// extents is a set of extents that do not overlap. It holds no references to
// buffers: whoever inserts an extent keeps its buffer alive until it is removed.
//
// Extents are cut at the borders of chunks, found by number: writes to random
// places, of which a tree made most of the cost of a small write, touch a short
// list each. Only long ranges of zeroes, which one record may cover gigabytes
// of chunks with, lie whole in a tree.
type extents struct {
	chunks map[int64]*chunk
	wide   *btree.BTreeG[extent]
	n      int // in chunks

	spare   []*chunk // empty, to be used again
	scratch []extent
}

// A chunk is the extents of one chunk, by offset. Most have one: then all of it is
// one piece of memory.
type chunk struct {
	list []extent
	one  [1]extent
}

// What extents keeps of memory that is not in use.
const (
	maxSpare     = 4096 // chunks
	maxSpareList = 64   // extents of one of them
)

// anyLSN is the LSN that carves whatever is there.
const anyLSN = LSN(math.MaxUint64)

func newExtents() *extents {
	less := func(a, b extent) bool { return a.off < b.off }
	return &extents{
		chunks: map[int64]*chunk{},
		wide:   btree.NewBTreeGOptions(less, btree.Options{NoLocks: true}),
	}
}

func (x *extents) len() int { return x.n + x.wide.Len() }

// overlapping calls yield for each extent that has bytes in [off, end), in
// order, uncut, until it returns false.
func (x *extents) overlapping(off, end int64, yield func(extent) bool) {
	if x.wide.Len() == 0 {
		x.narrow(off, end, yield)
		return
	}
	at := off // what is wide before it was yielded
	more := x.narrow(off, end, func(e extent) bool {
		more := x.wideIn(at, e.off, yield) && yield(e)
		at = e.end
		return more
	})
	if more {
		x.wideIn(at, end, yield)
	}
}

// narrow yields the extents in chunks.
func (x *extents) narrow(off, end int64, yield func(extent) bool) (more bool) {
	if x.n == 0 {
		return true
	}
	for k := off / chunkSize; k*chunkSize < end; k++ {
		c := x.chunks[k]
		if c == nil {
			continue
		}
		for _, e := range c.list {
			if e.end > off && e.off < end && !yield(e) {
				return false
			}
		}
	}
	return true
}

// wideIn yields the extents in the tree.
func (x *extents) wideIn(off, end int64, yield func(extent) bool) (more bool) {
	if off >= end {
		return true
	}
	start := off
	x.wide.Descend(extent{off: off}, func(e extent) bool {
		if e.end > off {
			start = e.off
		}
		return false
	})
	more = true
	x.wide.Ascend(extent{off: start}, func(e extent) bool {
		if e.off >= end {
			return false
		}
		more = yield(e)
		return more
	})
	return more
}

// insert puts e over whatever was there.
func (x *extents) insert(e extent) {
	x.carveWide(e.off, e.end, anyLSN)
	first, last := e.off/chunkSize, (e.end-1)/chunkSize
	if e.zeroes() && last > first+1 {
		x.carveChunks(e.off, e.end, anyLSN)
		x.wide.Set(e)
		return
	}
	for k := first; k <= last; k++ {
		x.edit(k, e.cut(k*chunkSize, (k+1)*chunkSize), anyLSN, true)
	}
}

// remove takes out what the records up to upTo have in [off, end).
func (x *extents) remove(off, end int64, upTo LSN) {
	x.carveWide(off, end, upTo)
	x.carveChunks(off, end, upTo)
}

// evict makes what the record of lsn, a write, has in [off, end) one that is in the
// journal only.
func (x *extents) evict(off, end int64, lsn LSN) {
	for k := off / chunkSize; k*chunkSize < end; k++ {
		c := x.chunks[k]
		if c == nil {
			continue
		}
		for i := range c.list {
			if e := &c.list[i]; e.lsn == lsn {
				e.data, e.buf, e.journaled = nil, nil, true
			}
		}
	}
}

func (x *extents) carveChunks(off, end int64, upTo LSN) {
	if x.n == 0 {
		return
	}
	for k := off / chunkSize; k*chunkSize < end; k++ {
		if x.chunks[k] != nil {
			x.edit(k, extent{off: max(off, k*chunkSize), end: min(end, (k+1)*chunkSize)}, upTo, false)
		}
	}
}

// edit carves the range of e, which lies in chunk k, out of the records up to
// upTo, and puts e there if that is wanted.
func (x *extents) edit(k int64, e extent, upTo LSN, put bool) {
	c := x.chunks[k]
	if c == nil {
		c = x.newChunk()
		x.chunks[k] = c
	}
	from := 0
	for from < len(c.list) && c.list[from].end <= e.off {
		from++
	}
	to := from
	fresh := x.scratch[:0]
	for ; to < len(c.list) && c.list[to].off < e.end; to++ {
		old := &c.list[to]
		if old.lsn > upTo {
			fresh = append(fresh, *old)
			continue
		}
		if old.off < e.off {
			fresh = append(fresh, old.cut(old.off, e.off))
		}
		if put {
			fresh, put = append(fresh, e), false
		}
		if old.end > e.end {
			fresh = append(fresh, old.cut(e.end, old.end))
		}
	}
	if put {
		fresh = append(fresh, e)
	}
	x.n += len(fresh) - (to - from)
	c.list = slices.Replace(c.list, from, to, fresh...)
	clear(fresh)
	x.scratch = fresh[:0]
	if len(c.list) == 0 {
		delete(x.chunks, k)
		x.spareChunk(c)
	}
}

// carveWide takes the range [off, end) out of the extents in the tree that are
// of records up to upTo.
func (x *extents) carveWide(off, end int64, upTo LSN) {
	if x.wide.Len() == 0 {
		return
	}
	old := x.scratch[:0]
	x.wide.Descend(extent{off: end - 1}, func(e extent) bool {
		if e.end <= off {
			return false
		}
		if e.lsn <= upTo {
			old = append(old, e)
		}
		return true
	})
	for _, e := range old {
		x.wide.Delete(e)
		if e.off < off {
			x.wide.Set(e.cut(e.off, off))
		}
		if e.end > end {
			x.wide.Set(e.cut(end, e.end))
		}
	}
	clear(old)
	x.scratch = old[:0]
}

func (x *extents) clear() {
	for k, c := range x.chunks {
		delete(x.chunks, k)
		x.spareChunk(c)
	}
	x.n = 0
	x.wide.Clear()
}

func (x *extents) newChunk() *chunk {
	n := len(x.spare)
	if n == 0 {
		c := new(chunk)
		c.list = c.one[:0]
		return c
	}
	c := x.spare[n-1]
	x.spare = x.spare[:n-1]
	return c
}

func (x *extents) spareChunk(c *chunk) {
	clear(c.list)
	c.list = c.list[:0]
	if len(x.spare) < maxSpare && cap(c.list) <= maxSpareList {
		x.spare = append(x.spare, c)
	}
}
