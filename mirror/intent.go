package mirror

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/lockstep-storage/lockstep/bitmap"
)

// The write-intent bitmap says what a lost journal would leave in doubt. It
// upholds one sentence, on which the repair of a replica without its journal
// rests (replication.md 14):
//
//	Outside of the marked regions the store holds, durably, every record that
//	this replica ever had, and none that a configured peer lacks for ever.
//
// The first half: a record's region is marked before the record is appended, the
// mark is durable before the record counts as durable (syncNow, recover), and it
// is taken away only once the store has the record durably. The second half: it
// is taken away only while every configured peer is a member, so that what is
// stable is durable on all of them.

// intentTicks is how many ticks of the checkpointLoop pass between two looks for
// idle regions: at the default sync-interval, 30 s. A region that is written to
// more often than that is marked once and costs no sync any more.
const intentTicks = 6

// openIntent makes the bitmap anew, with every region marked, if it is gone or
// unreadable: then each may differ.
func (v *Volume) openIntent() (*bitmap.Intent, error) {
	in, err := bitmap.OpenIntent(v.opts.FS, intentName, v.super.Size, 0)
	if err == nil || !errors.Is(err, bitmap.ErrDamaged) && !errors.Is(err, fs.ErrNotExist) {
		return in, err
	}
	v.log.Warn("a new write-intent bitmap is made, with every region marked", "because", err)
	return replaceIntent(v.opts.FS, v.super.Size)
}

// clearIntent takes back the marks of the regions that nothing was written to
// for a while and whose records are all in the store, durably, here and on every
// configured peer.
func (v *Volume) clearIntent() {
	v.seq.Lock()
	v.mu.Lock()
	end := v.end
	// An idle region's records are older than the last look.
	may := v.failure == nil && v.checkpoint >= v.intentEnd && v.allAreMembers()
	v.mu.Unlock()
	if may {
		v.intent.ClearIdle()
		v.intentEnd = end
	}
	v.seq.Unlock()
	if err := v.intent.Flush(); err != nil {
		v.fault(fmt.Errorf("write the write-intent bitmap: %w", err))
	}
}

// allAreMembers reports whether this replica and every configured peer is in the
// recorded in-sync set, and none is in the middle of a resync. v.mu is held.
func (v *Volume) allAreMembers() bool {
	sb := &v.super
	for _, node := range v.opts.Peers {
		if !setHasNode(sb.Set, node) {
			return false
		}
	}
	return setHas(sb.Set, v.self()) && !sb.Excluded && sb.Resync == nil
}
