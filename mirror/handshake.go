package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// meet exchanges Hellos and judges the two histories (replication.md 5).
func (l *link) meet() error {
	if err := l.exchangeHellos(); err != nil {
		return err
	}
	l.theirs = l.hello.Description
	l.verdict = Compare(l.mine.Description, l.theirs)
	v, p := l.v, l.peer
	v.mu.Lock()
	if p.link != l {
		v.mu.Unlock()
		return errAgain
	}
	l.met, p.incarnation = true, l.theirs.Incarnation
	p.fenced, p.asking, p.fenceAfter = false, false, time.Time{}
	p.problem = ""
	settled := p.split != nil && l.verdict.Verdict != SplitBrain
	v.broadcast()
	v.mu.Unlock()
	if settled {
		p.forgetSplit()
	}
	v.log.Info("met a peer", "peer", p.node, "role", l.theirs.Role, "verdict", l.verdict.Verdict, "reason", l.verdict.Reason)
	return l.judge()
}

// exchangeHellos has the acceptor speak first, for it chose the protocol version.
func (l *link) exchangeHellos() error {
	say := func() error {
		if err := l.mayTell(l.mine.Description.History); err != nil {
			return err
		}
		l.mine.Version = l.version
		return l.write(&l.mine)
	}
	if !l.dialled {
		if err := say(); err != nil {
			return err
		}
	}
	t, body, err := l.next()
	if err != nil {
		return err
	}
	if t != FrameHello {
		return l.unexpected(t)
	}
	if err := l.hello.Decode(body); err != nil {
		return err
	}
	if !l.dialled {
		return nil
	}
	if l.hello.Version < ProtocolVersionMin || l.hello.Version > l.version {
		return fmt.Errorf("%w: it chose protocol version %d of %d to %d", ErrFrame, l.hello.Version, ProtocolVersionMin, l.version)
	}
	l.version = l.hello.Version
	return say()
}

// rollbackVersion is the first protocol version in which a history says that the
// volume is, or was, being rolled back to a snapshot.
const rollbackVersion = 3

// mayTell refuses, for as long as the peer's program is older than it may be, to tell
// it a history that it cannot read. Without what it cannot read the peer would take
// for a whole volume what is half rolled back.
func (l *link) mayTell(h History) error {
	if l.version >= rollbackVersion || h.rollbacks() == 0 {
		return nil
	}
	sentence := fmt.Sprintf("volume %q was rolled back to a snapshot, of which protocol version %d cannot tell: upgrade node %q", l.v.opts.Volume, l.version, l.peer.node)
	l.end(&Refuse{Code: CodeVersion, Sentence: sentence})
	return errors.New(sentence)
}

// judge refuses what cannot go together.
func (l *link) judge() error {
	mine, c := &l.mine.Description, &l.verdict
	if l.theirs.Node != l.peer.node {
		return &refusal{CodeUnrelated, fmt.Sprintf("node %q calls itself %q", l.peer.node, l.theirs.Node)}
	}
	if mine.Protocol != l.theirs.Protocol || mine.WriteCache != l.theirs.WriteCache {
		if !mine.Volume.IsZero() && !l.theirs.Volume.IsZero() {
			return &refusal{CodeUnrelated, "protocol or write cache differ between the two replicas"}
		}
	}
	leads := mine.Role == Primary || l.theirs.Role == Primary
	// Two Secondaries of which neither completes the other wait for a third that
	// completes both (11i).
	if c.Verdict == Unrelated || c.Verdict == Damaged || c.Verdict == NoSource && leads {
		return &refusal{CodeUnrelated, c.Reason}
	}
	if c.Verdict == SplitBrain {
		if err := l.meetSplit(); err != nil {
			return err
		}
	}
	if err := l.heedExclusion(); err != nil {
		return err
	}
	if err := l.heedGrowth(); err != nil {
		return err
	}
	switch {
	case mine.Role == Primary && l.theirs.Role == Primary:
		return &refusal{CodeRole, fmt.Sprintf("both nodes are Primary: %s; demote one", c.Reason)}
	case mine.Role == Primary && !c.Verdict.leads():
		return &refusal{CodeRole, fmt.Sprintf("this Primary would have to give way: %s; demote it and promote node %q", c.Reason, l.peer.node)}
	case l.theirs.Role == Primary && !c.Verdict.Mirror().leads():
		return &refusal{CodeRole, fmt.Sprintf("the Primary would have to give way: %s", c.Reason)}
	}
	return nil
}

// leads reports whether a Primary that finds this verdict can bring its peer up
// to date.
func (v Verdict) leads() bool {
	return v == InSync || v == PeerBehind || v == PeerTruncates || v == PeerIsNew
}

// heedExclusion: a replica that hears of a higher set version that excludes it
// becomes Outdated, durably, before anything else (10c). Where the histories
// parted, versions were counted apart and tell nothing: the side that gives way
// is excluded by the other.
//
// A replica that was the last member, or one of them, and finds that an excluded
// peer has more of its history, has lost its memory: it stands down, so that the
// peer may lead (replication.md 10). The peer hears it at the next handshake.
func (l *link) heedExclusion() error {
	mine, theirs, c := &l.mine.Description, &l.theirs, &l.verdict
	if mine.Role == Primary || len(mine.History) == 0 {
		return nil
	}
	excluded := theirs.SetVersion > mine.SetVersion && setHasNode(theirs.Set, theirs.Node) && !setHasNode(theirs.Set, mine.Node)
	if loser := cmp.Or(l.loser, c.GivesWay); loser != Neither {
		excluded = loser == Ours
	}
	leads := setHasNode(mine.Set, mine.Node) && !setHasNode(mine.Set, theirs.Node) && !mine.Excluded
	standsDown := leads && c.Verdict == WeAreBehind && theirs.Role == Secondary && !c.NeedsResync
	if !excluded && !standsDown {
		return nil
	}
	stale := false
	err := l.v.commitSuper(func(sb *Superblock) {
		// Since the hellos a Primary may have told us of another set.
		switch stale = sb.SetVersion != mine.SetVersion; {
		case stale:
		case excluded:
			sb.exclude(theirs.Set, theirs.SetVersion)
		default:
			sb.exclude(sb.Set, sb.SetVersion)
		}
	})
	if stale || !excluded {
		return errors.Join(err, errAgain)
	}
	return err
}

// heedGrowth: a member that hears of a set which is no older than its own and
// holds more members, itself among them, was not told when they joined. It records
// that set: none of them is excluded by its own superblock any more (11g).
func (l *link) heedGrowth() error {
	mine, theirs := &l.mine.Description, &l.theirs
	parted := l.verdict.Verdict != InSync && l.verdict.Verdict != PeerBehind && l.verdict.Verdict != WeAreBehind
	if mine.Role == Primary || theirs.Excluded || parted || !setHasNode(theirs.Set, theirs.Node) {
		return nil
	}
	self := Member{Node: mine.Node, Incarnation: mine.Incarnation}
	grown := func(set []Member, version uint64) bool {
		return theirs.SetVersion >= version && len(theirs.Set) > len(set) && setHas(set, self) && subset(set, theirs.Set)
	}
	if mine.Excluded || !grown(mine.Set, mine.SetVersion) {
		return nil
	}
	return l.v.commitSuper(func(sb *Superblock) {
		if !sb.Excluded && grown(sb.Set, sb.SetVersion) {
			sb.Set, sb.SetVersion = theirs.Set, theirs.SetVersion
		}
	})
}

// exclude: the set is in force, and this replica may not lead by itself.
func (s *Superblock) exclude(set []Member, version uint64) {
	s.Excluded, s.Set, s.SetVersion = true, set, max(s.SetVersion, version)
	if s.Disk == UpToDate || s.Disk == Consistent {
		s.Disk = Outdated
	}
}

// idle keeps two Secondaries connected: each knows how the other stands, and no
// data flows until one is promoted, which begins a new session.
func (l *link) idle() error {
	l.v.mu.Lock()
	l.ready = true
	l.v.broadcast()
	l.v.mu.Unlock()
	return l.together(l.heartbeats, func() error {
		for {
			t, _, err := l.next()
			if err != nil {
				return err
			}
			if t != FrameHeartbeat {
				return l.unexpected(t)
			}
		}
	})
}

// heartbeats says that we live, often enough for the peer's time limit.
func (l *link) heartbeats() error {
	tick := time.NewTicker(l.v.opts.PeerTimeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := l.write(l.heartbeat()); err != nil {
				return err
			}
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

func (l *link) heartbeat() *Heartbeat {
	v := l.v
	v.mu.Lock()
	defer v.mu.Unlock()
	return &Heartbeat{Stable: v.stable, Committed: v.committed, Epoch: v.super.Epoch, End: v.end, Sent: time.Now().UnixNano()}
}

// lead is the handshake of a Primary with a Secondary, and then the session.
func (l *link) lead() error {
	v, p := l.v, l.peer
	if err := l.checkStanding(); err != nil {
		return err
	}
	if err := l.takeRegions(); err != nil {
		return err
	}
	proceed, err := l.plan()
	if err != nil {
		return err
	}
	if err := l.mayTell(proceed.History); err != nil {
		return err
	}
	if err := l.write(proceed); err != nil {
		return err
	}
	body, err := l.awaitReady()
	if err != nil {
		return err
	}
	var ready Ready
	if err := ready.Decode(body); err != nil {
		return err
	}
	if ready.End != proceed.From-1 || ready.Durable > ready.End {
		return fmt.Errorf("%w: the peer ends at LSN %d, durable %d, and was asked to end at %d", ErrFrame, ready.End, ready.Durable, proceed.From-1)
	}
	v.mu.Lock()
	if p.link != l {
		v.mu.Unlock()
		return errAgain
	}
	l.source.begin(proceed, l.verdict.Ours.Records, v.end)
	p.lag.begin(time.Now(), v.end)
	p.stalled = false
	if l.source.resync != nil {
		v.emit(EventResync, p.node, "it begins")
	}
	p.received, p.durable = ready.End, ready.Durable
	l.ready = true
	l.epoch = proceed.Epoch
	v.advance()
	if v.suspended {
		v.heed(quorumLook{time.Now()})
	}
	v.broadcast()
	v.mu.Unlock()
	if l.loser != Neither {
		l.closeSplit()
	}
	v.log.Info("session begins", "peer", p.node, "mode", proceed.Mode, "from", proceed.From, "missing", l.verdict.Ours.Records)
	return l.together(l.sendLoop, l.ackLoop, l.joinLoop, l.feedLoop)
}

// checkStanding settles what has to be settled before a session can begin.
func (l *link) checkStanding() error {
	v, p := l.v, l.peer
	v.mu.Lock()
	defer v.mu.Unlock()
	sb := &v.super
	member := Member{Node: p.node, Incarnation: l.theirs.Incarnation}
	switch {
	case setHasNode(sb.Set, p.node) && !setHas(sb.Set, member) && v.mayLeave(p.peerState):
		// It lost its memory: its old self is removed first (2c). If the set cannot
		// do without, that holds everything back, and is replaced when the new one
		// joins (11f).
		p.removeAt = time.Now()
		kick(v.watchKick)
		return errAgain
	case l.theirs.Epoch > sb.Epoch:
		seen := l.theirs.Epoch
		v.wg.Go(func() { v.takeTurn(epochTurn{seen, time.Now()}) })
		return errAgain
	case l.theirs.Resync == nil && p.claim.incarnation == l.theirs.Incarnation && l.theirs.End < p.claim.durable:
		return &refusal{CodeUnrelated, fmt.Sprintf("node %q acknowledged everything up to LSN %d as durable and now ends at LSN %d: its disk went back in time; delete its replica and create it again (20b)",
			p.node, p.claim.durable, l.theirs.End)}
	}
	return nil
}

// plan says how the peer is brought up to date: from the journal if it reaches
// back, else by its bitmap.
func (l *link) plan() (*Proceed, error) {
	v, c := l.v, &l.verdict
	v.mu.Lock()
	// From here on the journal keeps what the peer lacks.
	l.source.catchingUp, l.source.next = true, c.Common+1
	first := v.journal.First()
	sb, half := v.super, v.halfRolledBack()
	if v.detached != nil {
		first = v.queue.first
		if c.NeedsResync || first > c.Common+1 || !setHasNode(sb.Set, l.peer.node) {
			v.mu.Unlock()
			return nil, fmt.Errorf("node %q has to wait: %s", l.peer.node, noSource)
		}
	}
	v.mu.Unlock()
	if c.NeedsResync || first > c.Common+1 {
		v.mu.Lock()
		l.source.catchingUp = false
		v.mu.Unlock()
		if half != nil { // what the peer has is an image, what it would get is none
			return nil, fmt.Errorf("node %q has to wait for its resync: %w", l.peer.node, half)
		}
		return l.planResync()
	}
	mode := ModeCatchUp
	if c.Ours.Records == 0 {
		mode = ModeEstablished
	}
	return &Proceed{Mode: mode, Volume: sb.Volume, Epoch: sb.Epoch, Common: c.Common, From: c.Common + 1, History: sb.History}, nil
}
