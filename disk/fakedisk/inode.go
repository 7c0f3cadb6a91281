package fakedisk

import (
	"maps"
	"math/rand/v2"
)

// inode is a file's content, whatever its name. The disk's lock guards it.
type inode struct {
	now     image          // what a read finds
	durable image          // what a power loss leaves for certain
	dirty   map[int64]bool // pages that the next Datasync makes durable
	pending []change       // since the last Datasync
}

// change is one unsynced operation on a file.
type change struct {
	number   int // of the operation, counted over the whole disk
	off      int64
	data     []byte // nil: truncate to off
	truncate bool
}

func newInode() *inode {
	return &inode{
		now:     image{pages: map[int64]*page{}},
		durable: image{pages: map[int64]*page{}},
		dirty:   map[int64]bool{},
	}
}

func (n *inode) clone() *inode {
	return &inode{
		now: n.now.clone(), durable: n.durable.clone(),
		dirty: maps.Clone(n.dirty), pending: append([]change(nil), n.pending...),
	}
}

// write notes and shows a write. It keeps data.
func (n *inode) write(number int, data []byte, off int64) {
	if len(data) == 0 {
		return
	}
	n.pending = append(n.pending, change{number: number, off: off, data: data})
	n.now.write(data, off)
	n.touch(off, off+int64(len(data)))
}

func (n *inode) truncate(number int, size int64) {
	n.pending = append(n.pending, change{number: number, off: size, truncate: true})
	n.touch(min(size, n.now.size), max(size, n.now.size))
	n.now.truncate(size)
}

func (n *inode) touch(from, to int64) {
	for i := from / pageSize; i*pageSize < to; i++ {
		n.dirty[i] = true
	}
}

// sync makes everything durable that a failed sync did not give up.
func (n *inode) sync() {
	for i := range n.dirty {
		n.durable.set(i, n.now.pages[i])
	}
	n.durable.size = n.now.size
	n.clean()
}

func (n *inode) clean() {
	clear(n.dirty)
	n.pending = nil
}

func (m *image) set(i int64, pg *page) {
	if pg == nil {
		delete(m.pages, i)
		return
	}
	m.pages[i] = pg
}

// failSync gives the dirty pages up, each in its own way (see the package's
// fault model).
func (n *inode) failSync(rng *rand.Rand) {
	for _, i := range sortedKeys(n.dirty) {
		switch rng.IntN(3) {
		case 0:
			n.durable.set(i, n.now.pages[i])
		case 1:
			n.now.set(i, n.durable.pages[i])
		}
	}
	if rng.IntN(2) == 0 {
		n.durable.size = n.now.size
	}
	n.clean()
}

// crash returns what a power loss leaves of the file.
func (n *inode) crash(name string, keep Policy) *inode {
	left := newInode()
	left.now = n.durable.clone()
	for _, c := range n.pending {
		c.replay(&left.now, name, keep)
	}
	left.durable = left.now.clone()
	return left
}

// replay does to m what keep lets through of the change. What m holds already
// is not asked about: lost or kept, it is there.
func (c change) replay(m *image, name string, keep Policy) {
	if c.truncate {
		if keep(Unsynced{Kind: OpTruncate, Name: name, Number: c.number, Off: c.off}) {
			m.truncate(c.off)
		}
		return
	}
	var kept, end int64 // the run of pieces that is to be written
	c.each(func(from, to int64) {
		piece := c.data[from:to]
		if m.holds(piece, c.off+from) || !keep(Unsynced{Kind: OpWrite, Name: name, Number: c.number, Off: c.off + from}) {
			return
		}
		if from != end {
			m.write(c.data[kept:end], c.off+kept)
			kept = from
		}
		end = to
	})
	m.write(c.data[kept:end], c.off+kept)
}

// each calls f with the bounds of every sector's piece of the data.
func (c change) each(f func(from, to int64)) {
	for from := int64(0); from < int64(len(c.data)); {
		to := min(int64(len(c.data)), from+sectorSize-(c.off+from)%sectorSize)
		f(from, to)
		from = to
	}
}
