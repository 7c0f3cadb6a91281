package scsi

import (
	"encoding/binary"

	"github.com/lockstep-storage/lockstep/block"
)

const (
	// maxUnmapBlocks is the most blocks that one UNMAP takes, in all its
	// descriptors together.
	maxUnmapBlocks = 1 << 20
	// maxUnmapDescriptors is the most descriptors of one UNMAP.
	maxUnmapDescriptors = 256
	// maxSameBytes is the most that one WRITE SAME writes.
	maxSameBytes = 2 << 30
	// samePiece is how much of it is one request.
	samePiece = 1 << 20
)

func (g *geometry) maxSame() uint32 { return uint32(maxSameBytes / g.blockSize) }

// hasNoData is NDOB of WRITE SAME(16): the block is of zeroes, and not sent.
func hasNoData(cdb *[16]byte) bool { return cdb[0] == 0x93 && cdb[1]&0x01 != 0 }

func judgeWriteSame(n *Nexus, c *Command) plan {
	unmapping, anchor := c.CDB[1]&0x08 != 0, c.CDB[1]&0x10 != 0
	if anchor && !unmapping {
		return c.badCDB(1, 4)
	}
	blocks, ok := n.span(c, n.geo.maxSame())
	if !ok {
		return planEnded
	}
	if blocks == 0 { // WSNZ
		return c.badCDB(lengthField(&c.CDB), wholeByte)
	}
	pattern, ok := c.pattern(n.geo.blockSize, unmapping)
	if !ok {
		return planEnded
	}
	if !allZero(pattern) {
		return planWork
	}
	t := &c.task
	t.io = block.Request{Op: block.OpWriteZeroes, FUA: false, NoHole: true, Off: t.off, Len: t.end - t.off, Done: t}
	if unmapping && !anchor {
		t.io.Op, t.io.NoHole = block.OpTrim, false
	}
	return planSubmit
}

// pattern is the block that WRITE SAME repeats; nil: zeroes. An initiator that
// unmaps may send none at all.
func (c *Command) pattern(blockSize int64, unmapping bool) (b []byte, ok bool) {
	if hasNoData(&c.CDB) || unmapping && c.Expected == 0 {
		return nil, true
	}
	if c.Expected != blockSize {
		c.check(invalidUnitField)
		return nil, false
	}
	return c.data(int(blockSize))
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func writeSame(n *Nexus, c *Command) {
	t := &c.task
	one := c.Out.Bytes()[:n.geo.blockSize]
	buf := block.Get(int(min(t.end-t.off, samePiece/n.geo.blockSize*n.geo.blockSize)))
	defer buf.Unref()
	for i := 0; i < len(buf.Bytes()); i += len(one) {
		copy(buf.Bytes()[i:], one)
	}
	for off := t.off; off < t.end && !t.aborted.Load(); off += int64(len(buf.Bytes())) {
		piece := buf
		if rest := t.end - off; rest < int64(len(buf.Bytes())) {
			piece = copyOf(buf.Bytes()[:rest])
		} else {
			piece.Ref(1)
		}
		err := n.do(&block.Request{Op: block.OpWrite, Off: off, Len: int64(len(piece.Bytes())), Buf: piece})
		if err != nil {
			c.fail(err, writeError, uint64(off/n.geo.blockSize))
			return
		}
	}
}

// eachDescriptor visits the block descriptors of an UNMAP parameter list. It
// reports false once f does.
func eachDescriptor(list []byte, f func(at int, lba uint64, blocks uint32) bool) bool {
	for at := 8; at+16 <= len(list); at += 16 {
		if !f(at, binary.BigEndian.Uint64(list[at:]), binary.BigEndian.Uint32(list[at+8:])) {
			return false
		}
	}
	return true
}

func judgeUnmap(n *Nexus, c *Command) plan {
	list, ok := c.list(7, 2)
	if !ok || len(list) == 0 {
		return planEnded
	}
	if len(list) < 8 {
		return c.check(listLengthError)
	}
	size := int(binary.BigEndian.Uint16(list[2:]))
	if size > len(list)-8 {
		return c.check(listLengthError)
	}
	list = list[:8+size-size%16]
	if (len(list)-8)/16 > maxUnmapDescriptors {
		return c.badList(2, wholeByte)
	}
	t := &c.task
	var total uint64
	sound := eachDescriptor(list, func(at int, lba uint64, blocks uint32) bool {
		if !n.geo.holds(lba, blocks) {
			c.check(outOfRange)
			return false
		}
		if total += uint64(blocks); total > maxUnmapBlocks {
			c.badList(at+8, wholeByte)
			return false
		}
		if blocks > 0 {
			off := int64(lba) * n.geo.blockSize
			end := off + int64(blocks)*n.geo.blockSize
			if t.end == 0 {
				t.off = off
			}
			t.off, t.end = min(t.off, off), max(t.end, end)
		}
		return true
	})
	if !sound || total == 0 {
		return planEnded
	}
	return planWork
}

func unmap(n *Nexus, c *Command) {
	anchor := c.CDB[1]&0x01 != 0
	list := c.Out.Bytes()
	list = list[:8+int(binary.BigEndian.Uint16(list[2:]))]
	var batch []*block.Request
	eachDescriptor(list, func(_ int, lba uint64, blocks uint32) bool {
		if blocks > 0 {
			r := &block.Request{Op: block.OpTrim, Off: int64(lba) * n.geo.blockSize, Len: int64(blocks) * n.geo.blockSize}
			if anchor {
				r.Op, r.NoHole = block.OpWriteZeroes, true
			}
			batch = append(batch, r)
		}
		return true
	})
	if err := n.do(batch...); err != nil {
		c.fail(err, writeError, c.task.lba())
	}
}

// maxStatusDescriptors is the most that GET LBA STATUS yields at once.
const maxStatusDescriptors = 1024

func judgeBlockStatus(n *Nexus, c *Command) plan {
	if lba := binary.BigEndian.Uint64(c.CDB[2:]); lba >= n.geo.blocks {
		return c.check(outOfRange)
	}
	return planWork
}

// blockStatus tells which blocks are deallocated: those that lie in a hole of
// zeroes as a whole. All others are mapped, also what the device does not know.
func blockStatus(n *Nexus, c *Command) {
	room := int(min(field(&c.CDB, 10, 4), maxParameters))
	limit := min(max(1, (room-8)/16), maxStatusDescriptors)
	first := binary.BigEndian.Uint64(c.CDB[2:])
	off := int64(first) * n.geo.blockSize
	size := int64(min(n.geo.blocks-first, 0xffffffff)) * n.geo.blockSize
	l := statusList{blockSize: n.geo.blockSize, limit: limit, start: off, pos: off, b: make([]byte, 8, 8+16*limit)}
	if sparse, ok := n.session.(block.Sparse); !ok {
		l.add(off, size, 0)
	} else if err := sparse.Extents(off, size, l.add); err != nil {
		c.fail(err, readError, first)
		return
	}
	l.flush()
	binary.BigEndian.PutUint32(l.b, uint32(len(l.b)-4))
	c.answer(l.b, field(&c.CDB, 10, 4))
}

// statusList is a list of LBA status descriptors in the making. Extents that
// follow each other with the same status are one.
type statusList struct {
	blockSize int64
	limit     int
	b         []byte

	// The last descriptor, not yet in b: [start, pos) in bytes.
	start, pos int64
	hole       bool
}

// add takes an extent and reports whether there may be more. It is rounded to
// blocks: a hole inward, data outward.
func (l *statusList) add(off, n int64, a block.Allocation) bool {
	const hole = block.Hole | block.Zero
	if a&hole == hole {
		start, stop := l.up(off), (off+n)/l.blockSize*l.blockSize
		if start < stop && !(l.extend(start, false) && l.extend(stop, true)) {
			return false
		}
	}
	return l.extend(l.up(off+n), false)
}

func (l *statusList) up(n int64) int64 { return (n + l.blockSize - 1) / l.blockSize * l.blockSize }

// extend says what the blocks up to end are, as far as nobody has said yet.
func (l *statusList) extend(end int64, hole bool) bool {
	if end <= l.pos {
		return true
	}
	if l.hole != hole && l.pos > l.start {
		if l.flush(); (len(l.b)-8)/16 == l.limit {
			return false
		}
	}
	l.pos, l.hole = end, hole
	return true
}

func (l *statusList) flush() {
	if l.start == l.pos {
		return
	}
	l.b = binary.BigEndian.AppendUint64(l.b, uint64(l.start/l.blockSize))
	l.b = binary.BigEndian.AppendUint32(l.b, uint32((l.pos-l.start)/l.blockSize))
	status := byte(0) // mapped
	if l.hole {
		status = 1 // deallocated
	}
	l.b = append(l.b, status, 0, 0, 0)
	l.start = l.pos
}
