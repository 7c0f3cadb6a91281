package journal

import (
	"errors"

	"github.com/lockstep-storage/lockstep/disk"
)

// Notes are what every batch header carries beside its records (replication.md
// 1): what its writer believed when it wrote the batch.
type Notes struct {
	Stable        LSN    // every in-sync replica has everything up to here durably
	Durable       LSN    // this journal was synced up to here
	Checkpoint    LSN    // the backing store holds everything up to here durably
	SuperblockSeq uint64 // sequence number of the superblock in force
}

// Options configure Open and Create. The zero value works, but for Valid.
type Options struct {
	// Size is the space for segments, bytes. Default 256 MiB, at least 64 MiB,
	// rounded up to whole segments.
	Size int64
	// SegmentSize in bytes. Default Size/16, at least 4 MiB.
	SegmentSize int64
	// Valid reports whether a record of generation tag gen may stand at lsn:
	// the superblock's history (replication.md 1). Nil accepts every one.
	Valid func(lsn LSN, gen uint64) bool
}

// A State is where a journal stands, as found by Open.
type State struct {
	First   LSN    // the oldest record held; End+1 if there is none
	End     LSN    // the newest record held, FlagLast or not
	EndCRC  uint32 // its CRC, the seed of the next one's
	LastEnd LSN    // the newest record with FlagLast; where replay must end
	Noted   Notes  // the greatest of each that any batch held notes
}

// Errors of Open, Append, Sync and readers.
var (
	// ErrDamaged: a record that had been durable is not readable. Errors that
	// wrap it name segment, offset and LSN. The replica is Failed.
	ErrDamaged = errors.New("journal is damaged")
	// ErrTrimmed: the records asked for have left the journal.
	ErrTrimmed = errors.New("records are no longer in the journal")
	// ErrFull: no segment is free. Trim makes room.
	ErrFull = errors.New("journal is full")
	// ErrFailed: an earlier write or sync failed, which is final (invariant 9).
	ErrFailed = errors.New("journal has failed")
	ErrClosed = errors.New("journal is closed")
)

var _ disk.FS // the journal's segments live in one directory of it
