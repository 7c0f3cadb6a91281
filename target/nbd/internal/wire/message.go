package wire

import (
	"encoding/binary"
	"fmt"
)

var be = binary.BigEndian

// A Request is the header of a request ("Request message").
type Request struct {
	Flags  uint16
	Type   uint16
	Cookie uint64
	Off    uint64
	Len    uint32
}

// ParseRequest decodes the first RequestSize bytes of b. It reports false if
// the magic number is wrong: the stream is out of step.
func ParseRequest(b []byte) (Request, bool) {
	_ = b[RequestSize-1]
	return Request{
		Flags:  be.Uint16(b[4:]),
		Type:   be.Uint16(b[6:]),
		Cookie: be.Uint64(b[8:]),
		Off:    be.Uint64(b[16:]),
		Len:    be.Uint32(b[24:]),
	}, be.Uint32(b) == RequestMagic
}

// Append encodes the header to b.
func (r Request) Append(b []byte) []byte {
	b = be.AppendUint32(b, RequestMagic)
	b = be.AppendUint16(b, r.Flags)
	b = be.AppendUint16(b, r.Type)
	b = be.AppendUint64(b, r.Cookie)
	b = be.AppendUint64(b, r.Off)
	return be.AppendUint32(b, r.Len)
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
