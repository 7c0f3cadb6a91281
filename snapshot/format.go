package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// A snapshot's file is a row of blocks of 4096 bytes: two copies of the header,
// then batches, one behind the other. All numbers are little-endian.
//
// Header, the same in both copies and never changed:
//
//	offset size field
//	 0     8    magic "LSTEPSNP"
//	 8     4    CRC32C of bytes 12..4095
//	12     4    format version, 1
//	16     16   snapshot id
//	32     8    volume size, bytes
//	40     8    when it was created, nanoseconds since 1970 UTC
//	48     4    length of the note, at most 1024
//	52     -    the owner's note, then zeroes
//
// Batch:
//
//	offset size field
//	 0     8    magic "LSTEPSNB"
//	 8     4    CRC32C of byte 12 to the end of the batch's header
//	12     4    number of entries, at most 16384
//	16     16   snapshot id
//	32     8    sequence number, from 1
//	40     8    length of the batch, bytes: header and data
//	48     16   zero
//	64     -    entries, then zeroes to a multiple of 4096, where the header ends
//
// and behind its header the data of its entries, in their order. An entry is
//
//	offset size field
//	 0     8    offset in the volume, a multiple of 4096
//	 8     8    length, a multiple of 4096; with data at most 256 KiB, and not across a multiple of that
//	16     4    CRC32C of the data, 0 without
//	20     1    kind: 0 data, 1 zeroes, of which there is no data
//	21     3    zero
//
// Magic, CRC and version of the header stay where they are in every version to
// come.
const (
	version     = 1
	headerSize  = BlockSize // of one copy
	firstBatch  = 2 * headerSize
	batchFixed  = 64
	entrySize   = 24
	maxEntries  = 16384
	maxEntry    = 256 << 10 // bytes of data of one entry
	maxData     = 8 << 20   // of one batch
	maxBatch    = maxData + (batchFixed+maxEntries*entrySize+BlockSize-1)&^(BlockSize-1)
	headerMagic = "LSTEPSNP"
	batchMagic  = "LSTEPSNB"

	// MaxNote is the most bytes of an owner's note.
	MaxNote = 1024
	// MaxSize is the largest volume, bytes: 1 PiB.
	MaxSize = 1 << 50
)

// BlockSize is the unit of what is preserved, bytes.
const BlockSize = 4096

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeroBlock  [BlockSize]byte
)

// ID names a snapshot: 128 random bits.
type ID [16]byte

// Info is what a snapshot says of itself.
type Info struct {
	ID      ID
	Size    int64 // of the volume, bytes
	Created time.Time
	Note    []byte // the owner's, at most MaxNote bytes
}

// encode returns one copy of the header.
func (h *Info) encode() []byte {
	p := make([]byte, headerSize)
	copy(p, headerMagic)
	le.PutUint32(p[12:], version)
	copy(p[16:32], h.ID[:])
	le.PutUint64(p[32:], uint64(h.Size))
	le.PutUint64(p[40:], uint64(h.Created.UnixNano()))
	le.PutUint32(p[48:], uint32(len(h.Note)))
	copy(p[52:], h.Note)
	le.PutUint32(p[8:], crc32.Checksum(p[12:], castagnoli))
	return p
}

func (h *Info) decode(p []byte) error {
	if string(p[:8]) != headerMagic {
		return fmt.Errorf("%w: the magic is %q", ErrDamaged, p[:8])
	}
	if crc, got := le.Uint32(p[8:]), crc32.Checksum(p[12:], castagnoli); crc != got {
		return fmt.Errorf("%w: header CRC %08x, computed %08x", ErrDamaged, crc, got)
	}
	if v := le.Uint32(p[12:]); v != version {
		return fmt.Errorf("%w: %d, this Lockstep knows %d: use the version that wrote it, or a newer one", ErrVersion, v, version)
	}
	note := le.Uint32(p[48:])
	if note > MaxNote {
		return fmt.Errorf("%w: a note of %d bytes, the limit is %d", ErrDamaged, note, MaxNote)
	}
	*h = Info{
		ID: ID(p[16:32]), Size: int64(le.Uint64(p[32:])), Created: time.Unix(0, int64(le.Uint64(p[40:]))),
		Note: bytes.Clone(p[52 : 52+note]),
	}
	switch {
	case checkSize(h.Size) != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, checkSize(h.Size))
	case !allZero(p[52+note:]):
		return fmt.Errorf("%w: header: bytes are set that have no meaning", ErrDamaged)
	}
	return nil
}

func checkSize(size int64) error {
	if size <= 0 || size > MaxSize || size%BlockSize != 0 {
		return fmt.Errorf("a volume of %d bytes: a multiple of %d is wanted, up to %d", size, BlockSize, int64(MaxSize))
	}
	return nil
}

// A batch is the header of one.
type batch struct {
	id      ID
	seq     uint64
	length  int64 // with data, bytes
	entries []extent
}

// batchHeader is the length of the header of a batch of n entries, bytes.
func batchHeader(n int) int64 { return roundUp(batchFixed + int64(n)*entrySize) }

func roundUp(n int64) int64 { return (n + BlockSize - 1) &^ (BlockSize - 1) }

// encode returns the header of a batch. Which data of the file an entry has is of
// no account but that it has some.
func (b *batch) encode() []byte {
	p := make([]byte, batchHeader(len(b.entries)))
	copy(p, batchMagic)
	le.PutUint32(p[12:], uint32(len(b.entries)))
	copy(p[16:32], b.id[:])
	le.PutUint64(p[32:], b.seq)
	le.PutUint64(p[40:], uint64(b.length))
	for i, x := range b.entries {
		e := p[batchFixed+i*entrySize:]
		le.PutUint64(e, uint64(x.off))
		le.PutUint64(e[8:], uint64(x.n))
		le.PutUint32(e[16:], x.crc)
		if x.zero() {
			e[20] = 1
		}
	}
	le.PutUint32(p[8:], crc32.Checksum(p[12:], castagnoli))
	return p
}

// claims reports whether the first block of a batch's header may be one of
// snapshot id, and how long that header would be.
func claims(p []byte, id ID) (length int64, ok bool) {
	n := le.Uint32(p[12:])
	if string(p[:8]) != batchMagic || ID(p[16:32]) != id || n > maxEntries {
		return 0, false
	}
	return batchHeader(int(n)), true
}

// decode reads a whole header, of a batch at byte pos of the file of a volume of
// size bytes, whose first block claims to be one.
func (b *batch) decode(p []byte, pos, size int64) error {
	if crc, got := le.Uint32(p[8:]), crc32.Checksum(p[12:], castagnoli); crc != got {
		return fmt.Errorf("batch CRC %08x, computed %08x", crc, got)
	}
	n := int(le.Uint32(p[12:]))
	*b = batch{id: ID(p[16:32]), seq: le.Uint64(p[32:]), length: int64(le.Uint64(p[40:]))}
	if !allZero(p[48:batchFixed]) || !allZero(p[batchFixed+n*entrySize:]) {
		return fmt.Errorf("bytes are set that have no meaning")
	}
	data := pos + int64(len(p))
	b.entries = make([]extent, 0, n)
	for i := range n {
		e := p[batchFixed+i*entrySize:][:entrySize]
		x := extent{off: int64(le.Uint64(e)), n: int64(le.Uint64(e[8:])), crc: le.Uint32(e[16:]), pos: data}
		zero := e[20] == 1
		switch {
		case x.off < 0 || x.n <= 0 || x.off%BlockSize != 0 || x.n%BlockSize != 0 || x.n > size || x.off > size-x.n:
			return fmt.Errorf("entry %d is of %d bytes at %d, of a volume of %d", i, x.n, x.off, size)
		case e[20] > 1 || e[21]|e[22]|e[23] != 0:
			return fmt.Errorf("entry %d has bytes set that have no meaning", i)
		case zero && x.crc != 0:
			return fmt.Errorf("entry %d has a CRC and no data", i)
		case !zero && x.off/maxEntry != (x.off+x.n-1)/maxEntry:
			return fmt.Errorf("entry %d has data of %d bytes at %d", i, x.n, x.off)
		}
		if zero {
			x.pos = 0
		} else {
			data += x.n
		}
		b.entries = append(b.entries, x)
	}
	if b.length != data-pos || b.length > maxBatch {
		return fmt.Errorf("a batch of %d bytes, its entries make %d", b.length, data-pos)
	}
	return nil
}

func allZero(p []byte) bool {
	for len(p) >= BlockSize {
		if !bytes.Equal(p[:BlockSize], zeroBlock[:]) {
			return false
		}
		p = p[BlockSize:]
	}
	return bytes.Equal(p, zeroBlock[:len(p)])
}
