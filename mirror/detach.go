package mirror

import (
	"fmt"
	"time"
)

// A Primary whose own disk fails goes on diskless, through its peers, if an
// UpToDate member is left (replication.md 12). In order:
//
//  1. From the failure on, under the lock that everything looks at, it reads and
//     writes its own files no more and commits nothing. What was sequenced stays
//     in the queue, from which the members are sent it.
//  2. That it failed is noted on its own disk, where that still works. Nothing
//     waits for that: without the note its superblock names the members, so
//     that it is not promoted without them either.
//  3. A generation begins whose set is the members without this replica: a
//     shrink that removes itself. Each member records it before the record.
//  4. When that is durable on every member, writes commit when they have them,
//     and flushes complete when they have them durably. Reads go to a member
//     (remote.go).
//
// A record leaves the queue once it is stable, so whatever a member that
// reconnects may lack is there. With the last member everything is lost sight
// of: from then on requests are answered with the error, reads too.

// IOErrorPolicy is what a Primary does when its own disk fails.
type IOErrorPolicy uint8

const (
	// Detach goes on without the disk, through the peers, if one is UpToDate.
	// The default.
	Detach IOErrorPolicy = iota
	// PassOn answers clients with the error.
	PassOn
)

// diskless reports whether this Primary goes on without its disk.
func (v *Volume) diskless() bool { return v.readFrom.Load() == fromPeers }

// abandoned reports whether nothing is written to the replica's own files any
// more: it is diskless, or was, and its journal lacks what came since.
func (v *Volume) abandoned() bool { return v.readFrom.Load() >= fromPeers }

// detachLocked goes on without the disk, which failed with err. v.mu is held.
func (v *Volume) detachLocked(err error) {
	v.log.Error("the replica's own disk failed: its Primary goes on through its peers; demote it and promote a peer when that suits, then replace the disk",
		"error", err)
	v.noSpace, v.starved = false, false
	v.readFrom.Store(fromPeers)
	v.pending.reset() // the members answer reads, whatever is pending there
	v.broadcast()
}

// mayDisconnect refuses to cut a diskless Primary off from its last member, and
// any from one that its in-sync set cannot do without.
func (v *Volume) mayDisconnect(node string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var gone []*peerState
	for _, p := range v.others {
		if node == "" || node == p.node {
			gone = append(gone, p)
		}
	}
	if v.role == Primary && v.failure == nil && v.detached == nil && !v.mayLeave(gone...) {
		return fmt.Errorf("volume %q is Primary on node %q and needs %d replicas in sync: without this one its writes would be held back; demote it first, or lower min-in-sync", v.opts.Volume, v.opts.Node, v.opts.MinInSync)
	}
	if v.detached == nil || v.failure != nil || v.memberLeft(time.Now(), gone) {
		return nil
	}
	return fmt.Errorf("volume %q has no disk on node %q and goes on through its peers alone: demote it here first", v.opts.Volume, v.opts.Node)
}

// passOver is what becomes of a batch in the place of the journal when there is
// none. v.seq is held.
func (v *Volume) passOver(b *batch) {
	b.reset()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.queue.held > v.opts.PendingLimit/4 || v.queue.n > maxQueue/4 {
		v.wantSync(v.end) // the members' syncs alone empty the queue
	}
	v.advance()
}

// dropStable takes what every member has durably out of the queue. v.apply is
// held.
func (v *Volume) dropStable() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.queue.popTo(v.stable)
	v.broadcast()
}
