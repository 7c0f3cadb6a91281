package nbd

import (
	"encoding/binary"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// maxDescriptors is how many descriptors one block status is answered with at
// most; the client asks for what comes behind them. The specification's limit is
// 2^20.
const maxDescriptors = 4096

// filterSize is the length of the payload of a block status that names the
// contexts which it is about: the length of the range, and the id of the one that
// there is.
const filterSize = 12

// filtered reports whether a request is a block status in its payload form.
func (r rules) filtered(h wire.Request) bool {
	return h.Type == wire.CmdBlockStatus && r.extended && h.Flags&wire.CmdFlagPayloadLen != 0
}

// applyFilter judges such a request by its payload, and makes it an ordinary one.
func (r rules) applyFilter(h wire.Request, payload []byte) (wire.Request, *refusal) {
	h.Flags &^= wire.CmdFlagPayloadLen
	h.Len = binary.BigEndian.Uint64(payload)
	if id := binary.BigEndian.Uint32(payload[8:]); id != allocationID {
		return h, refuse(wire.EINVAL, "block-status of metadata context %d, which was not selected", id)
	}
	return h, r.judge(h)
}

// descriptorSize is the size of a descriptor in "NBD_REPLY_TYPE_BLOCK_STATUS" or
// "NBD_REPLY_TYPE_BLOCK_STATUS_EXT".
func (t terms) descriptorSize() int {
	if t.extended {
		return 16
	}
	return 8
}

// memory is how many bytes of payload a sound request needs, in or out.
func (r rules) memory(h wire.Request) uint64 {
	switch h.Type {
	case wire.CmdRead, wire.CmdWrite:
		return h.Len
	case wire.CmdCache:
		return min(h.Len, cachePiece)
	case wire.CmdBlockStatus:
		if h.Flags&wire.CmdFlagReqOne != 0 {
			return uint64(r.descriptorSize())
		}
		return uint64(r.descriptorSize()) * min(h.Len, maxDescriptors)
	}
	return 0
}

// blockStatus carries out NBD_CMD_BLOCK_STATUS. What a device does not know of
// itself may be data. The answer never goes beyond the range that was asked for.
func (c *conn) blockStatus(q *request) error {
	limit := maxDescriptors
	if q.reqOne {
		limit = 1
	}
	q.payload = block.Get(int(q.charge))
	d := descriptors{b: q.payload.Bytes()[:0], limit: limit, extended: c.rules.extended}
	if c.sparse == nil {
		d.add(q.io.Off, q.io.Len, 0)
	} else if err := c.sparse.Extents(q.io.Off, q.io.Len, d.add); err != nil {
		return err
	}
	q.descriptors = d.finish()
	return nil
}

// descriptors is a list of consecutive extents in the making. Those that follow
// each other with the same flags are one.
type descriptors struct {
	b     []byte
	limit int
	// extended: lengths and flags have 64 bits.
	extended bool

	count int // in b; the last extent is not yet there
	n     int64
	flags uint32
}

// add appends an extent and reports whether there may be more.
func (d *descriptors) add(_, n int64, a block.Allocation) bool {
	flags := stateOf(a)
	switch {
	case d.n == 0:
		d.flags = flags
	case d.flags != flags:
		if d.count+1 == d.limit {
			return false
		}
		d.append()
		d.n, d.flags = 0, flags
	}
	d.n += n
	return true
}

func (d *descriptors) append() {
	d.count++
	if d.extended {
		d.b = binary.BigEndian.AppendUint64(d.b, uint64(d.n))
		d.b = binary.BigEndian.AppendUint64(d.b, uint64(d.flags))
		return
	}
	d.b = binary.BigEndian.AppendUint32(d.b, uint32(d.n))
	d.b = binary.BigEndian.AppendUint32(d.b, d.flags)
}

func (d *descriptors) finish() []byte {
	d.append()
	return d.b
}

// stateOf is the flags of base:allocation.
func stateOf(a block.Allocation) (flags uint32) {
	if a&block.Hole != 0 {
		flags |= wire.StateHole
	}
	if a&block.Zero != 0 {
		flags |= wire.StateZero
	}
	return flags
}
