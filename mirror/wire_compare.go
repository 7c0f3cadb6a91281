package mirror

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/bitmap"
)

// maxCompareBlocks is how many blocks one ChecksumRequest asks for, and checksumSize how
// many bytes each one's checksum has.
const (
	maxCompareBlocks = 64
	checksumSize     = 16
	// MaxCompare is the most bytes of the volume that one ChecksumRequest asks for.
	MaxCompare = maxCompareBlocks * bitmap.BlockSize
)

// maxCompares is how many ChecksumRequests a source may have under way on one connection.
const maxCompares = 8

// ChecksumRequest asks the target of a resync for the checksums of what its store holds
// in a range (checksum.go). It is answered by one Checksums, in order.
//
//	16 key, 8 offset, 4 length
type ChecksumRequest struct {
	Key    ID    // of the checksums, random, one for a resync
	Offset int64 // bytes, a multiple of 4096
	Length int64 // bytes: at most 256 KiB
}

func (*ChecksumRequest) FrameType() FrameType { return FrameChecksumRequest }

func (m *ChecksumRequest) Encode(dst []byte) []byte {
	dst = append(dst, m.Key[:]...)
	dst = le.AppendUint64(dst, uint64(m.Offset))
	return le.AppendUint32(dst, uint32(m.Length))
}

func (m *ChecksumRequest) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = ChecksumRequest{Key: r.id(), Offset: r.size("the offset"), Length: int64(r.u32())}
	if m.Offset%bitmap.BlockSize != 0 || m.Length == 0 || m.Length > MaxCompare {
		r.fail("%d bytes at %d to be compared: 1 to %d at a multiple of %d are allowed", m.Length, m.Offset, MaxCompare, bitmap.BlockSize)
	}
	return r.finish(FrameChecksumRequest)
}

// A checksum is that of one block of 4096 bytes, of fewer at the volume's end.
type checksum [checksumSize]byte

// Checksums answers a ChecksumRequest: the checksum of each of its blocks.
//
//	8 offset, 2 blocks (1 to 64), per block 16 checksum
type Checksums struct {
	Offset int64 // that of the ChecksumRequest
	Sums   []checksum
}

func (*Checksums) FrameType() FrameType { return FrameChecksums }

func (m *Checksums) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, uint64(m.Offset))
	dst = le.AppendUint16(dst, uint16(len(m.Sums)))
	for i := range m.Sums {
		dst = append(dst, m.Sums[i][:]...)
	}
	return dst
}

func (m *Checksums) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Checksums{Offset: r.size("the offset")}
	n := int(r.u16())
	if n == 0 || n > maxCompareBlocks {
		r.fail("checksums of %d blocks, 1 to %d are allowed", n, maxCompareBlocks)
		return r.finish(FrameChecksums)
	}
	m.Sums = make([]checksum, n)
	for i := range m.Sums {
		copy(m.Sums[i][:], r.take(checksumSize))
	}
	return r.finish(FrameChecksums)
}

// ResyncPause says whether the sender holds the resync back, on either side. It
// comes when that changes; without one it does not.
//
//	1 paused
type ResyncPause struct{ Paused bool }

func (*ResyncPause) FrameType() FrameType { return FrameResyncPause }

func (m *ResyncPause) Encode(dst []byte) []byte { return appendBool(dst, m.Paused) }

func (m *ResyncPause) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = ResyncPause{Paused: r.bool("paused")}
	return r.finish(FrameResyncPause)
}

// blocksOf is how many blocks a range has that begins at one.
func blocksOf(n int64) int { return int((n + bitmap.BlockSize - 1) / bitmap.BlockSize) }

// answers reports whether m is the answer to c.
func (m *Checksums) answers(c *ChecksumRequest) error {
	if m.Offset != c.Offset || len(m.Sums) != blocksOf(c.Length) {
		return fmt.Errorf("%w: %d checksums of what is at %d, where those of %d bytes at %d are due", ErrFrame, len(m.Sums), m.Offset, c.Length, c.Offset)
	}
	return nil
}
