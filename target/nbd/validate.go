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

// judge is the one place where a request is judged: before anything is
// allocated for it, and before anybody else sees it. nil means that it is
// sound. Disconnects are not judged.
func (r rules) judge(h wire.Request) *refusal {
	n := h.Len
	if h.Type == wire.CmdWrite && n > wire.MaxPayload {
		no := refuse(wire.EINVAL, "write of %d bytes, at most %d are taken at once", n, wire.MaxPayload)
		no.hangUp = true
		return no
	}

	flags := wire.CmdFlagFUA // "Command flags": to be accepted with every command
	switch h.Type {
	case wire.CmdRead:
		if r.structured {
			flags |= wire.CmdFlagDF
		}
	case wire.CmdWrite, wire.CmdTrim, wire.CmdFlush, wire.CmdCache:
	case wire.CmdWriteZeroes:
		flags |= wire.CmdFlagNoHole | wire.CmdFlagFastZero
	case wire.CmdBlockStatus:
		if !r.status {
			return refuse(wire.EINVAL, "block-status, but no metadata context was selected for the export")
		}
		flags |= wire.CmdFlagReqOne
	default:
		return refuse(wire.EINVAL, "unknown command %d", h.Type)
	}
	name := wire.CmdName(h.Type)
	if extra := h.Flags &^ flags; extra != 0 {
		return refuse(wire.EINVAL, "%s with flags %#x, of which %#x are unknown or do not apply", name, h.Flags, extra)
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
	if h.Flags&wire.CmdFlagFastZero != 0 && !r.fastZero {
		return refuse(wire.ENOTSUP, "%s of %d bytes at %d is no faster than a write", name, n, h.Off)
	}
	if h.Type == wire.CmdRead && n > wire.MaxPayload {
		errno := wire.EINVAL
		if r.structured { // "NBD_CMD_READ": the client is prepared for it
			errno = wire.EOVERFLOW
		}
		return refuse(errno, "read of %d bytes, at most %d are given at once", n, wire.MaxPayload)
	}
	return nil
}
