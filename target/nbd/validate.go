package nbd

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// rules are what a connection's requests are judged by. They stay the same as
// long as the session lasts.
type rules struct {
	size     uint64
	sector   uint64
	readOnly bool
	fastZero bool
	terms
}

func rulesOf(info block.Info, t terms) rules {
	return rules{
		size:     uint64(info.Size),
		sector:   uint64(max(info.SectorSize, 1)),
		readOnly: info.ReadOnly,
		fastZero: info.FastZero,
		terms:    t,
	}
}

// A refusal is why a request is not carried out.
type refusal struct {
	errno uint32
	why   string // with the numbers
	// hangUp: the payload that follows is too long to be skipped.
	hangUp bool
}

func refuse(errno uint32, format string, args ...any) *refusal {
	return &refusal{errno: errno, why: fmt.Sprintf(format, args...)}
}

// maxEffect is the longest range, in bytes, that is trimmed or zeroed at once.
const maxEffect = 1 << 40

// payload is how many bytes follow a request's header ("Request message").
func (r rules) payload(h wire.Request) uint64 {
	if h.Type == wire.CmdWrite && !r.extended || h.Flags&wire.CmdFlagPayloadLen != 0 && r.extended {
		return h.Len
	}
	return 0
}

// judge is the one place where a request is judged: before anything is
// allocated for it, and before anybody else sees it. nil means that it is
// sound. Disconnects are not judged.
func (r rules) judge(h wire.Request) *refusal {
	n := h.Len
	if p := r.payload(h); p > wire.MaxPayload {
		no := refuse(wire.EINVAL, "%s with %d bytes, at most %d are taken at once", wire.CmdName(h.Type), p, wire.MaxPayload)
		no.hangUp = true
		return no
	}

	flags, no := r.flags(h.Type)
	if no != nil {
		return no
	}
	name := wire.CmdName(h.Type)
	if extra := h.Flags &^ flags; extra != 0 {
		return refuse(wire.EINVAL, "%s with flags %#x, of which %#x are unknown or do not apply", name, h.Flags, extra)
	}
	switch p := r.payload(h); {
	case h.Type == wire.CmdWrite && p == 0 && n > 0:
		return refuse(wire.EINVAL, "write of %d bytes without NBD_CMD_FLAG_PAYLOAD_LEN", n)
	case r.filtered(h) && p != filterSize:
		return refuse(wire.EINVAL, "block-status with a payload of %d bytes, for one context it has %d", p, filterSize)
	case r.filtered(h):
		return nil // it is judged again, with what the payload says
	}
	if h.Type == wire.CmdFlush {
		if h.Off != 0 || n != 0 {
			return refuse(wire.EINVAL, "flush with offset %d and length %d, both must be 0", h.Off, n)
		}
		return nil
	}

	changes := h.Type == wire.CmdWrite || h.Type == wire.CmdTrim || h.Type == wire.CmdWriteZeroes
	if changes && r.readOnly {
		return refuse(wire.EPERM, "%s of %d bytes at %d, but the export is read-only", name, n, h.Off)
	}
	if h.Off > r.size || n > r.size-h.Off { // no overflow, whatever the offset
		errno := wire.EINVAL
		if h.Type == wire.CmdWrite || h.Type == wire.CmdWriteZeroes {
			errno = wire.ENOSPC
		}
		return refuse(errno, "%s of %d bytes at %d, beyond the export's %d", name, n, h.Off, r.size)
	}
	if n == 0 {
		return refuse(wire.EINVAL, "%s of 0 bytes at %d", name, h.Off)
	}
	if h.Off%r.sector != 0 || n%r.sector != 0 {
		return refuse(wire.EINVAL, "%s of %d bytes at %d, not in whole blocks of %d", name, n, h.Off, r.sector)
	}
	return r.tooMuch(h)
}

// flags is which flags go with a command ("Command flags").
func (r rules) flags(cmd uint16) (flags uint16, no *refusal) {
	flags = wire.CmdFlagFUA // to be accepted with every command
	switch cmd {
	case wire.CmdTrim, wire.CmdFlush, wire.CmdCache:
	case wire.CmdRead:
		if r.structured {
			flags |= wire.CmdFlagDF
		}
	case wire.CmdWriteZeroes:
		flags |= wire.CmdFlagNoHole | wire.CmdFlagFastZero
	case wire.CmdBlockStatus:
		if !r.status {
			return 0, refuse(wire.EINVAL, "block-status, but no metadata context was selected for the export")
		}
		flags |= wire.CmdFlagReqOne
		fallthrough // it may have a payload
	case wire.CmdWrite:
		if r.extended {
			flags |= wire.CmdFlagPayloadLen
		}
	default:
		return 0, refuse(wire.EINVAL, "unknown command %d", cmd)
	}
	return flags, nil
}

// tooMuch refuses what is sound but more than is done at once.
func (r rules) tooMuch(h wire.Request) *refusal {
	name, long := wire.CmdName(h.Type), h.Len > maxEffect
	switch h.Type {
	case wire.CmdRead:
		if h.Len <= wire.MaxPayload {
			return nil
		}
		errno := wire.EINVAL
		if r.structured { // "NBD_CMD_READ": the client is prepared for it
			errno = wire.EOVERFLOW
		}
		return refuse(errno, "%s of %d bytes, at most %d are given at once", name, h.Len, wire.MaxPayload)
	case wire.CmdWriteZeroes, wire.CmdTrim:
		if h.Flags&wire.CmdFlagFastZero != 0 && (!r.fastZero || long) {
			return refuse(wire.ENOTSUP, "%s of %d bytes at %d is not fast", name, h.Len, h.Off)
		}
		if long {
			return refuse(wire.EOVERFLOW, "%s of %d bytes, at most %d are done at once", name, h.Len, uint64(maxEffect))
		}
	}
	return nil
}
