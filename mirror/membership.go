package mirror

import (
	"context"
	"errors"
	"time"
)

// watchLoop, on a Primary, removes the members that are gone from the in-sync
// set.
func (v *Volume) watchLoop() {
	tick := time.NewTicker(v.opts.PeerTimeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-v.watchKick:
		case <-tick.C:
		case <-v.ctx.Done():
			return
		}
		v.shrink()
	}
}

// lost lists the voters that are gone for longer than they may be. v.mu is held.
func (v *Volume) lost() (gone []*peer) {
	v.voters(func(p *peer, _, _ LSN) {
		if !p.counted() && time.Now().After(p.removeAt) {
			gone = append(gone, p)
		}
	})
	return gone
}

// leavers lists the voters that are to leave the in-sync set: those that are lost, or
// else the slowest of the members that are too slow, if the set can do without it. A
// Primary without a disk keeps whom it has. v.mu is held.
func (v *Volume) leavers() []*peer {
	gone := v.lost()
	if len(gone) > 0 || v.detached != nil || v.joiner != nil || !v.led || v.suspended {
		return gone
	}
	var slowest *peer
	v.voters(func(p *peer, _, _ LSN) {
		if p.counted() && p.lag.tooSlow() && v.leaving[p.node] == nil && v.mayLeave(p) &&
			(slowest == nil || p.lag.worst > slowest.lag.worst) {
			slowest = p
		}
	})
	if slowest != nil {
		gone = append(gone, slowest)
	}
	return gone
}

// counted reports whether a voter's acknowledgements come in: it is connected
// and through its handshake, as the very member that is recorded, or on the way to
// become one. v.mu is held.
func (p *peer) counted() bool {
	v := p.v
	if p.link == nil || !p.link.ready {
		return false
	}
	i, recorded := setIndex(v.super.Set, p.node)
	return p == v.joiner || !recorded || !p.stranger(v.super.Set[i])
}

// stranger reports whether p was met as another incarnation than the member that is
// recorded: one that lost its memory while the set could not do without it (11f).
// v.mu is held.
func (p *peer) stranger(m Member) bool {
	return p.incarnation != 0 && p.incarnation != m.Incarnation
}

// shrink removes the members that are lost: their sessions are closed already
// and their later acknowledgements ignored; our journal is made durable up to
// all that they acknowledged; the smaller set is recorded in our superblock,
// then its generation record is made durable on every remaining member; only
// then is anything acknowledged without them (invariant 6, membership before
// ack; replication.md 2). Until then they hold everything back at what they had
// acknowledged.
func (v *Volume) shrink() {
	v.mu.Lock()
	gone := v.leavers()
	due := v.role == Primary && v.failure == nil && (len(gone) > 0 || v.suspended)
	leave := due && v.mayLeave(gone...) && (v.detached == nil || v.memberLeft(gone))
	v.mu.Unlock()
	if !due {
		return
	}
	if leave {
		if fenced, _ := v.fence(gone); len(fenced) < len(gone) {
			return // Status says why
		}
	}
	v.change.Lock()
	defer v.change.Unlock()
	v.mu.Lock()
	gone = v.leavers()
	if leave && !v.allFenced(gone) {
		v.mu.Unlock()
		return // another was lost meanwhile
	}
	if v.role != Primary || v.lastMemberLost(gone) {
		v.mu.Unlock()
		return
	}
	stays := !v.mayLeave(gone...)
	if stays {
		// The recorded set stays (11d); a joiner that was lost is waited for no more.
		gone = nil
		if j := v.joiner; j != nil && !j.counted() {
			gone = []*peer{j}
		}
	}
	v.judgeQuorum()
	if len(gone) == 0 {
		v.mu.Unlock()
		return
	}
	has := v.memberHoldings()
	for _, p := range gone {
		v.leaving[p.node] = p
		v.dropped(p)
		p.closeLink(CodeBusy, "it is being removed from the in-sync set")
	}
	v.mu.Unlock()
	if v.syncNow() != nil {
		return
	}
	lsn, err := v.begin(func(sb *Superblock) ([]Member, error) {
		for _, p := range gone {
			if !stays {
				sb.Set = setWithout(sb.Set, p.node)
			}
		}
		sb.SetVersion++
		return sb.Set, nil
	})
	if err != nil {
		v.log.Error("could not record the smaller in-sync set; writes wait", "error", err)
		return
	}
	kick(v.syncKick)
	v.mu.Lock()
	err = v.await(v.ctx, func() (bool, error) { return v.othersHave(lsn), v.failure })
	if err != nil {
		v.mu.Unlock()
		return
	}
	for _, p := range gone {
		delete(v.leaving, p.node)
		if v.joiner == p {
			v.joiner = nil
		}
		v.log.Warn("peer left the in-sync set", "peer", p.node, "members", nodesOf(v.super.Set), "generation", lsn)
	}
	v.advance()
	v.broadcast()
	v.mu.Unlock()
	v.raiseHeld(has)
}

// dropped: p leaves the in-sync set. If clients had to wait for it before, that
// lengthens its way back. v.mu is held.
func (v *Volume) dropped(p *peer) {
	slow := p.counted() && p.lag.tooSlow()
	if !setHasNode(v.super.Set, p.node) || !slow && !p.stalled {
		return
	}
	p.lag.drop(time.Now())
	if slow {
		cause := p.lag.slow.cause()
		v.log.Warn("peer is slow: "+cause, "peer", p.node, "mayReturn", p.lag.after)
		v.emit(EventSlowPeer, p.node, cause)
	}
}

// othersHave reports whether lsn is durable here and on every voter that is not
// leaving, or that is lost as well: the next shrink removes it. v.mu is held.
func (v *Volume) othersHave(lsn LSN) bool {
	have := v.durable >= lsn || v.detached != nil
	v.voters(func(p *peer, _, durable LSN) {
		if v.leaving[p.node] == nil && durable < lsn && p.counted() {
			have = false
		}
	})
	return have
}

// errLinkLost: the peer went away in the middle of something.
var errLinkLost = errors.New("the connection to the peer was lost")

// join makes a peer that has caught up a member, in replication.md's order
// (section 2, growth):
//
//  1. it receives the live stream already;
//  2. a generation record J that names it is appended, and from J on it is
//     waited for as if it were a member;
//  3. when it is durable through J and has recorded UpToDate, our superblock
//     records the larger set, and then its own and the other members' do.
//
// Losing the peer before step 3 leaves it to shrink to begin a generation
// without it.
func (v *Volume) join(l *link) error {
	v.change.Lock()
	defer v.change.Unlock()
	p := l.peer
	v.mu.Lock()
	switch {
	case v.role != Primary || !v.led || v.failure != nil || !v.mayGrow():
		v.mu.Unlock()
		return nil
	case p.link != l:
		v.mu.Unlock()
		return errLinkLost
	}
	member := Member{Node: p.node, Incarnation: l.theirs.Incarnation}
	v.joiner, v.joinLSN = p, v.end+1<<62 // not waited for before J is ordered
	v.mu.Unlock()

	var set []Member
	j, err := v.begin(func(sb *Superblock) ([]Member, error) {
		set = setWith(sb.Set, member)
		sb.SetVersion++
		v.mu.Lock()
		v.joinLSN = v.end + 1
		v.mu.Unlock()
		return set, nil
	})
	if err != nil {
		return err
	}
	kick(v.syncKick)
	if err := v.awaitJoiner(l, j); err != nil {
		kick(v.watchKick)
		return err
	}
	err = v.commitSuper(func(sb *Superblock) { sb.Set = set })
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.joiner = nil
	p.lag.join(time.Now())
	if r := l.source.resync; r != nil {
		p.resyncs++
		p.lastResync = r.progress()
		v.log.Info("resync is through", "peer", p.node, "comparedBytes", r.compared, "equalBytes", r.equal, "copiedBytes", r.ackedBytes,
			"took", time.Since(r.began).Round(time.Millisecond))
	} else if l.source.missing > 0 {
		p.catchUps++
	}
	if l.source.resync != nil {
		v.emit(EventResync, p.node, "it is through")
	}
	l.source.resync, l.source.catchingUp = nil, false
	base := v.position(j)
	l.source.confirm = true
	kick(l.kick)
	v.confirmSet()
	v.advance()
	v.judgeQuorum()
	v.mu.Unlock()
	v.log.Info("peer joined the in-sync set", "peer", p.node, "members", nodesOf(set), "generation", j)

	// It is a member: what its bitmap said is settled (replication.md 7).
	p.remaining.Store(nil)
	if v.abandoned() {
		return nil
	}
	v.tail.Lock() // what is about to leave the journal is set in it before, or not at all
	defer v.tail.Unlock()
	if err := p.bits.Reset(base); err != nil {
		v.fault(err)
		return v.failed() // nil if it goes on without its disk
	}
	v.mu.Lock()
	p.bitsThrough = max(p.bitsThrough, j)
	v.mu.Unlock()
	return nil
}

// confirmSet has the members told of a set that grew (11g). One that was not
// greeted yet is told then. v.mu is held.
func (v *Volume) confirmSet() {
	for _, m := range v.super.Set {
		if p := v.peers[m.Node]; p != nil && p.link != nil && p.link.source.greeted {
			p.link.source.confirm = true
			kick(p.link.kick)
		}
	}
}

// awaitJoiner waits until the joiner is durable through J and has said that it
// recorded so.
func (v *Volume) awaitJoiner(l *link, j LSN) error {
	limit := 4 * v.opts.PeerTimeout
	if v.opts.PeerLatencyBudget > 0 { // a member that had writes wait for so long would have to leave
		limit = min(limit, max(slowBudgets*v.opts.PeerLatencyBudget, time.Second))
	}
	ctx, cancel := context.WithTimeout(l.ctx, limit)
	defer cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.await(ctx, func() (bool, error) {
		switch {
		case v.failure != nil:
			return false, v.failure
		case l.peer.link != l:
			return false, errLinkLost
		}
		return l.source.joinReady >= j && l.peer.durable >= j && l.peer.received >= v.committed, nil
	})
	if err != nil && l.peer.link == l {
		l.peer.closeLink(CodeBusy, "it did not join in time")
		l.peer.removeAt = time.Now()
	}
	return err
}
