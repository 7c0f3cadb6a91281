package mirror

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// A FrameReader reads frames off a connection. Next gives a frame's type and the
// part of its body that its Message decodes; of a Records frame ReadRecord then
// reads record by record, of a Block frame ReadBlock and of a ReadReply frame
// ReadReplied the payload. Everything is bounded before it is allocated: by some
// 200 KiB for the message, and one payload at a time. Its methods are not to be called concurrently.
//
// An error is final: the connection is of no further use. A connection that
// closes between two frames gives io.EOF.
type FrameReader struct {
	r       *bufio.Reader
	buf     []byte // of the last message
	left    uint32 // bytes of the current frame that were not read
	records int    // of the current frame that were not read
	header  [journal.HeaderSize]byte
}

// NewFrameReader reads from r, whose buffer should hold many small frames.
func NewFrameReader(r *bufio.Reader) *FrameReader { return &FrameReader{r: r} }

// Buffered reports whether another frame, or some of it, has arrived already.
func (r *FrameReader) Buffered() bool { return r.r.Buffered() > 0 }

// Next reads up to the end of the next frame's message. body is valid until the
// next call. What the last frame had behind its message must have been read.
func (r *FrameReader) Next() (t FrameType, body []byte, err error) {
	if r.left > 0 {
		return 0, nil, fmt.Errorf("%w: %d bytes behind its last record", ErrFrame, r.left)
	}
	h, err := r.nextHeader()
	if err != nil {
		return 0, nil, err
	}
	if uint32(cap(r.buf)) < h.fixed {
		r.buf = make([]byte, h.fixed)
	}
	body = r.buf[:h.fixed]
	if _, err := io.ReadFull(r.r, body); err != nil {
		return 0, nil, fmt.Errorf("reading a %v frame: %w", h.kind, noEOF(err))
	}
	if crc := crc32.Checksum(body, journal.Castagnoli); crc != h.fixedCRC {
		return 0, nil, fmt.Errorf("%w: %v: CRC %08x, computed %08x", ErrFrame, h.kind, h.fixedCRC, crc)
	}
	r.left, r.records = h.length-h.fixed, 0
	if h.kind == FrameRecords {
		r.records = int(min(le.Uint32(body), MaxFrameRecords))
	}
	return h.kind, body, nil
}

func (r *FrameReader) nextHeader() (frameHeader, error) {
	p := r.header[:FrameHeaderSize]
	if _, err := io.ReadFull(r.r, p[:1]); err != nil {
		return frameHeader{}, err // io.EOF between two frames
	}
	if _, err := io.ReadFull(r.r, p[1:]); err != nil {
		return frameHeader{}, fmt.Errorf("reading a frame's header: %w", noEOF(err))
	}
	return decodeFrameHeader(p)
}

// ReadRecord reads the next record of a Records frame into rec and checks its
// CRCs; prev is its predecessor's. rec gets a buffer of its own for the payload,
// with one reference that the caller drops; there is none without a payload, nor
// after an error. Whether LSN and generation may stand there is the caller's to
// judge.
func (r *FrameReader) ReadRecord(rec *journal.Record, prev uint32) error {
	*rec = journal.Record{}
	if err := r.checkRecord(0); err != nil {
		return err
	}
	h := r.header[:]
	if _, err := io.ReadFull(r.r, h); err != nil {
		return fmt.Errorf("reading a record's header: %w", noEOF(err))
	}
	if err := rec.DecodeHeader(h, prev); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	n, err := journal.PayloadLen(h)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if err := r.checkRecord(n); err != nil {
		return err
	}
	if n > 0 {
		rec.Buf, err = r.readPayload(n)
		if err != nil {
			return fmt.Errorf("reading the payload of LSN %d: %w", rec.LSN, err)
		}
		rec.Payload = rec.Buf.Bytes()
	}
	if err := rec.CheckPayload(); err != nil {
		if rec.Buf != nil {
			rec.Buf.Unref()
		}
		rec.Buf, rec.Payload = nil, nil
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	r.records--
	r.left -= uint32(journal.HeaderSize + n)
	return nil
}

// ReadBlock reads the payload of a Block frame whose message is b. The caller
// drops the buffer's reference; it is nil if b is Zero.
func (r *FrameReader) ReadBlock(b *Block) (*block.Buffer, error) {
	buf, err := r.readRest(b.PayloadLen(), b.PayloadCRC)
	if err != nil {
		return nil, fmt.Errorf("reading the block at offset %d: %w", b.Offset, err)
	}
	return buf, nil
}

// ReadReplied reads the payload of a ReadReply frame whose message is m. The
// caller drops the buffer's reference; it is nil if the read failed.
func (r *FrameReader) ReadReplied(m *ReadReply) (*block.Buffer, error) {
	buf, err := r.readRest(int(m.Length), m.PayloadCRC)
	if err != nil {
		return nil, fmt.Errorf("reading the reply to read %d: %w", m.ID, err)
	}
	return buf, nil
}

// readRest reads the n bytes of payload that a frame ends with, if any.
func (r *FrameReader) readRest(n int, crc uint32) (*block.Buffer, error) {
	if r.left != uint32(n) || r.records != 0 {
		return nil, fmt.Errorf("%w: a payload of %d bytes where %d are left", ErrFrame, n, r.left)
	}
	if n == 0 {
		return nil, nil
	}
	buf, err := r.readPayload(n)
	if err != nil {
		return nil, err
	}
	if got := crc32.Checksum(buf.Bytes(), journal.Castagnoli); got != crc {
		buf.Unref()
		return nil, fmt.Errorf("%w: payload CRC %08x, computed %08x", ErrFrame, crc, got)
	}
	r.left = 0
	return buf, nil
}

func (r *FrameReader) readPayload(n int) (*block.Buffer, error) {
	buf := block.Get(n)
	if _, err := io.ReadFull(r.r, buf.Bytes()); err != nil {
		buf.Unref()
		return nil, noEOF(err)
	}
	return buf, nil
}

// noEOF tells a connection that closed within a frame from one that closed
// between two.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
