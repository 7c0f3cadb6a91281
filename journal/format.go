package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A journal is a directory of segment files of one size. A segment begins with
// two copies of its header, in blocks of their own; batches follow, each at a
// multiple of 64 bytes: right behind the one before, or at the next multiple of
// 4 KiB if a sync began in between. So writing a batch never touches a block in
// which something durable lies. The rest of a batch's last block is zeroes until
// the next batch.
//
// Segment header, at 0 and again at 4096:
//
//	offset size field
//	 0     8    magic "LSJSEGMT"
//	 8     4    format version, 2
//	12     4    CRC32C of bytes 16..103
//	16     8    journal id: random, another after every Reset
//	24     8    sequence number of the segment, rising; 0: the segment is free
//	32     8    sequence number of the segment before it; 0: none
//	40     8    LSN of its first record
//	48     4    CRC of the record before that, the seed of the chain
//	52     4    most segments that the journal may have
//	56     8    size of a segment, bytes
//	64     8    sequence number of the oldest segment needed when this one began:
//	            without it the journal is damaged, before it everything is trimmed
//	72     8    noted stable LSN, then durable (80), checkpoint (88) and sequence
//	            number of the superblock (96): the greatest when this one began
//
// Batch header, 96 bytes, with the records right behind it (record.go):
//
//	offset size field
//	 0     4    magic "LSJB"
//	 4     4    CRC32C of bytes 8..95
//	 8     4    length of header and records, bytes, without padding
//	12     4    number of records; 0: a batch that only notes
//	16     8    journal id
//	24     8    sequence number of the segment
//	32     8    LSN of the first record (of the next one, if there is none)
//	40     4    CRC of the record before that
//	44     4    zero
//	48     8    generation tag of the last record, 0 without one
//	56     8    noted stable LSN
//	64     8    noted durable LSN
//	72     8    noted checkpoint LSN
//	80     8    noted sequence number of the superblock
//	88     8    zero
//
// All integers are little-endian. A reader refuses a format version that it does
// not know; a change of the format raises it. In version 1 every batch began at a
// multiple of 4 KiB, which is how a journal of version 2 may look, too: it is
// read as one, and a segment's next life is of version 2.

const (
	// FormatVersion is the version that this package writes.
	FormatVersion = 2
	// oldestVersion is the first one that it reads.
	oldestVersion = 1

	segmentMagic      = "LSJSEGMT"
	batchMagic        = 0x424a534c // "LSJB"
	segmentHeaderSize = 104
	batchHeaderSize   = 96
	pageSize          = 4096
	batchAlign        = 64
	firstBatch        = 2 * pageSize
	maxSegmentSize    = 1 << 30
	maxSegments       = 1 << 16
	maxNumber         = 1 << 62 // of LSNs and sequence numbers: they never wrap
)

var le = binary.LittleEndian

// segmentHeader is a segment's header, decoded.
type segmentHeader struct {
	id     uint64
	seq    uint64
	prev   uint64
	first  LSN
	seed   uint32
	most   uint32
	size   int64
	oldest uint64
	notes  Notes
}

func (h *segmentHeader) encode(p []byte) {
	clear(p[:segmentHeaderSize])
	copy(p, segmentMagic)
	le.PutUint32(p[8:], FormatVersion)
	le.PutUint64(p[16:], h.id)
	le.PutUint64(p[24:], h.seq)
	le.PutUint64(p[32:], h.prev)
	le.PutUint64(p[40:], uint64(h.first))
	le.PutUint32(p[48:], h.seed)
	le.PutUint32(p[52:], h.most)
	le.PutUint64(p[56:], uint64(h.size))
	le.PutUint64(p[64:], h.oldest)
	h.notes.encode(p[72:])
	le.PutUint32(p[12:], crc32.Checksum(p[16:segmentHeaderSize], Castagnoli))
}

// decode reads a header, whose version counts before its CRC: another version
// may have another CRC.
func (h *segmentHeader) decode(p []byte) error {
	if string(p[:8]) != segmentMagic {
		return errors.New("no segment header")
	}
	if v := le.Uint32(p[8:]); v < oldestVersion || v > FormatVersion {
		return fmt.Errorf("%w %d: this build reads versions %d to %d", ErrVersion, v, oldestVersion, FormatVersion)
	}
	if got := crc32.Checksum(p[16:segmentHeaderSize], Castagnoli); got != le.Uint32(p[12:]) {
		return fmt.Errorf("segment header CRC %08x, computed %08x", le.Uint32(p[12:]), got)
	}
	*h = segmentHeader{
		id: le.Uint64(p[16:]), seq: le.Uint64(p[24:]), prev: le.Uint64(p[32:]),
		first: LSN(le.Uint64(p[40:])), seed: le.Uint32(p[48:]), most: le.Uint32(p[52:]),
		size: int64(le.Uint64(p[56:])), oldest: le.Uint64(p[64:]), notes: decodeNotes(p[72:]),
	}
	if h.size < 2*firstBatch || h.size > maxSegmentSize || h.size%pageSize != 0 || h.most == 0 || h.most > maxSegments {
		return fmt.Errorf("segment header with %d segments of %d bytes", h.most, h.size)
	}
	if h.seq > maxNumber || h.first == 0 || h.first > maxNumber {
		return fmt.Errorf("segment header with sequence number %d, first LSN %d", h.seq, h.first)
	}
	return nil
}

func (n *Notes) encode(p []byte) {
	le.PutUint64(p, uint64(n.Stable))
	le.PutUint64(p[8:], uint64(n.Durable))
	le.PutUint64(p[16:], uint64(n.Checkpoint))
	le.PutUint64(p[24:], n.SuperblockSeq)
}

func decodeNotes(p []byte) Notes {
	return Notes{
		Stable: LSN(le.Uint64(p)), Durable: LSN(le.Uint64(p[8:])),
		Checkpoint: LSN(le.Uint64(p[16:])), SuperblockSeq: le.Uint64(p[24:]),
	}
}

// batchHeader is a batch's header, decoded.
type batchHeader struct {
	length int64
	count  int
	id     uint64
	seq    uint64
	first  LSN
	prev   uint32
	tag    uint64
	notes  Notes
}

func (h *batchHeader) encode(p []byte) {
	clear(p[:batchHeaderSize])
	le.PutUint32(p, batchMagic)
	le.PutUint32(p[8:], uint32(h.length))
	le.PutUint32(p[12:], uint32(h.count))
	le.PutUint64(p[16:], h.id)
	le.PutUint64(p[24:], h.seq)
	le.PutUint64(p[32:], uint64(h.first))
	le.PutUint32(p[40:], h.prev)
	le.PutUint64(p[48:], h.tag)
	h.notes.encode(p[56:])
	le.PutUint32(p[4:], crc32.Checksum(p[8:batchHeaderSize], Castagnoli))
}

// decode reports whether p begins with a batch header; room is the most bytes
// that its batch may have.
func (h *batchHeader) decode(p []byte, room int64) bool {
	if le.Uint32(p) != batchMagic || crc32.Checksum(p[8:batchHeaderSize], Castagnoli) != le.Uint32(p[4:]) {
		return false
	}
	*h = batchHeader{
		length: int64(le.Uint32(p[8:])), count: int(le.Uint32(p[12:])),
		id: le.Uint64(p[16:]), seq: le.Uint64(p[24:]),
		first: LSN(le.Uint64(p[32:])), prev: le.Uint32(p[40:]), tag: le.Uint64(p[48:]),
		notes: decodeNotes(p[56:]),
	}
	return h.length >= batchHeaderSize+int64(h.count)*HeaderSize && h.length <= room &&
		le.Uint32(p[44:]) == 0 && le.Uint64(p[88:]) == 0
}

// padded rounds up to a multiple of the page size.
func padded(n int64) int64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// behind is where the batch behind one of n bytes at off may begin; the other
// place is the next page.
func behind(off, n int64) int64 { return (off + n + batchAlign - 1) &^ (batchAlign - 1) }
