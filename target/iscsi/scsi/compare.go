package scsi

import (
	"bytes"

	"github.com/lockstep-storage/lockstep/block"
)

// What BYTCHK asks to be compared.
const (
	compareNone     = 0 // the medium is only read
	compareAll      = 1
	compareReserved = 2
	compareOne      = 3 // every block with the one that was sent
)

func byteCheck(cdb *[16]byte) int { return int(cdb[1] >> 1 & 3) }

// maxCompare is the most blocks that COMPARE AND WRITE takes: its field has one
// byte, and it carries twice as many.
func (g *geometry) maxCompare() uint32 { return min(255, g.maxBlocks/2) }

// mismatch is the index of the first byte in which two slices of equal length
// differ, -1 if in none.
func mismatch(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// load reads what a worker's task touches; the caller drops the buffer. nil: the
// command has ended.
func (n *Nexus) load(c *Command) *block.Buffer {
	t := &c.task
	buf := block.Get(int(t.end - t.off))
	if err := n.session.ReadAt(buf.Bytes(), t.off); err != nil {
		c.fail(err, readError, t.lba())
		buf.Unref()
		return nil
	}
	return buf
}

func judgeVerify(n *Nexus, c *Command) plan {
	check := byteCheck(&c.CDB)
	if check == compareReserved {
		return c.badCDB(1, 2)
	}
	blocks, ok := n.span(c, n.geo.maxBlocks)
	if !ok || blocks == 0 {
		return planEnded
	}
	if check != compareNone {
		if _, ok := c.data(verifyOut(n.geo, &c.CDB).Length); !ok {
			return planEnded
		}
	}
	return planWork
}

func verify(n *Nexus, c *Command) {
	buf := n.load(c)
	if buf == nil {
		return
	}
	defer buf.Unref()
	if check := byteCheck(&c.CDB); check != compareNone {
		c.compare(buf.Bytes(), check == compareOne, n.geo.blockSize)
	}
}

// compare holds what was read against Data-Out. The information is the block
// that differs.
func (c *Command) compare(read []byte, one bool, blockSize int64) {
	sent := c.Out.Bytes()
	for off := int64(0); off < int64(len(read)); off += blockSize {
		want := sent[off%int64(len(sent)):]
		if one {
			want = sent
		}
		if mismatch(read[off:off+blockSize], want[:blockSize]) >= 0 {
			c.checkInformation(miscompare, c.task.lba()+uint64(off/blockSize))
			return
		}
	}
}

func judgeWriteVerify(n *Nexus, c *Command) plan {
	if check := byteCheck(&c.CDB); check != compareNone && check != compareAll {
		return c.badCDB(1, 2)
	}
	blocks, ok := n.span(c, n.geo.maxBlocks)
	if !ok || blocks == 0 {
		return planEnded
	}
	if !n.cutToSent(c) {
		return planEnded
	}
	return planWork
}

// writeVerify writes through, and reads what it wrote.
func writeVerify(n *Nexus, c *Command) {
	t := &c.task
	size := t.end - t.off
	err := n.do(&block.Request{Op: block.OpWrite, FUA: true, Off: t.off, Len: size, Buf: copyOf(c.Out.Bytes()[:size])})
	if err != nil {
		c.fail(err, writeError, t.lba())
		return
	}
	verify(n, c)
}

func judgeCompareAndWrite(n *Nexus, c *Command) plan {
	blocks, ok := n.span(c, n.geo.maxCompare())
	switch {
	case !ok:
		return planEnded
	case blocks == 0 && c.Expected > 0: // 256 blocks, of which the CDB's byte holds the rest
		return c.badCDB(lengthField(&c.CDB), wholeByte)
	case blocks == 0:
		return planEnded
	}
	want := compareOut(n.geo, &c.CDB).Length
	if c.Expected != int64(want) {
		return c.check(invalidUnitField)
	}
	if _, ok := c.data(want); !ok {
		return planEnded
	}
	c.task.alone = true
	return planWork
}

func compareAndWrite(n *Nexus, c *Command) {
	buf := n.load(c)
	if buf == nil {
		return
	}
	size := len(buf.Bytes())
	sent := c.Out.Bytes()
	i := mismatch(buf.Bytes(), sent[:size])
	if i >= 0 {
		buf.Unref()
		c.checkInformation(miscompare, uint64(i))
		return
	}
	copy(buf.Bytes(), sent[size:])
	n.writeBack(c, buf)
}

func judgeOrWrite(n *Nexus, c *Command) plan {
	blocks, ok := n.span(c, n.geo.maxBlocks)
	if !ok || blocks == 0 {
		return planEnded
	}
	if _, ok := c.data(blocksOut(n.geo, &c.CDB).Length); !ok {
		return planEnded
	}
	c.task.alone = true
	return planWork
}

func orWrite(n *Nexus, c *Command) {
	buf := n.load(c)
	if buf == nil {
		return
	}
	sent := c.Out.Bytes()
	for i := range buf.Bytes() {
		buf.Bytes()[i] |= sent[i]
	}
	n.writeBack(c, buf)
}

// writeBack writes what the task touches, and drops the buffer. A command that
// was aborted meanwhile writes nothing.
func (n *Nexus) writeBack(c *Command, buf *block.Buffer) {
	t := &c.task
	if t.aborted.Load() {
		buf.Unref()
		return
	}
	err := n.do(&block.Request{Op: block.OpWrite, FUA: fua(&c.CDB), Off: t.off, Len: t.end - t.off, Buf: buf})
	if err != nil {
		c.fail(err, writeError, t.lba())
	}
}

// judgePrefetch: what does not fit is left where it is, which GOOD says.
func judgePrefetch(n *Nexus, c *Command) plan {
	lba, blocks := extent(&c.CDB)
	if !n.geo.holds(lba, blocks) {
		return c.check(outOfRange)
	}
	if blocks == 0 || blocks > n.geo.maxBlocks {
		blocks = uint32(min(n.geo.blocks-lba, uint64(n.geo.maxBlocks)))
	}
	c.task.off = int64(lba) * n.geo.blockSize
	c.task.end = c.task.off + int64(blocks)*n.geo.blockSize
	if blocks == 0 {
		return planEnded
	}
	return planWork
}

// prefetchPiece is how much of a PRE-FETCH is in memory at once, bytes.
const prefetchPiece = 1 << 20

func prefetch(n *Nexus, c *Command) {
	t := &c.task
	buf := block.Get(int(min(t.end-t.off, prefetchPiece)))
	defer buf.Unref()
	for off := t.off; off < t.end && !t.aborted.Load(); off += prefetchPiece {
		if err := n.session.ReadAt(buf.Bytes()[:min(t.end-off, prefetchPiece)], off); err != nil {
			c.fail(err, readError, uint64(off/n.geo.blockSize))
			return
		}
	}
}
