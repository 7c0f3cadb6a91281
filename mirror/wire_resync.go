package mirror

import (
	"fmt"
	"hash/crc32"

	"github.com/lockstep-storage/lockstep/journal"
)

// MaxBlockPayload is the most payload bytes of a Block frame.
const MaxBlockPayload = 1 << 20

// Regions is what a replica that lost its journal says, between its Hello and
// the Primary's Proceed: which parts of its store are in doubt, besides what the
// Primary knows to be out of sync (replication.md 14). Several may follow one
// another; the last one says so.
//
//	1 last (0, 1), 2 ranges (at most 1024), per range 8 offset, 8 length
type Regions struct {
	Last   bool
	Ranges []Range
}

const maxRegions = 1024

func (*Regions) FrameType() FrameType { return FrameRegions }

func (m *Regions) Encode(dst []byte) []byte {
	return appendRanges(appendBool(dst, m.Last), m.Ranges)
}

func (m *Regions) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Regions{Last: r.bool("last"), Ranges: r.ranges(maxRegions)}
	return r.finish(FrameRegions)
}

// ResyncStart begins a bitmap resync.
//
//	8 bytes to be copied
type ResyncStart struct{ Bytes int64 }

func (*ResyncStart) FrameType() FrameType { return FrameResyncStart }

func (m *ResyncStart) Encode(dst []byte) []byte { return le.AppendUint64(dst, uint64(m.Bytes)) }

func (m *ResyncStart) Decode(body []byte) error {
	r := fieldReader{b: body}
	m.Bytes = r.size("the resync")
	return r.finish(FrameResyncStart)
}

// ResyncEnd: every block was sent. The target is consistent once it has them all
// and everything up to LSN.
//
//	8 LSN
type ResyncEnd struct{ LSN LSN }

func (*ResyncEnd) FrameType() FrameType { return FrameResyncEnd }

func (m *ResyncEnd) Encode(dst []byte) []byte { return le.AppendUint64(dst, uint64(m.LSN)) }

func (m *ResyncEnd) Decode(body []byte) error {
	r := fieldReader{b: body}
	m.LSN = r.lsn()
	return r.finish(FrameResyncEnd)
}

// BlockAck is cumulative within one resync: what the target has durably.
//
//	8 blocks, 8 bytes
type BlockAck struct {
	Blocks uint64 // Block frames
	Bytes  int64  // of the volume
}

func (*BlockAck) FrameType() FrameType { return FrameBlockAck }

func (m *BlockAck) Encode(dst []byte) []byte {
	return le.AppendUint64(le.AppendUint64(dst, m.Blocks), uint64(m.Bytes))
}

func (m *BlockAck) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = BlockAck{Blocks: r.u64(), Bytes: r.size("acknowledged")}
	return r.finish(FrameBlockAck)
}

// Block is a range as of LSN, for the target to write where it holds no later
// record (replication.md 7). The payload follows it, unless it is Zero.
//
//	offset size field
//	 0     8    offset, bytes
//	 8     4    length, bytes: at most 1 MiB, 64 MiB with zero
//	12     1    zero: the range reads as zeroes and there is no payload
//	13     3    zero
//	16     8    LSN
//	24     4    CRC32C of the payload, 0 without
//	28     -    payload
type Block struct {
	Offset     int64
	Length     int64
	Zero       bool
	LSN        LSN
	PayloadCRC uint32
}

const blockFixed = 28

func (*Block) FrameType() FrameType { return FrameBlock }

// PayloadLen is how many bytes follow.
func (m *Block) PayloadLen() int {
	if m.Zero {
		return 0
	}
	return int(m.Length)
}

func (m *Block) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, uint64(m.Offset))
	dst = le.AppendUint32(dst, uint32(m.Length))
	dst = append(appendBool(dst, m.Zero), 0, 0, 0)
	dst = le.AppendUint64(dst, uint64(m.LSN))
	return le.AppendUint32(dst, m.PayloadCRC)
}

func (m *Block) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Block{Offset: r.size("the offset"), Length: int64(r.u32()), Zero: r.bool("zero")}
	r.zero(3)
	m.LSN, m.PayloadCRC = r.lsn(), r.u32()
	limit := int64(MaxBlockPayload)
	if m.Zero {
		limit = journal.MaxZeroRange
	}
	if m.Length == 0 || m.Length > limit {
		r.fail("a block of %d bytes, 1 to %d are allowed", m.Length, limit)
	}
	if m.Zero && m.PayloadCRC != 0 {
		r.fail("a payload CRC without a payload")
	}
	return r.finish(FrameBlock)
}

// AppendBlockHeader sets b.PayloadCRC and appends everything of b's frame but
// the payload to dst; payload is to be sent right behind it and is nil with Zero.
func AppendBlockHeader(dst []byte, b *Block, payload []byte) []byte {
	if len(payload) != b.PayloadLen() {
		panic(fmt.Sprintf("mirror: block of %d bytes with %d bytes of payload", b.Length, len(payload)))
	}
	b.PayloadCRC = 0
	if !b.Zero {
		b.PayloadCRC = crc32.Checksum(payload, journal.Castagnoli)
	}
	at := len(dst)
	dst = b.Encode(append(dst, make([]byte, FrameHeaderSize)...))
	putFrameHeader(dst[at:], FrameBlock, blockFixed+len(payload), dst[at+FrameHeaderSize:])
	return dst
}
