package mirror

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// limits are what is journaled at once, bytes. They are the constants below for
// every journal that a user can have, and less for the small ones of tests.
type limits struct {
	record int64 // payload of one record: a longer write is several
	round  int64 // payload of one round of the sequencer, but for its first write
	// write is the longest write, which is the same on every node. Its parts are committed, stable and applied
	// together (queue.wholeTo), so it is atomic if the journal holds all of it at
	// once: admit sees to the room for it here, awaitRoom on the peers.
	write int64

	segment int64 // length of the journal's segments
}

const (
	roundBytes   = 2 << 20
	roundRecords = 256
	atomicWrite  = block.MaxBuffer
)

func limitsOf(j *journal.Journal) limits {
	s := j.SegmentSize()
	l := limits{record: min(journal.MaxPayload, s/4), round: min(roundBytes, s/2), segment: s}
	// Its room is a segment less than the journal: the tail's is never free.
	l.write = min(atomicWrite, (j.Size()/s-3)*l.perSegment()-2*l.round-1)
	return l
}

// perSegment is how much payload a segment takes at least, wherever the borders of
// records fall: up to a record's length is wasted, and there are headers.
func (l limits) perSegment() int64 { return l.segment - l.record - l.segment/64 }

// room is what a round that begins with a write of n bytes takes of the journal,
// bytes.
func (l limits) room(n int64) int64 { return l.batch(n + 2*l.round) }

// batch is what a batch of n bytes takes of the journal at most: one more segment where
// it begins, one that a truncation may take, and one for the rest. It is all that a
// Secondary waits for: to keep the rounds free as well, in the middle of a write whose
// end alone makes room, would be to wait for ever.
func (l limits) batch(n int64) int64 { return (n/l.perSegment() + 3) * l.segment }

// judge refuses a write that the journal could never take.
func (l limits) judge(r *block.Request) error {
	if r.Op == block.OpWrite && r.Len > l.write {
		return fmt.Errorf("%v of %d bytes, of which the journal takes %d at once: %w", r.Op, r.Len, l.write, block.ErrOutOfRange)
	}
	return nil
}
