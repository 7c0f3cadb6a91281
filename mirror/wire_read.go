package mirror

import (
	"hash/crc32"

	"github.com/lockstep-storage/lockstep/journal"
)

// MaxReadPayload is the most bytes that one Read asks for.
const MaxReadPayload = 1 << 20

// maxReads is how many Reads a Primary may have under way on one connection.
const maxReads = 32

// Read asks a member for a range as of a committed LSN or later. It is answered
// by one ReadReply, in any order.
//
//	8 id, 8 committed LSN, 8 offset, 4 length
type Read struct {
	ID        uint64 // the sender's choice, no other Read's that is under way
	Committed LSN    // of the sender, and in the receiver's journal
	Offset    int64  // bytes
	Length    int64  // bytes: at most 1 MiB
}

func (*Read) FrameType() FrameType { return FrameRead }

func (m *Read) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, m.ID)
	dst = le.AppendUint64(dst, uint64(m.Committed))
	dst = le.AppendUint64(dst, uint64(m.Offset))
	return le.AppendUint32(dst, uint32(m.Length))
}

func (m *Read) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Read{ID: r.u64(), Committed: r.lsn(), Offset: r.size("the offset"), Length: int64(r.u32())}
	if m.Length == 0 || m.Length > MaxReadPayload {
		r.fail("a read of %d bytes, 1 to %d are allowed", m.Length, MaxReadPayload)
	}
	return r.finish(FrameRead)
}

// ReadReply answers a Read. The bytes follow it, unless it failed.
//
//	offset size field
//	 0     8    id of the Read
//	 8     4    length, bytes: that of the Read; 0 if it failed
//	12     4    CRC32C of the payload, 0 without
//	16     -    payload
type ReadReply struct {
	ID         uint64
	Length     int64
	PayloadCRC uint32
}

const readReplyFixed = 16

func (*ReadReply) FrameType() FrameType { return FrameReadReply }

func (m *ReadReply) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, m.ID)
	dst = le.AppendUint32(dst, uint32(m.Length))
	return le.AppendUint32(dst, m.PayloadCRC)
}

func (m *ReadReply) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = ReadReply{ID: r.u64(), Length: int64(r.u32()), PayloadCRC: r.u32()}
	if m.Length > MaxReadPayload {
		r.fail("%d bytes read, the limit is %d", m.Length, MaxReadPayload)
	}
	if m.Length == 0 && m.PayloadCRC != 0 {
		r.fail("a payload CRC without a payload")
	}
	return r.finish(FrameReadReply)
}

// AppendReadReplyHeader sets m's length and CRC and appends everything of its
// frame but the payload to dst; payload is to be sent right behind it, and is
// empty if the read failed.
func AppendReadReplyHeader(dst []byte, m *ReadReply, payload []byte) []byte {
	m.Length = int64(len(payload))
	m.PayloadCRC = crc32.Checksum(payload, journal.Castagnoli)
	at := len(dst)
	dst = m.Encode(append(dst, make([]byte, FrameHeaderSize)...))
	putFrameHeader(dst[at:], FrameReadReply, readReplyFixed+len(payload), dst[at+FrameHeaderSize:])
	return dst
}
