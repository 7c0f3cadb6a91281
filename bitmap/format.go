package bitmap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A bitmap's file is a row of pages of 4096 bytes: two copies of the header,
// then the pages of bits, each at its own place. All numbers are little-endian.
//
//	page  what
//	 0    header, first copy
//	 1    header, second copy
//	 2+i  bits i×32640 … i×32640+32639
//
// Header:
//
//	offset size field
//	 0     8    magic: "LSTEPOOS" out-of-sync, "LSTEPWIB" write-intent
//	 8     4    CRC32C of bytes 12..4095
//	12     4    format version, 1
//	16     8    sequence number, raised by every commit of the header
//	24     8    volume size, bytes
//	32     8    unit: bytes of the volume per bit, a multiple of 4096
//	40     8    era: pages of an earlier one are void
//	48     8    fill: what a void page counts as, 0 all clear, 1 all set
//	56     16   base: generation id (zero in a write-intent bitmap)
//	72     8    base: LSN
//	80     4016 zero
//
// Page of bits:
//
//	offset size field
//	 0     4    CRC32C of bytes 4..4095
//	 4     4    page number i, low 32 bits
//	 8     8    era in which it was written
//	16     4080 bits, 510 words of 64; bit k of word w is unit i×32640+64w+k
//
// A page of zeroes was never written and is void. A page that is neither void
// nor whole counts as all set, and so does one that lies past the file's end.
//
// Magic, CRC and version stay where they are in every version to come, so that
// an older Lockstep can tell a newer file from a damaged one.
const (
	version     = 1
	pageSize    = 4096
	pageWords   = 510
	pageBits    = pageWords * 64
	pageHeader  = pageSize - pageWords*8
	headerPages = 2

	fillClear = 0
	fillSet   = 1
)

type magic [8]byte

var (
	outOfSyncMagic   = magic([]byte("LSTEPOOS"))
	writeIntentMagic = magic([]byte("LSTEPWIB"))
)

func (m magic) String() string {
	switch m {
	case outOfSyncMagic:
		return "an out-of-sync bitmap"
	case writeIntentMagic:
		return "a write-intent bitmap"
	}
	return fmt.Sprintf("no bitmap (%q)", m[:])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	seq  uint64
	size int64 // of the volume, bytes
	unit int64 // bytes per bit
	era  uint64
	fill uint64
	base Base
}

// pages is how many pages of bits the file has.
func (h *header) pages() int64 {
	return ceil(ceil(h.size, h.unit), pageBits)
}

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }

// encode writes the header page to p, which has pageSize bytes.
func (h *header) encode(p []byte, m magic) {
	le := binary.LittleEndian
	clear(p)
	copy(p, m[:])
	le.PutUint32(p[12:], version)
	le.PutUint64(p[16:], h.seq)
	le.PutUint64(p[24:], uint64(h.size))
	le.PutUint64(p[32:], uint64(h.unit))
	le.PutUint64(p[40:], h.era)
	le.PutUint64(p[48:], h.fill)
	copy(p[56:72], h.base.Generation[:])
	le.PutUint64(p[72:], h.base.LSN)
	le.PutUint32(p[8:], crc32.Checksum(p[12:], castagnoli))
}

// decode reads a header page, checking every field's range.
func (h *header) decode(p []byte, m magic) error {
	le := binary.LittleEndian
	if found := magic(p[:8]); found != m {
		if found == outOfSyncMagic || found == writeIntentMagic {
			return fmt.Errorf("%w: it is %v, and %v is wanted", ErrMismatch, found, m)
		}
		return fmt.Errorf("%w: magic %q", ErrDamaged, found[:])
	}
	if crc, got := le.Uint32(p[8:]), crc32.Checksum(p[12:], castagnoli); crc != got {
		return fmt.Errorf("%w: header CRC %08x, computed %08x", ErrDamaged, crc, got)
	}
	if v := le.Uint32(p[12:]); v != version {
		return fmt.Errorf("%w: %d, this Lockstep knows %d: use the version that wrote it, or a newer one", ErrVersion, v, version)
	}
	*h = header{
		seq:  le.Uint64(p[16:]),
		size: int64(le.Uint64(p[24:])),
		unit: int64(le.Uint64(p[32:])),
		era:  le.Uint64(p[40:]),
		fill: le.Uint64(p[48:]),
		base: Base{Generation: [16]byte(p[56:72]), LSN: le.Uint64(p[72:])},
	}
	switch {
	case checkGeometry(h.size, h.unit) != nil:
		return fmt.Errorf("%w: header: %w", ErrDamaged, checkGeometry(h.size, h.unit))
	case h.fill > fillSet:
		return fmt.Errorf("%w: header: fill %d", ErrDamaged, h.fill)
	case !isZero(p[80:]):
		return fmt.Errorf("%w: header: bytes are set that have no meaning", ErrDamaged)
	}
	return nil
}

// MaxSize is the largest volume that a bitmap describes, bytes.
const MaxSize = 1 << 50

func checkGeometry(size, unit int64) error {
	switch {
	case size <= 0 || size > MaxSize:
		return fmt.Errorf("volume of %d bytes: 1 to %d are possible", size, int64(MaxSize))
	case unit < BlockSize || unit%BlockSize != 0 || unit > MaxSize:
		return fmt.Errorf("%d bytes per bit: a multiple of %d is wanted, up to %d", unit, BlockSize, int64(MaxSize))
	}
	return nil
}

var zeroPage [pageSize]byte

// isZero reports whether p, at most a page, has zeroes only.
func isZero(p []byte) bool { return bytes.Equal(p, zeroPage[:len(p)]) }

// encodePage writes page i, with words for its bits, to p. Fewer than pageWords
// words stand for zeroes behind them.
func encodePage(p []byte, i int64, era uint64, words []uint64) {
	le := binary.LittleEndian
	le.PutUint32(p[4:], uint32(i))
	le.PutUint64(p[8:], era)
	for w, word := range words {
		le.PutUint64(p[pageHeader+8*w:], word)
	}
	clear(p[pageHeader+8*len(words) : pageSize])
	le.PutUint32(p, crc32.Checksum(p[4:pageSize], castagnoli))
}

// pageState is what reading a page came to.
type pageState uint8

const (
	pageDamaged pageState = iota
	pageVoid              // never written, or of an earlier era
	pageGood
)

// decodePage reads page i into words, which it changes only for a good page.
func decodePage(p []byte, i int64, era uint64, words *[pageWords]uint64) pageState {
	le := binary.LittleEndian
	if isZero(p) {
		return pageVoid
	}
	wrote := le.Uint64(p[8:])
	switch {
	case crc32.Checksum(p[4:pageSize], castagnoli) != le.Uint32(p),
		le.Uint32(p[4:]) != uint32(i),
		wrote > era: // the header of that era was durable before the page
		return pageDamaged
	case wrote < era:
		return pageVoid
	}
	for w := range words {
		words[w] = le.Uint64(p[pageHeader+8*w:])
	}
	return pageGood
}
