package nbd

import (
	"encoding/binary"
	"strings"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// maxMessage is the longest text that goes with an error chunk, in bytes.
const maxMessage = 512

// answer lays the reply to a request out, in the form that was negotiated: a
// simple one where nothing goes with it, for that is the shortest.
func (b *replyBuffer) answer(q *request, errno uint32) {
	hasData := q.cmd == wire.CmdRead || q.cmd == wire.CmdBlockStatus
	switch {
	case errno == wire.OK && !hasData && b.terms.extended:
		b.added(b.begin(q, wire.ReplyNone, 0, 0, true))
	case !b.terms.structured, errno == wire.OK && !hasData:
		b.simple(q, errno)
	case errno != wire.OK:
		b.content(q, q.runs, false)
		b.failure(q, errno)
	case q.cmd == wire.CmdBlockStatus:
		b.status(q)
	case len(q.runs) == 0:
		b.content(q, []run{{end: int(q.io.Len)}}, true)
	default:
		b.content(q, q.runs, true)
	}
}

// simple is "Simple reply message".
func (b *replyBuffer) simple(q *request, errno uint32) {
	at := b.room(wire.SimpleReplySize)
	b.headers = wire.Reply{Errno: errno, Cookie: q.cookie}.Append(b.headers)
	b.added(at)
	if errno == wire.OK && q.payload != nil {
		b.payload(q.payload.Bytes())
	}
}

// content is what a read found ("NBD_REPLY_TYPE_OFFSET_DATA" and
// "NBD_REPLY_TYPE_OFFSET_HOLE"). With done nothing follows it.
func (b *replyBuffer) content(q *request, runs []run, done bool) {
	for i, r := range runs {
		kind, length, inline := wire.ReplyOffsetData, 8+r.end-r.off, 8
		if r.hole {
			kind, length, inline = wire.ReplyOffsetHole, 12, 12
		}
		at := b.begin(q, kind, length, inline, done && i == len(runs)-1)
		b.headers = binary.BigEndian.AppendUint64(b.headers, uint64(q.io.Off)+uint64(r.off))
		if r.hole {
			b.headers = binary.BigEndian.AppendUint32(b.headers, uint32(r.end-r.off))
		}
		b.added(at)
		if !r.hole {
			b.payload(q.payload.Bytes()[r.off:r.end])
		}
	}
}

// status is "NBD_REPLY_TYPE_BLOCK_STATUS" or "NBD_REPLY_TYPE_BLOCK_STATUS_EXT",
// of the one context that there is.
func (b *replyBuffer) status(q *request) {
	kind, inline := wire.ReplyBlockStatus, 4
	if b.terms.extended {
		kind, inline = wire.ReplyBlockStatusExt, 8
	}
	at := b.begin(q, kind, inline+len(q.descriptors), inline, true)
	b.headers = binary.BigEndian.AppendUint32(b.headers, allocationID)
	if b.terms.extended {
		b.headers = binary.BigEndian.AppendUint32(b.headers, uint32(len(q.descriptors)/b.terms.descriptorSize()))
	}
	b.added(at)
	b.payload(q.descriptors)
}

// failure ends a reply with "NBD_REPLY_TYPE_ERROR", or for a read that the
// device could not carry out with "NBD_REPLY_TYPE_ERROR_OFFSET": what was sent
// before it is sound.
func (b *replyBuffer) failure(q *request, errno uint32) {
	why := q.why()
	if len(why) > maxMessage {
		why = strings.ToValidUTF8(why[:maxMessage], "")
	}
	kind, length := wire.ReplyError, 6+len(why)
	located := q.cmd == wire.CmdRead && q.refusal == nil && !sessionOver(q.err)
	if located {
		kind, length = wire.ReplyErrorOffset, length+8
	}
	at := b.begin(q, kind, length, length, true)
	b.headers = binary.BigEndian.AppendUint32(b.headers, errno)
	b.headers = binary.BigEndian.AppendUint16(b.headers, uint16(len(why)))
	b.headers = append(b.headers, why...)
	if located {
		b.headers = binary.BigEndian.AppendUint64(b.headers, uint64(q.io.Off)+uint64(q.failedAt))
	}
	b.added(at)
}

// begin appends a chunk's header ("Structured reply chunk message", "Extended
// reply chunk message"). length bytes of payload follow, inline of them in the headers: the caller appends
// them, and says that it is done with added.
func (b *replyBuffer) begin(q *request, kind uint16, length, inline int, done bool) (at int) {
	at = b.room(wire.ExtChunkSize + inline)
	c := wire.Chunk{Type: kind, Cookie: q.cookie, Off: q.off, Len: uint64(length)}
	if done {
		c.Flags = wire.ReplyFlagDone
	}
	b.headers = c.Append(b.headers, b.terms.extended)
	return at
}
