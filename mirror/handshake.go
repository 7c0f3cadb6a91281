package mirror

import (
	"errors"
	"fmt"
	"net"
	"slices"
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
	l.votes = l.version >= FramePrepare.since()
	v.heed(met{p.node, &l.meeting})
	settled := p.split != nil && l.verdict.Verdict != SplitBrain
	v.broadcast()
	v.mu.Unlock()
	if settled {
		p.forgetSplit()
	}
	v.log.Info("met a peer", "peer", p.node, "role", l.theirs.Role, "verdict", l.verdict.Verdict, "reason", l.verdict.Reason)
	err := l.judge()
	var r *refusal
	if errors.As(err, &r) && !r.code.passes() {
		l.untold = !l.refuse(r)
	}
	return err
}

// refuse ends a handshake in which both find the same reason to refuse each other, and
// reports whether the peer said that it has found it: if the connection breaks before,
// it may have heard too little, and would wait for us without a word of the reason.
func (l *link) refuse(r *refusal) (known bool) {
	if err := l.write(&Refuse{Code: r.code, Sentence: r.sentence}); err != nil {
		return false
	}
	l.wmu.Lock()
	l.ended = net.ErrClosed // nothing follows
	l.wmu.Unlock()
	for {
		switch t, _, err := l.next(); {
		case err != nil:
			var theirs *Refuse
			return errors.As(err, &theirs)
		case t != FrameHeartbeat:
			return false
		}
	}
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
	mine := &l.mine.Description
	if r := judgeHello(l.peer.node, mine, &l.meeting); r != nil {
		return r
	}
	if l.verdict.Verdict == SplitBrain {
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
	if r := judgeRoles(mine, &l.meeting); r != nil {
		return r
	}
	return nil
}

// heedExclusion records that this replica is excluded, or stands down.
func (l *link) heedExclusion() error {
	mine, theirs := &l.mine.Description, &l.theirs
	excluded, standsDown := judgeExclusion(mine, &l.meeting, l.loser)
	if !excluded && !standsDown {
		return nil
	}
	stale := false
	err := l.v.commitSuper(func(sb *Superblock) {
		// Since the hellos a Primary may have told us of another set. Its version may be in
		// the hello already: a generation that we received has it before we are told.
		switch stale = sb.SetVersion != mine.SetVersion || !slices.Equal(sb.Set, mine.Set); {
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

// heedGrowth records a larger set than ours that we were not told of.
func (l *link) heedGrowth() error {
	mine, theirs := &l.mine.Description, &l.theirs
	if !judgeGrowth(mine, &l.meeting, mine.Set, mine.SetVersion, mine.Excluded) {
		return nil
	}
	return l.v.commitSuper(func(sb *Superblock) {
		if judgeGrowth(mine, &l.meeting, sb.Set, sb.SetVersion, sb.Excluded) {
			sb.Set, sb.SetVersion = theirs.Set, theirs.SetVersion
		}
	})
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
			t, body, err := l.next()
			if err != nil {
				return err
			}
			switch t {
			case FrameHeartbeat:
			case FramePrepare:
				err = l.answerPrepare(body)
			case FrameVote:
				err = l.hearVote(body)
			default:
				err = l.unexpected(t)
			}
			if err != nil {
				return err
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
	v := l.v
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, a := range v.tell(leadWanted{l.peer.node, &l.meeting, time.Now()}) {
		switch a := a.(type) {
		case refusePeer:
			return &refusal{a.code, a.sentence}
		case meetAgain:
			return errAgain
		}
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
	first, diskless := v.journal.First(), v.detached != nil
	sb, half := v.super, v.halfRolledBack()
	if diskless {
		first = v.queue.first
	}
	mode := chooseMode(c, first)
	if diskless {
		if mode == ModeResync || !setHasNode(sb.Set, l.peer.node) {
			v.mu.Unlock()
			return nil, fmt.Errorf("node %q has to wait: %s", l.peer.node, noSource)
		}
	}
	v.mu.Unlock()
	if mode == ModeResync {
		v.mu.Lock()
		l.source.catchingUp = false
		v.mu.Unlock()
		if half != nil { // what the peer has is an image, what it would get is none
			return nil, fmt.Errorf("node %q has to wait for its resync: %w", l.peer.node, half)
		}
		return l.planResync()
	}
	return &Proceed{Mode: mode, Volume: sb.Volume, Epoch: sb.Epoch, Common: c.Common, From: c.Common + 1, History: sb.History}, nil
}
