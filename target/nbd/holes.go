package nbd

import (
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

const (
	// minSparseRead is the shortest read that is looked at for holes, and
	// minHole the shortest hole that is left out of a reply, bytes. Below, the
	// look and the chunk cost more than the zeroes.
	minSparseRead = 64 << 10
	minHole       = 4 << 10
	// maxRuns is into how many chunks one read may be cut. What is left then is
	// one chunk of data.
	maxRuns = 64
)

// A run is a part of a read, in bytes from its start, half open.
type run struct {
	off, end int
	hole     bool // it reads as zeroes, and they are not sent
}

// leavesHoles reports whether the reply to a sound request may leave holes out.
// With NBD_CMD_FLAG_DF the zeroes have to be there.
func (r rules) leavesHoles(h wire.Request) bool {
	return r.structured && h.Type == wire.CmdRead && h.Flags&wire.CmdFlagDF == 0 && h.Len >= minSparseRead
}

// readCold carries out a read that may have to wait for a disk. Holes are looked
// for here only: what the device has in memory costs no more than to look.
func (c *conn) readCold(q *request) error {
	p := q.payload.Bytes()
	if !q.sparse {
		return c.session.ReadAt(p, q.io.Off)
	}
	err := c.sparse.Extents(q.io.Off, q.io.Len, q.report)
	for i, r := range q.runs {
		if err == nil && !r.hole {
			err = c.session.ReadAt(p[r.off:r.end], q.io.Off+int64(r.off))
		}
		if err != nil {
			q.runs, q.failedAt = q.runs[:i], r.off
			break
		}
	}
	return err
}

// addRun is told the read's extents, in order.
func (q *request) addRun(off, n int64, a block.Allocation) bool {
	start := int(off - q.io.Off)
	r := run{start, start + int(n), a&block.Zero != 0 && n >= minHole && len(q.runs) < maxRuns-1}
	if last := len(q.runs) - 1; last >= 0 && q.runs[last].hole == r.hole {
		q.runs[last].end = r.end
	} else {
		q.runs = append(q.runs, r)
	}
	return true
}
