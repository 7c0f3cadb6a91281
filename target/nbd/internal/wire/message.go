package wire

import (
	"encoding/binary"
	"fmt"
)

var be = binary.BigEndian

// A Request is the header of a request ("Request message"), in its compact form
// or, of a client that negotiated it, its extended one.
type Request struct {
	Flags  uint16
	Type   uint16
	Cookie uint64
	Off    uint64
	Len    uint64 // the compact form carries 32 bits
}

// ParseRequest decodes the first RequestSize bytes of b. It reports false if
// the magic number is wrong: the stream is out of step.
func ParseRequest(b []byte) (Request, bool) {
	_ = b[RequestSize-1]
	r := request(b)
	r.Len = uint64(be.Uint32(b[24:]))
	return r, be.Uint32(b) == RequestMagic
}

// ParseExtRequest does the same with the ExtRequestSize bytes of the extended
// form.
func ParseExtRequest(b []byte) (Request, bool) {
	_ = b[ExtRequestSize-1]
	r := request(b)
	r.Len = be.Uint64(b[24:])
	return r, be.Uint32(b) == ExtRequestMagic
}

// request decodes what both forms have in the same place.
func request(b []byte) Request {
	return Request{
		Flags:  be.Uint16(b[4:]),
		Type:   be.Uint16(b[6:]),
		Cookie: be.Uint64(b[8:]),
		Off:    be.Uint64(b[16:]),
	}
}

// Append encodes the header to b, in its compact form.
func (r Request) Append(b []byte) []byte {
	b = r.append(b, RequestMagic)
	return be.AppendUint32(b, uint32(r.Len))
}

// AppendExt encodes the header to b, in its extended form.
func (r Request) AppendExt(b []byte) []byte {
	b = r.append(b, ExtRequestMagic)
	return be.AppendUint64(b, r.Len)
}

func (r Request) append(b []byte, magic uint32) []byte {
	b = be.AppendUint32(b, magic)
	b = be.AppendUint16(b, r.Flags)
	b = be.AppendUint16(b, r.Type)
	b = be.AppendUint64(b, r.Cookie)
	return be.AppendUint64(b, r.Off)
}

// A Reply is a simple reply's header ("Simple reply message").
type Reply struct {
	Errno  uint32
	Cookie uint64
}

// ParseReply decodes the first SimpleReplySize bytes of b, and reports false
// for a wrong magic number.
func ParseReply(b []byte) (Reply, bool) {
	_ = b[SimpleReplySize-1]
	return Reply{Errno: be.Uint32(b[4:]), Cookie: be.Uint64(b[8:])}, be.Uint32(b) == SimpleReplyMagic
}

// Append encodes the header to b.
func (r Reply) Append(b []byte) []byte {
	b = be.AppendUint32(b, SimpleReplyMagic)
	b = be.AppendUint32(b, r.Errno)
	return be.AppendUint64(b, r.Cookie)
}

// A Chunk is the header of one chunk of a structured or extended reply
// ("Structured reply chunk message", "Extended reply chunk message").
type Chunk struct {
	Flags  uint16
	Type   uint16
	Cookie uint64
	Off    uint64 // of the request; in the extended form only
	Len    uint64 // of the payload, at most 32 bits
}

// ParseChunk decodes the first ChunkSize bytes of b, or the ExtChunkSize bytes
// of the extended form, and reports false for a wrong magic number.
func ParseChunk(b []byte, extended bool) (Chunk, bool) {
	c := Chunk{Flags: be.Uint16(b[4:]), Type: be.Uint16(b[6:]), Cookie: be.Uint64(b[8:])}
	if extended {
		c.Off, c.Len = be.Uint64(b[16:]), be.Uint64(b[24:])
		return c, be.Uint32(b) == ExtReplyMagic
	}
	c.Len = uint64(be.Uint32(b[16:]))
	return c, be.Uint32(b) == ChunkMagic
}

// Append encodes the header to b.
func (c Chunk) Append(b []byte, extended bool) []byte {
	magic := ChunkMagic
	if extended {
		magic = ExtReplyMagic
	}
	b = be.AppendUint32(b, magic)
	b = be.AppendUint16(b, c.Flags)
	b = be.AppendUint16(b, c.Type)
	b = be.AppendUint64(b, c.Cookie)
	if extended {
		b = be.AppendUint64(b, c.Off)
		return be.AppendUint64(b, c.Len)
	}
	return be.AppendUint32(b, uint32(c.Len))
}

// CmdName names a request type for people.
func CmdName(t uint16) string {
	switch t {
	case CmdRead:
		return "read"
	case CmdWrite:
		return "write"
	case CmdDisc:
		return "disconnect"
	case CmdFlush:
		return "flush"
	case CmdTrim:
		return "trim"
	case CmdWriteZeroes:
		return "write-zeroes"
	case CmdCache:
		return "cache"
	case CmdBlockStatus:
		return "block-status"
	}
	return fmt.Sprintf("command %d", t)
}

// ErrnoName names an error value.
func ErrnoName(e uint32) string {
	switch e {
	case OK:
		return "OK"
	case EPERM:
		return "EPERM"
	case EIO:
		return "EIO"
	case ENOMEM:
		return "ENOMEM"
	case EINVAL:
		return "EINVAL"
	case ENOSPC:
		return "ENOSPC"
	case EOVERFLOW:
		return "EOVERFLOW"
	case ENOTSUP:
		return "ENOTSUP"
	case ESHUTDOWN:
		return "ESHUTDOWN"
	}
	return fmt.Sprintf("error %d", e)
}
