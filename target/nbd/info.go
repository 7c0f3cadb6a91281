package nbd

import (
	"math/bits"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// transmissionFlags says what the export can do ("Transmission flags"). FLUSH
// and FUA are offered also without a write cache: clients that use them out of
// habit must not be told that nothing can be made durable.
func transmissionFlags(info block.Info, t terms) uint16 {
	f := wire.FlagHasFlags | wire.FlagSendFlush | wire.FlagSendFUA | wire.FlagSendCache
	if info.ReadOnly {
		f |= wire.FlagReadOnly
	} else {
		// With SEND_FAST_ZERO a client learns from a device that is not fast as
		// well: the request fails at once.
		f |= wire.FlagSendTrim | wire.FlagSendWriteZeroes | wire.FlagSendFastZero
	}
	if info.Rotational {
		f |= wire.FlagRotational
	}
	if t.structured {
		f |= wire.FlagSendDF
	}
	if t.extended && t.status {
		f |= wire.FlagStatusPayload
	}
	if info.MultiConn {
		f |= wire.FlagCanMultiConn
	}
	return f
}

// blockSizes gives the three numbers of NBD_INFO_BLOCK_SIZE, within the limits
// of "Size constraints".
func blockSizes(info block.Info) (least, preferred, payload uint32) {
	sector := max(info.SectorSize, 1)
	prefer := min(max(info.PreferredSize, sector, wire.MinPrefer), wire.MaxPayload)
	if prefer&(prefer-1) != 0 {
		prefer = 1 << bits.Len64(uint64(prefer))
	}
	return uint32(sector), uint32(prefer), wire.MaxPayload
}
