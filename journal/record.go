package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/lockstep-storage/lockstep/block"
)

// LSN is a record's sequence number in its volume's one total order. The first
// record of a volume has LSN 1; 0 is before every record.
type LSN uint64

// Kind is what a record does to the volume.
type Kind uint8

const (
	KindWrite      Kind = iota + 1 // Length bytes of payload go to Offset
	KindTrim                       // the range reads as zeroes, its space may go
	KindZeroes                     // the range reads as zeroes
	KindGeneration                 // a generation begins; the payload says which
)

func (k Kind) String() string {
	switch k {
	case KindWrite:
		return "write"
	case KindTrim:
		return "trim"
	case KindZeroes:
		return "write-zeroes"
	case KindGeneration:
		return "generation"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Flags of a record.
const (
	// FlagLast marks the last record of one write. A journal's end without it
	// is dropped at replay and at promotion (replication.md 1).
	FlagLast uint8 = 1 << iota
	// FlagNoHole: write-zeroes keeps the space allocated.
	FlagNoHole
)

const (
	// HeaderSize is the length in bytes of an encoded record header.
	HeaderSize = 48
	// MaxPayload is the most payload bytes of one record (record-max).
	MaxPayload = 1 << 20
	// MaxZeroRange is the most bytes that one trim or write-zeroes record
	// covers (replication.md 11).
	MaxZeroRange = 64 << 20
)

// Castagnoli is the CRC32C table that records are protected with.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Record is one entry of the journal: a header and, for writes and generation
// records, a payload. The encoded header is
//
//	offset size field
//	 0     4    CRC32C of bytes 4..47, seeded with the predecessor's CRC
//	 4     4    CRC32C of the payload; 0 without one
//	 8     8    LSN
//	16     8    generation tag: the first 8 bytes of the generation's id
//	24     8    offset in the volume, bytes
//	32     4    length of the range in the volume, bytes
//	36     4    payload length, bytes
//	40     1    kind
//	41     1    flags
//	42     6    zero
//
// all little-endian. The same bytes go to every replica's journal and over the
// wire, so the chain of CRCs is the same everywhere.
type Record struct {
	LSN        LSN
	Generation uint64 // tag
	Offset     int64
	Length     int64
	Kind       Kind
	Flags      uint8
	PayloadCRC uint32
	CRC        uint32 // of this header, chained: set by Seal or Decode
	// Payload is nil for trim and zeroes. It lies in Buf where that is not nil.
	Payload []byte
	// Buf, if not nil, is what Payload lies in; the record owns one reference.
	Buf *block.Buffer
}

// ErrRecord says that bytes are no valid record. Errors that wrap it say why.
var ErrRecord = errors.New("invalid record")

// EncodeHeader writes the 48 header bytes, CRC included, to p.
func (r *Record) EncodeHeader(p []byte) {
	r.encodeBody(p)
	binary.LittleEndian.PutUint32(p, r.CRC)
}

func (r *Record) encodeBody(p []byte) {
	le := binary.LittleEndian
	_ = p[HeaderSize-1]
	le.PutUint32(p[4:], r.PayloadCRC)
	le.PutUint64(p[8:], uint64(r.LSN))
	le.PutUint64(p[16:], r.Generation)
	le.PutUint64(p[24:], uint64(r.Offset))
	le.PutUint32(p[32:], uint32(r.Length))
	le.PutUint32(p[36:], uint32(len(r.Payload)))
	p[40] = byte(r.Kind)
	p[41] = r.Flags
	clear(p[42:HeaderSize])
}

// Seal chains the record to its predecessor's CRC: it sets r.CRC and returns
// it. PayloadCRC must have been set.
func (r *Record) Seal(prev uint32) uint32 {
	h := headers.Get().(*[HeaderSize]byte)
	r.CRC = r.chain(prev, h)
	headers.Put(h)
	return r.CRC
}

// chain is the CRC that the record has after a predecessor of CRC prev.
func (r *Record) chain(prev uint32, scratch *[HeaderSize]byte) uint32 {
	r.encodeBody(scratch[:])
	return crc32.Update(prev, Castagnoli, scratch[4:])
}

// headers are Seal's scratch: crc32 makes one on the stack escape.
var headers = sync.Pool{New: func() any { return new([HeaderSize]byte) }}

// PayloadLen is the number of payload bytes that a header announces, for a
// reader that has only the header. Bounded by MaxPayload or an error.
func PayloadLen(header []byte) (int, error) {
	n := binary.LittleEndian.Uint32(header[36:])
	if n > MaxPayload {
		return 0, fmt.Errorf("%w: payload of %d bytes, the limit is %d", ErrRecord, n, MaxPayload)
	}
	return int(n), nil
}

// DecodeHeader reads a header into r and checks it: the chain from prev, and
// every field's range. It leaves r.Payload and r.Buf alone and does not look at
// the payload; CheckPayload does.
func (r *Record) DecodeHeader(h []byte, prev uint32) error {
	if len(h) < HeaderSize {
		return fmt.Errorf("%w: %d header bytes of %d", ErrRecord, len(h), HeaderSize)
	}
	le := binary.LittleEndian
	crc := le.Uint32(h)
	if got := crc32.Update(prev, Castagnoli, h[4:HeaderSize]); got != crc {
		return fmt.Errorf("%w: header CRC %08x, computed %08x", ErrRecord, crc, got)
	}
	n, err := PayloadLen(h)
	if err != nil {
		return err
	}
	off, length := le.Uint64(h[24:]), le.Uint32(h[32:])
	kind, flags := Kind(h[40]), h[41]
	switch {
	case off > 1<<62:
		return fmt.Errorf("%w: offset %d", ErrRecord, off)
	case kind == KindWrite && (n == 0 || uint32(n) != length):
		return fmt.Errorf("%w: a write of %d bytes with %d bytes of payload", ErrRecord, length, n)
	case (kind == KindTrim || kind == KindZeroes) && (n != 0 || length == 0 || length > MaxZeroRange):
		return fmt.Errorf("%w: %v of %d bytes with %d bytes of payload", ErrRecord, kind, length, n)
	case kind == KindGeneration && (n == 0 || length != 0 || off != 0):
		return fmt.Errorf("%w: a generation record with a range", ErrRecord)
	case kind < KindWrite || kind > KindGeneration:
		return fmt.Errorf("%w: kind %d", ErrRecord, kind)
	case le.Uint16(h[42:]) != 0 || le.Uint32(h[44:]) != 0:
		return fmt.Errorf("%w: bytes 42..47 are not zero", ErrRecord)
	case flags&^(FlagLast|FlagNoHole) != 0:
		return fmt.Errorf("%w: flags %#x", ErrRecord, flags)
	}
	r.CRC, r.PayloadCRC = crc, le.Uint32(h[4:])
	r.LSN, r.Generation = LSN(le.Uint64(h[8:])), le.Uint64(h[16:])
	r.Offset, r.Length = int64(off), int64(length)
	r.Kind, r.Flags = kind, flags
	return nil
}

// CheckPayload compares r.Payload with r.PayloadCRC.
func (r *Record) CheckPayload() error {
	if len(r.Payload) == 0 {
		if r.PayloadCRC != 0 {
			return fmt.Errorf("%w: LSN %d: a payload CRC without a payload", ErrRecord, r.LSN)
		}
		return nil
	}
	if got := crc32.Checksum(r.Payload, Castagnoli); got != r.PayloadCRC {
		return fmt.Errorf("%w: LSN %d: payload CRC %08x, computed %08x", ErrRecord, r.LSN, r.PayloadCRC, got)
	}
	return nil
}
