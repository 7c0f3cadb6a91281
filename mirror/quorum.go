package mirror

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-storage/lockstep/journal"
)

// A Primary acknowledges a write with at least Options.MinInSync members in its
// in-sync set, or not at all (replication.md 2, min-in-sync):
//
//   - A member that is lost is not removed if that would leave fewer. The set stays
//     as recorded, so that whoever is in it stays eligible, and holds back every
//     write (11d).
//   - A set that begins with fewer, at a promotion, commits what came before it and
//     its own generation record, and nothing of its clients until it has grown.
//
// What was written meanwhile waits in the journal, and commits once enough members
// are back. Reads go on: they see what is committed.

// QuorumPolicy is what clients' writes meet on a Primary with fewer in-sync
// replicas than Options.MinInSync.
type QuorumPolicy uint8

const (
	// SuspendIO lets them wait until there are enough. The default.
	SuspendIO QuorumPolicy = iota
	// IOError answers them with ErrNoQuorum.
	IOError
)

// ErrNoQuorum is the answer to a write or a flush with IOError. A write that was
// under way when the members were lost may still take effect.
var ErrNoQuorum = errors.New("fewer replicas are in sync than min-in-sync asks for")

// quorumLimit is how far a Primary may commit whoever has acknowledged: with too
// few members up to the first client's request. v.mu is held.
func (v *Volume) quorumLimit() LSN {
	if v.enough(v.super.Set) {
		return notBegun
	}
	for {
		e := v.queue.at(v.unheld + 1)
		if e == nil || e.rec.Kind != journal.KindGeneration {
			return v.unheld
		}
		v.unheld++
	}
}

// refuseWrites answers the requests that wait. Their records stay in the journal,
// and commit once there are enough members. v.mu is held.
func (v *Volume) refuseWrites() {
	for l := v.committed + 1; l < v.queue.next(); l++ {
		if e := v.queue.at(l); e != nil && e.req != nil {
			finish(e.req, ErrNoQuorum)
			e.req = nil
		}
	}
	v.failFlushes(ErrNoQuorum)
}

// noQuorum says, for people, that writes are held back and what for. v.mu is held.
func (v *Volume) noQuorum() string {
	do := "writes wait"
	if v.opts.OnNoQuorum == IOError {
		do = "writes get an error"
	}
	in := 1
	var names []string
	for _, node := range v.opts.Peers {
		if p := v.peers[node]; setHasNode(v.super.Set, node) && v.counted(p.peerState) {
			in++
		} else {
			names = append(names, node)
		}
	}
	return fmt.Sprintf("%s: replicas in sync: %d, min-in-sync: %d; waits for %s", do, in, v.opts.MinInSync, strings.Join(names, ", "))
}
