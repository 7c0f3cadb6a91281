package mirror

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/lockstep-storage/lockstep/journal"
)

// The peer protocol: a preamble from the dialler (wire_preamble.go), then frames
// both ways. A frame is
//
//	offset size field
//	 0     1    type
//	 1     1    flags, zero
//	 2     2    zero
//	 4     4    length of the body, bytes
//	 8     4    CRC32C of the body; of a Records, Block or ReadReply frame only of
//	            the body's fixed part, since what follows carries CRCs of its own
//	12     4    CRC32C of bytes 0..11
//	16     -    body
//
// all little-endian. A frame of an unknown type, with a wrong CRC or longer than
// its type may be ends the connection: versions are negotiated, so nothing is
// skipped.

// FrameHeaderSize is the length of a frame's header, bytes.
const FrameHeaderSize = 16

// FrameType says what a frame's body is.
type FrameType uint8

// The order is the wire's: append only.
const (
	FrameHello FrameType = iota + 1
	FrameProceed
	FrameReady
	FrameRecords
	FrameAck
	FrameSyncRequest
	FrameHeartbeat
	FrameJoinReady
	FrameSetUpdate
	FrameResyncStart
	FrameBlock
	FrameBlockAck
	FrameResyncEnd
	FrameBye
	FrameRefuse
	FrameRead
	FrameReadReply
	FrameRegions
	FrameSplit
	FrameChecksumRequest // from here on of version 2
	FrameChecksums
	FrameResyncPause
	FramePrepare // from here on of version 4
	FrameVote
)

// frameKinds says of each type its name, the most bytes of its body, and how
// many of them are fixed (0: all).
var frameKinds = [...]struct {
	name  string
	limit uint32
	fixed uint32
}{
	FrameHello:           {name: "Hello", limit: maxHello},
	FrameProceed:         {name: "Proceed", limit: maxProceed},
	FrameReady:           {name: "Ready", limit: 20},
	FrameRecords:         {name: "Records", limit: maxRecordsBody, fixed: recordsFixed},
	FrameAck:             {name: "Ack", limit: 24},
	FrameSyncRequest:     {name: "SyncRequest", limit: 8},
	FrameHeartbeat:       {name: "Heartbeat", limit: 40},
	FrameJoinReady:       {name: "JoinReady", limit: 8},
	FrameSetUpdate:       {name: "SetUpdate", limit: maxSetUpdate},
	FrameResyncStart:     {name: "ResyncStart", limit: 8},
	FrameBlock:           {name: "Block", limit: blockFixed + MaxBlockPayload, fixed: blockFixed},
	FrameBlockAck:        {name: "BlockAck", limit: 16},
	FrameResyncEnd:       {name: "ResyncEnd", limit: 8},
	FrameBye:             {name: "Bye", limit: maxNotice},
	FrameRefuse:          {name: "Refuse", limit: maxNotice},
	FrameRead:            {name: "Read", limit: 28},
	FrameReadReply:       {name: "ReadReply", limit: readReplyFixed + MaxReadPayload, fixed: readReplyFixed},
	FrameRegions:         {name: "Regions", limit: 3 + 16*maxRegions},
	FrameSplit:           {name: "Split", limit: maxSplit},
	FrameChecksumRequest: {name: "ChecksumRequest", limit: 28},
	FrameChecksums:       {name: "Checksums", limit: 8 + 2 + maxCompareBlocks*checksumSize},
	FrameResyncPause:     {name: "ResyncPause", limit: 1},
	FramePrepare:         {name: "Prepare"},
	FrameVote:            {name: "Vote", limit: maxNotice},
}

// String is the type's name.
func (t FrameType) String() string {
	if t.known() {
		return frameKinds[t].name
	}
	return fmt.Sprintf("frame type %d", uint8(t))
}

func (t FrameType) known() bool { return t >= FrameHello && int(t) < len(frameKinds) }

// since is the protocol version that the type came with.
func (t FrameType) since() uint16 {
	switch {
	case t >= FramePrepare:
		return 4
	case t >= FrameChecksumRequest:
		return 2
	}
	return 1
}

// ErrFrame says that bytes from a peer are no valid frame. Errors that wrap it
// say why; the connection is of no further use.
var ErrFrame = errors.New("invalid frame from peer")

// A Message is the body of a frame. The types are Hello to Vote; of
// Records, Block and ReadReply it is what comes before their payloads.
type Message interface {
	FrameType() FrameType
	// Encode appends the body to dst.
	Encode(dst []byte) []byte
	// Decode sets the message from a body and keeps nothing of it. Errors wrap
	// ErrFrame.
	Decode(body []byte) error
}

// AppendFrame appends m's frame to dst, for any message but Records, Block and
// ReadReply.
func AppendFrame(dst []byte, m Message) []byte {
	at := len(dst)
	dst = m.Encode(append(dst, make([]byte, FrameHeaderSize)...))
	body := dst[at+FrameHeaderSize:]
	putFrameHeader(dst[at:], m.FrameType(), len(body), body)
	return dst
}

// putFrameHeader writes the header of a frame whose body has n bytes and begins
// with fixed.
func putFrameHeader(p []byte, t FrameType, n int, fixed []byte) {
	if uint64(n) > uint64(frameKinds[t].limit) {
		panic(fmt.Sprintf("mirror: %v frame of %d bytes, the limit is %d", t, n, frameKinds[t].limit))
	}
	p[0], p[1], p[2], p[3] = byte(t), 0, 0, 0
	le.PutUint32(p[4:], uint32(n))
	le.PutUint32(p[8:], crc32.Checksum(fixed, journal.Castagnoli))
	le.PutUint32(p[12:], crc32.Checksum(p[:12], journal.Castagnoli))
}

// A frameHeader is a header that was checked: known type, length within its
// limit.
type frameHeader struct {
	kind     FrameType
	length   uint32 // of the body
	fixed    uint32 // bytes of it that the CRC covers
	fixedCRC uint32
}

func decodeFrameHeader(p []byte) (frameHeader, error) {
	h := frameHeader{kind: FrameType(p[0]), length: le.Uint32(p[4:]), fixedCRC: le.Uint32(p[8:])}
	if crc := crc32.Checksum(p[:12], journal.Castagnoli); crc != le.Uint32(p[12:]) {
		return h, fmt.Errorf("%w: header CRC %08x, computed %08x", ErrFrame, le.Uint32(p[12:]), crc)
	}
	if !h.kind.known() {
		return h, fmt.Errorf("%w: unknown %v", ErrFrame, h.kind)
	}
	if p[1]|p[2]|p[3] != 0 {
		return h, fmt.Errorf("%w: %v with flags %x", ErrFrame, h.kind, p[1:4])
	}
	kind := frameKinds[h.kind]
	if h.length > kind.limit || h.length < kind.fixed {
		return h, fmt.Errorf("%w: %v of %d bytes, %d to %d are allowed", ErrFrame, h.kind, h.length, kind.fixed, kind.limit)
	}
	h.fixed = h.length
	if kind.fixed != 0 {
		h.fixed = kind.fixed
	}
	return h, nil
}

// finish ends a Decode: nothing may be left of the body.
func (r *fieldReader) finish(t FrameType) error {
	if err := r.end(); err != nil {
		return fmt.Errorf("%w: %v: %w", ErrFrame, t, err)
	}
	return nil
}
