package mirror

import (
	"context"
	"fmt"
	"time"
)

// Volume drives its core (core.go): it tells it what happened, and does what follows.

// tell gives the core an event, and does at once what follows and needs no waiting.
// What takes time is returned, in its order. v.mu is held.
func (v *Volume) tell(e event) (slow []action) {
	for _, a := range v.step(e) {
		if !v.doNow(a) {
			slow = append(slow, a)
		}
	}
	return slow
}

// heed is tell of an event from which nothing follows that takes time. v.mu is held.
func (v *Volume) heed(e event) {
	if slow := v.tell(e); len(slow) > 0 {
		panic(fmt.Sprintf("mirror: nobody does %T, which follows from %T", slow[0], e))
	}
}

// doNow does what can be done under v.mu, and reports whether a is that. v.mu is held.
func (v *Volume) doNow(a action) bool {
	switch a := a.(type) {
	case closeLink:
		v.peers[a.node].closeLink(a.code, a.sentence)
	case fencedNow:
		v.log.Info("a lost peer is fenced", "peer", a.node)
	case notFenced:
		v.peers[a.node].noteLocked(fmt.Sprintf("node %q is not fenced: %v", a.node, a.err))
	case slowPeer:
		v.log.Warn("peer is slow: "+a.cause, "peer", a.node, "mayReturn", a.after)
		v.emit(EventSlowPeer, a.node, a.cause)
	case left:
		for _, node := range a.nodes {
			v.log.Warn("peer left the in-sync set", "peer", node, "members", nodesOf(a.set), "generation", a.lsn)
		}
		v.broadcast()
	case joined:
		v.hasJoined(a)
	case advance:
		v.advance()
		v.broadcast()
	case lookAgain:
		kick(v.watchKick)
	case holdBack:
		v.log.Warn("writes are held back: too few replicas are in sync", "minInSync", v.opts.MinInSync, "onNoQuorum", v.opts.OnNoQuorum, "state", v.noQuorum())
		v.broadcast()
	case letGo:
		v.log.Info("enough replicas are in sync again", "members", nodesOf(v.super.Set))
		v.broadcast()
	case refuseWaiting:
		v.refuseWrites()
	case changeFailed:
		v.log.Error("could not change the in-sync set; what waits for that waits: "+a.what, "error", a.err)
	case superseded:
		v.log.Error("another node changed the agreement on this volume: this one acknowledges nothing any more that a member lacks",
			"primary", a.by.Primary, "epoch", a.by.Epoch, "members", nodesOf(a.by.Set))
	case connectAgain:
		kick(v.peers[a.node].wake)
	case wantEpoch:
		v.wg.Go(func() { v.takeTurn(epochTurn{a.seen, time.Now()}) })
	case forced:
		v.log.Warn("promotion is forced", "unknown", a.unknown)
	case newTerm:
		v.unheld, v.committed, v.syncWant = 0, v.applied, 0
		v.pending.reset()
	case promoted:
		v.genNotes[v.super.History.At(a.lsn).ID] = genNote{began: time.Now(), forced: &a.forced}
		v.unheld = a.lsn
		v.log.Info("promoted; serves once its generation is durable on every member", "generation", a.lsn, "members", nodesOf(a.set))
	case demoted:
		v.log.Info("demoted", "end", v.end)
		kick(v.syncKick)
		v.broadcast()
	case detachNow:
		v.detachLocked(a.err)
	case detachedNow:
		v.log.Warn("goes on without a disk of its own", "members", nodesOf(a.set), "generation", a.lsn)
	case wantDetach:
		v.wg.Go(func() { v.takeTurn(detachTurn{}) })
	case fail:
		if a.sentence != "" {
			v.log.Error(a.sentence, "error", a.err)
		}
		v.failLocked(a.err, a.readFrom)
	default:
		return false
	}
	return true
}

// A turn is one change of the in-sync set, from its first event to its end. It is
// held by one goroutine, and with it v.change.
type turn struct {
	v *Volume
	// has is what the members had durably when it began.
	has map[*peer]LSN
}

// takeTurn carries a change through, once no other is under way.
func (v *Volume) takeTurn(e event) {
	v.change.Lock()
	defer v.change.Unlock()
	v.carryThrough(e)
}

// carryThrough is takeTurn with v.change held.
func (v *Volume) carryThrough(e event) {
	v.mu.Lock()
	t := turn{v: v, has: v.memberHoldings()}
	v.mu.Unlock()
	v.pursue(e, t.do)
}

// pursue tells an event, does what follows, and tells how that ended, until nothing
// follows any more. No lock is held but v.change, if do is a turn's.
func (v *Volume) pursue(e event, do func(action) event) {
	for events := []event{e}; len(events) > 0; events = events[1:] {
		v.mu.Lock()
		slow := v.tell(events[0])
		v.mu.Unlock()
		for _, a := range slow {
			if next := do(a); next != nil {
				events = append(events, next)
			}
		}
	}
}

// watchLoop, on a Primary, has the members that are gone removed from the in-sync set.
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
		v.pursue(watch{time.Now()}, v.doOutsideTurn)
	}
}

// doOutsideTurn does what takes time and is no part of a change.
func (v *Volume) doOutsideTurn(a action) event {
	switch a := a.(type) {
	case askFence:
		return v.askFence(a.node)
	case wantTurn:
		v.takeTurn(shrinkTurn{time.Now()})
		return nil
	}
	panic(fmt.Sprintf("mirror: %T outside of a turn", a))
}

// do does what takes time, and returns how it ended. No lock is held but v.change.
func (t *turn) do(a action) event {
	v := t.v
	switch a := a.(type) {
	case syncJournal:
		return synced{v.syncNow()}
	case propose:
		return v.swap(a)
	case readAgreement:
		return v.readAgreement()
	case beginGeneration:
		lsn, err := v.begin(func(sb *Superblock) ([]Member, error) {
			v.mu.Lock()
			v.heed(placed{v.end + 1})
			v.mu.Unlock()
			if sb.Volume.IsZero() { // it gets its name with its first generation
				id, err := NewID(nil)
				if err != nil {
					return nil, err
				}
				sb.Volume = id
			}
			return a.edit(sb), nil
		})
		kick(v.syncKick)
		return begun{lsn, err}
	case takeRole:
		return rolePrepared{v.takeRole()}
	case await:
		return v.awaitInForce(a.limit)
	case recordSet:
		err := v.commitSuper(func(sb *Superblock) { sb.Set = a.set })
		return setRecorded{err, time.Now()}
	case raiseBases:
		v.raiseHeld(t.has)
		return nil
	case askVote:
		v.askVote(a)
		return nil
	case settleBits:
		v.settleBits(v.peers[a.node], a.lsn)
		return nil
	}
	panic(fmt.Sprintf("mirror: %T in a turn", a))
}

// edit is what the superblock becomes with the generation, and returns its set.
func (a beginGeneration) edit(sb *Superblock) []Member {
	sb.SetVersion = max(sb.SetVersion+1, a.version)
	if a.promotion {
		sb.Epoch++
		sb.Excluded, sb.Disk = false, UpToDate
		sb.Snapshots = settledSnapshots(sb.Snapshots) // it gives nothing up by now
	}
	if a.suspect {
		sb.LossCounter++
	}
	sb.Epoch = max(sb.Epoch, a.epoch)
	if a.record {
		sb.Set = a.set
	}
	return a.set
}

// awaitInForce waits for what the change under way waits for.
func (v *Volume) awaitInForce(limit time.Duration) event {
	ctx := v.ctx
	if v.joining != nil {
		ctx = v.joining.ctx
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.await(ctx, v.inForce); err != nil {
		return gaveUp{err}
	}
	return inForce{}
}

// Attempts of ours of which the outcome is unknown, at most: of older ones the
// outcome is that another node seems to have made them, which is the safe side.
const maxAttempts = 64

// swap has the Coordinator record a change.
func (v *Volume) swap(a propose) event {
	ctx, cancel := context.WithTimeout(v.ctx, v.opts.PeerTimeout)
	defer cancel()
	next := a.next
	var err error
	if next.Attempt, err = NewID(nil); err != nil {
		return proposed{err: err}
	}
	if len(v.attempts) == maxAttempts {
		v.attempts = v.attempts[1:]
	}
	v.attempts = append(v.attempts, next.Attempt)
	revision, err := v.opts.Coordinator.Swap(ctx, v.opts.Volume, a.base, next)
	if err == nil { // what was based on older revisions can never arrive any more
		v.attempts = nil
	}
	return proposed{revision, err}
}

// readAgreement asks the Coordinator what is in force.
func (v *Volume) readAgreement() event {
	ctx, cancel := context.WithTimeout(v.ctx, v.opts.PeerTimeout)
	defer cancel()
	is, revision, err := v.opts.Coordinator.Read(ctx, v.opts.Volume)
	ours := false
	for _, id := range v.attempts {
		ours = ours || is.Attempt == id
	}
	return agreementRead{is, revision, ours, err}
}

// join has a peer that has caught up made a member.
func (v *Volume) join(l *link) error {
	v.change.Lock()
	defer v.change.Unlock()
	v.joining = l
	defer func() { v.joining = nil }()
	v.carryThrough(joinTurn{l.peer.node, &l.meeting, time.Now()})
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.core.change.err; err != nil {
		return err
	}
	return v.failure
}

// hasJoined: the peer is a member, and the others are told so. v.mu is held.
func (v *Volume) hasJoined(a joined) {
	p, l := v.peers[a.node], v.joining
	s := &l.source
	if r := s.resync; r != nil {
		p.resyncs++
		p.lastResync = r.progress()
		v.log.Info("resync is through", "peer", p.node, "comparedBytes", r.compared, "equalBytes", r.equal, "copiedBytes", r.ackedBytes,
			"took", time.Since(r.began).Round(time.Millisecond))
		v.emit(EventResync, p.node, "it is through")
	} else if s.missing > 0 {
		p.catchUps++
	}
	s.resync, s.catchingUp, s.confirm = nil, false, true
	kick(l.kick)
	v.confirmSet()
	v.log.Info("peer joined the in-sync set", "peer", p.node, "members", nodesOf(a.set), "generation", a.lsn)
}
