package scsi

import (
	"sync"

	"github.com/lockstep-storage/lockstep/block"
)

// span judges the extent of a medium access command and notes it as what the
// task touches. protect are the bits of the byte after the opcode that ask for
// protection information, which there is none of.
func (n *Nexus) span(c *Command, limit uint32) (blocks uint32, ok bool) {
	lba, blocks := extent(&c.CDB)
	switch {
	case c.CDB[0]>>5 != 0 && c.CDB[1]>>5 != 0:
		c.badCDB(1, 7)
		return 0, false
	case !n.geo.holds(lba, blocks):
		c.check(outOfRange)
		return 0, false
	case blocks > limit:
		c.badCDB(lengthField(&c.CDB), wholeByte)
		return 0, false
	}
	t := &c.task
	t.off = int64(lba) * n.geo.blockSize
	t.end = t.off + int64(blocks)*n.geo.blockSize
	return blocks, true
}

// lengthField is the first byte of the number of blocks.
func lengthField(cdb *[16]byte) int {
	switch cdb[0] {
	case 0x89:
		return 13
	case 0x9c:
		return 12
	}
	switch cdb[0] >> 5 {
	case 0:
		return 4
	case 1, 2:
		return 7
	case 4:
		return 10
	}
	return 6
}

// fua is FORCE UNIT ACCESS, which the commands of 6 bytes lack.
func fua(cdb *[16]byte) bool { return cdb[0]>>5 != 0 && cdb[1]&0x08 != 0 }

// judgeRead: a read with FUA is as good as any other, for what was written
// without being durable is on no medium that it could be read from instead.
func judgeRead(n *Nexus, c *Command) plan {
	blocks, ok := n.span(c, n.geo.maxBlocks)
	if !ok || blocks == 0 {
		return planEnded
	}
	c.task.io.Off, c.task.io.Len = c.task.off, c.task.end-c.task.off
	return planRead
}

func judgeWrite(n *Nexus, c *Command) plan {
	blocks, ok := n.span(c, n.geo.maxBlocks)
	if !ok || blocks == 0 {
		return planEnded
	}
	return n.planWrite(c)
}

func judgeWriteAtomic(n *Nexus, c *Command) plan {
	if c.CDB[10] != 0 || c.CDB[11] != 0 { // a boundary
		return c.badCDB(10, wholeByte)
	}
	blocks, ok := n.span(c, n.geo.maxAtomic)
	if !ok || blocks == 0 {
		return planEnded
	}
	if _, ok := c.data(int(c.task.end - c.task.off)); !ok {
		return planEnded
	}
	return n.planWrite(c)
}

func hasAtomic(_ *Unit, g *geometry) bool { return g.maxAtomic > 0 }

func (n *Nexus) planWrite(c *Command) plan {
	t := &c.task
	if !n.cutToSent(c) {
		return planEnded
	}
	t.io = block.Request{Op: block.OpWrite, FUA: fua(&c.CDB), Off: t.off, Len: t.end - t.off, Done: t}
	return planSubmit
}

// cutToSent leaves a write the whole blocks that the initiator announced, and sent: the
// residual tells it what it did not (RFC 7143, 11.4.5.1). It reports whether there are any.
func (n *Nexus) cutToSent(c *Command) bool {
	t := &c.task
	have := 0
	if c.Out != nil {
		have = len(c.Out.Bytes())
	}
	if size := int64(have) / n.geo.blockSize * n.geo.blockSize; size < t.end-t.off {
		t.end = t.off + size
		if size > 0 && size < int64(have) {
			whole := copyOf(c.Out.Bytes()[:size])
			c.Out.Unref()
			c.Out = whole
		}
	}
	return t.end > t.off
}

func copyOf(b []byte) *block.Buffer {
	buf := block.Get(len(b))
	copy(buf.Bytes(), b)
	return buf
}

// judgeSync: status always waits for the flush, also with IMMED, which promises
// less. Whatever the range, everything is flushed.
func judgeSync(n *Nexus, c *Command) plan {
	lba, blocks := extent(&c.CDB)
	if !n.geo.holds(lba, blocks) {
		return c.check(outOfRange)
	}
	return c.planFlush()
}

func (c *Command) planFlush() plan {
	c.task.io = block.Request{Op: block.OpFlush, Done: &c.task}
	return planSubmit
}

// judgeStartStop: the unit is always started; stopping it flushes. There is no
// medium to load, and no power to save.
func judgeStartStop(n *Nexus, c *Command) plan {
	switch b := c.CDB[4]; {
	case b>>4 != 0:
		return c.badCDB(4, 7)
	case b&0x02 != 0: // LOEJ
		return c.badCDB(4, 1)
	case b&0x05 == 0: // neither START nor NO_FLUSH
		return c.planFlush()
	}
	return planEnded
}

// gather waits for requests of a worker.
type gather struct {
	sync.WaitGroup
	mu    sync.Mutex
	first error
}

func (g *gather) Complete(_ *block.Request, err error) {
	if err != nil {
		g.mu.Lock()
		if g.first == nil {
			g.first = err
		}
		g.mu.Unlock()
	}
	g.Done()
}

// do submits requests and waits for them; the first error is the outcome.
func (n *Nexus) do(batch ...*block.Request) error {
	var g gather
	g.Add(len(batch))
	for _, r := range batch {
		r.Done = &g
	}
	n.submit(batch)
	g.Wait()
	return g.first
}
