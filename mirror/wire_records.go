package mirror

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/journal"
)

// Bounds of one Records frame.
const (
	// MaxFrameRecords is the most records.
	MaxFrameRecords = 1024
	// MaxFramePayload is the most payload bytes of all its records.
	MaxFramePayload = 4 << 20
)

// Records begins a frame of records, in the order of their LSNs: for each its
// header (journal.HeaderSize bytes) and right behind it its payload, as the
// journal has them.
//
//	offset size field
//	 0     4    records, 1 to 1024
//	 4     4    zero
//	 8     8    epoch
//	16     8    set version
//	24     8    stable LSN
//	32     8    committed LSN
//	40     -    records; payloads of at most 4 MiB in all
type Records struct {
	Count             int
	Epoch             uint64
	SetVersion        uint64 // of the sender's superblock
	Stable, Committed LSN    // as the sender knows them
}

const (
	recordsFixed   = 40
	maxRecordsBody = recordsFixed + MaxFrameRecords*journal.HeaderSize + MaxFramePayload
)

func (*Records) FrameType() FrameType { return FrameRecords }

func (m *Records) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, uint64(m.Count)) // and four bytes zero
	dst = le.AppendUint64(dst, m.Epoch)
	dst = le.AppendUint64(dst, m.SetVersion)
	dst = le.AppendUint64(dst, uint64(m.Stable))
	return le.AppendUint64(dst, uint64(m.Committed))
}

func (m *Records) Decode(body []byte) error {
	r := fieldReader{b: body}
	count := r.u32()
	if count == 0 || count > MaxFrameRecords {
		r.fail("%d records, 1 to %d are allowed", count, MaxFrameRecords)
	}
	r.zero(4)
	*m = Records{Count: int(count), Epoch: r.u64(), SetVersion: r.u64(), Stable: r.lsn(), Committed: r.lsn()}
	return r.finish(FrameRecords)
}

// A RecordsFrame collects records for one Records frame and lays it out for a
// vectored write, without copying a payload. The zero value is empty. It is some
// 50 KiB, to be kept and used again.
type RecordsFrame struct {
	count   int
	payload int // bytes
	bufs    [][]byte
	// head is everything but payloads; head[cut:n] is not in bufs yet.
	head   [FrameHeaderSize + recordsFixed + MaxFrameRecords*journal.HeaderSize]byte
	cut, n int
}

// Add takes a sealed record, or reports false if the frame has no room for it:
// send it first. The frame refers to r.Payload until Reset, the caller keeps it
// alive and unchanged.
func (f *RecordsFrame) Add(r *journal.Record) bool {
	if f.count == MaxFrameRecords || f.payload+len(r.Payload) > MaxFramePayload {
		return false
	}
	if f.n == 0 {
		f.n = FrameHeaderSize + recordsFixed
	}
	r.EncodeHeader(f.head[f.n:])
	f.n += journal.HeaderSize
	f.count++
	if len(r.Payload) > 0 {
		f.bufs = append(f.bufs, f.head[f.cut:f.n], r.Payload)
		f.cut = f.n
		f.payload += len(r.Payload)
	}
	return true
}

// Len is the number of records added.
func (f *RecordsFrame) Len() int { return f.count }

// Size is the length of the frame as it stands, bytes.
func (f *RecordsFrame) Size() int { return f.n + f.payload }

// EncodeRecordsHeader completes the frame with what m notes (m.Count is set) and
// returns its pieces, to be written one after the other (net.Buffers). They are
// valid until Reset. The frame must hold a record.
func (f *RecordsFrame) EncodeRecordsHeader(m Records) [][]byte {
	if f.count == 0 {
		panic("mirror: Records frame without a record")
	}
	m.Count = f.count
	fixed := m.Encode(f.head[FrameHeaderSize:FrameHeaderSize])
	putFrameHeader(f.head[:], FrameRecords, f.Size()-FrameHeaderSize, fixed)
	if f.cut < f.n {
		f.bufs = append(f.bufs, f.head[f.cut:f.n])
		f.cut = f.n
	}
	return f.bufs
}

// Reset empties the frame and forgets the payloads.
func (f *RecordsFrame) Reset() {
	clear(f.bufs)
	f.count, f.payload, f.cut, f.n, f.bufs = 0, 0, 0, 0, f.bufs[:0]
}

// checkRecord compares what a record wants with what its frame has left.
func (r *FrameReader) checkRecord(payload int) error {
	switch {
	case r.records == 0:
		return fmt.Errorf("%w: more records read than the frame announced", ErrFrame)
	case r.left < uint32(journal.HeaderSize+payload):
		return fmt.Errorf("%w: a record of %d bytes of payload where %d bytes are left", ErrFrame, payload, r.left)
	}
	return nil
}
