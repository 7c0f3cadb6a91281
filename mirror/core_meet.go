package mirror

import (
	"cmp"
	"fmt"
	"time"
)

// Two replicas meet: what each makes of the other (replication.md 5 and 10), and what
// follows when they lose sight of each other. What Compare found out of the two
// histories is in the meeting.

// A refusal ends a connection for good: StandAlone until an operator connects again.
type refusal struct {
	code     Code
	sentence string
}

func (r *refusal) Error() string { return r.sentence }

// met: the hellos were exchanged.
func (c *core) met(e met) {
	p := c.other(e.node)
	e.with.met, p.incarnation = true, e.with.theirs.Incarnation
	p.fenced, p.asking, p.fenceAfter = false, false, time.Time{}
	p.problem = ""
	p.want, p.untold = p.want || p.untold, false
}

// judgeHello refuses what cannot go together, whatever the roles, and nil if nothing
// is in the way. mine is what we said of ourselves.
func judgeHello(node string, mine *Description, m *meeting) *refusal {
	theirs, c := &m.theirs, &m.verdict
	if theirs.Node != node {
		return &refusal{CodeUnrelated, fmt.Sprintf("node %q calls itself %q", node, theirs.Node)}
	}
	if mine.Protocol != theirs.Protocol || mine.WriteCache != theirs.WriteCache {
		if !mine.Volume.IsZero() && !theirs.Volume.IsZero() {
			return &refusal{CodeUnrelated, "protocol or write cache differ between the two replicas"}
		}
	}
	leads := mine.Role == Primary || theirs.Role == Primary
	// Two Secondaries of which neither completes the other wait for a third that
	// completes both (11i).
	if c.Verdict == Unrelated || c.Verdict == Damaged || c.Verdict == NoSource && leads {
		return &refusal{CodeUnrelated, c.Reason}
	}
	return nil
}

// judgeRoles refuses two Primaries, and a Primary that would have to give way.
func judgeRoles(mine *Description, m *meeting) *refusal {
	theirs, c := &m.theirs, &m.verdict
	switch {
	case mine.Role == Primary && theirs.Role == Primary:
		return &refusal{CodeRole, fmt.Sprintf("both nodes are Primary: %s; demote one", c.Reason)}
	case mine.Role == Primary && !c.Verdict.leads():
		return &refusal{CodeRole, fmt.Sprintf("this Primary would have to give way: %s; demote it and promote node %q", c.Reason, theirs.Node)}
	case theirs.Role == Primary && !c.Verdict.Mirror().leads():
		return &refusal{CodeRole, fmt.Sprintf("the Primary would have to give way: %s", c.Reason)}
	}
	return nil
}

// leads reports whether a Primary that finds this verdict can bring its peer up
// to date.
func (v Verdict) leads() bool {
	return v == InSync || v == PeerBehind || v == PeerTruncates || v == PeerIsNew
}

// judgeExclusion: a replica that hears of a higher set version that excludes it
// becomes Outdated, durably, before anything else (10c). Where the histories
// parted, versions were counted apart and tell nothing: the side that gives way, loser,
// is excluded by the other.
//
// A replica that was the last member, or one of them, and finds that an excluded
// peer has more of its history, has lost its memory: it stands down, so that the
// peer may lead (replication.md 10). The peer hears it at the next handshake.
func judgeExclusion(mine *Description, m *meeting, loser Side) (excluded, standsDown bool) {
	theirs, c := &m.theirs, &m.verdict
	if mine.Role == Primary || len(mine.History) == 0 {
		return false, false
	}
	excluded = theirs.SetVersion > mine.SetVersion && setHasNode(theirs.Set, theirs.Node) && !setHasNode(theirs.Set, mine.Node)
	if loser := cmp.Or(loser, c.GivesWay); loser != Neither {
		excluded = loser == Ours
	}
	leads := setHasNode(mine.Set, mine.Node) && !setHasNode(mine.Set, theirs.Node) && !mine.Excluded
	standsDown = leads && c.Verdict == WeAreBehind && theirs.Role == Secondary && !c.NeedsResync
	return excluded, standsDown && !excluded
}

// judgeGrowth: a member that hears of a set which is no older than its own and
// holds more members, itself among them, was not told when they joined. It records
// that set: none of them is excluded by its own superblock any more (11g). set, version
// and excluded are those of its superblock.
func judgeGrowth(mine *Description, m *meeting, set []Member, version uint64, excluded bool) bool {
	theirs := &m.theirs
	parted := m.verdict.Verdict != InSync && m.verdict.Verdict != PeerBehind && m.verdict.Verdict != WeAreBehind
	if mine.Role == Primary || theirs.Excluded || parted || !setHasNode(theirs.Set, theirs.Node) || excluded {
		return false
	}
	self := Member{Node: mine.Node, Incarnation: mine.Incarnation}
	return theirs.SetVersion >= version && len(theirs.Set) > len(set) && setHas(set, self) && subset(set, theirs.Set)
}

// lead: a Primary may begin a session with the peer, if nothing has to be settled
// first.
func (c *core) lead(e leadWanted) {
	p, theirs := c.other(e.node), &e.with.theirs
	member := Member{Node: p.node, Incarnation: theirs.Incarnation}
	switch {
	case setHasNode(c.super.Set, p.node) && !setHas(c.super.Set, member) && c.mayLeave(p):
		// It lost its memory: its old self is removed first (2c). If the set cannot
		// do without, that holds everything back, and is replaced when the new one
		// joins (11f).
		p.removeAt = e.now
		c.do(lookAgain{})
		c.do(meetAgain{})
	case theirs.Epoch > c.super.Epoch:
		c.do(wantEpoch{theirs.Epoch})
		c.do(meetAgain{})
	case theirs.Resync == nil && p.claim.incarnation == theirs.Incarnation && theirs.End < p.claim.durable:
		c.do(refusePeer{CodeUnrelated, fmt.Sprintf("node %q acknowledged everything up to LSN %d as durable and now ends at LSN %d: its disk went back in time; delete its replica and create it again (20b)",
			p.node, p.claim.durable, theirs.End)})
	}
}

// judgeProceed is what a Secondary says to what a Primary decided: it obeys only what
// its own judgement of the two histories has too, and no epoch older than it has seen.
func judgeProceed(seen uint64, m *meeting, d *Proceed) error {
	c := &m.verdict
	switch {
	case d.Epoch < seen:
		return &refusal{CodeOldEpoch, fmt.Sprintf("node %q leads in epoch %d, and epoch %d has been seen here", m.theirs.Node, d.Epoch, seen)}
	case d.Volume != m.theirs.Volume || d.Volume.IsZero():
		return fmt.Errorf("%w: proceeds with volume id %v, and said hello with %v", ErrFrame, d.Volume, m.theirs.Volume)
	case d.Common != c.Common:
		return fmt.Errorf("%w: the Primary's last common record is LSN %d, ours %d", ErrFrame, d.Common, c.Common)
	case d.Mode != ModeResync && (d.From != d.Common+1 || c.NeedsResync):
		return fmt.Errorf("%w: %v from LSN %d, and the last common record is LSN %d", ErrFrame, d.Mode, d.From, d.Common)
	}
	return nil
}

// chooseMode says how a peer is brought up to date: from the journal if that, which
// begins at first, reaches back, else by its bitmap.
func chooseMode(c *Comparison, first LSN) Mode {
	switch {
	case c.NeedsResync || first > c.Common+1:
		return ModeResync
	case c.Ours.Records == 0:
		return ModeEstablished
	}
	return ModeCatchUp
}

// exclude: the set is in force, and this replica may not lead by itself.
func (s *Superblock) exclude(set []Member, version uint64) {
	s.Excluded, s.Set, s.SetVersion = true, set, max(s.SetVersion, version)
	if s.Disk == UpToDate || s.Disk == Consistent {
		s.Disk = Outdated
	}
}

// obey is what a Secondary records of a Primary that it follows from now on.
func (s *Superblock) obey(epoch uint64, theirs *Description) {
	s.Epoch = max(s.Epoch, epoch)
	if !setHas(theirs.Set, Member{Node: s.Node, Incarnation: s.Incarnation}) {
		// Whatever set we have recorded, and were perhaps the last member of,
		// the Primary goes on without us until we join (10a, 10c).
		s.exclude(theirs.Set, theirs.SetVersion)
	}
	if s.Volume.IsZero() {
		s.Volume, s.Protocol, s.WriteCache = theirs.Volume, theirs.Protocol, theirs.WriteCache
	}
}

// hear is what a Secondary records of a generation that begins, beside its place in the
// history: a smaller set counts as soon as it is known, a larger one when it is told.
func (s *Superblock) hear(gen *Generation) {
	s.Epoch = max(s.Epoch, gen.Epoch)
	s.SetVersion = max(s.SetVersion, gen.SetVersion)
	if subset(gen.Set, s.Set) {
		s.Set = gen.Set
	}
}

// told is what it records of the set that its Primary says that it recorded.
func (s *Superblock) told(set []Member, version uint64) {
	s.SetVersion = max(s.SetVersion, version)
	s.Set = set
	s.Excluded = !setHas(set, Member{Node: s.Node, Incarnation: s.Incarnation})
	if !s.Excluded && s.Resync == nil {
		s.Disk = UpToDate
	}
}

// standAlone: p is connected with no more, until an operator says so.
func (p *peerState) standAlone() { p.want, p.refused, p.untold = false, false, false }

// linkLost: a connection is over.
func (c *core) linkLost(e linkLost) {
	p, m := c.other(e.node), e.with
	current := p.with == m // else it was ended here, and what it found is looked at anew
	if current {
		p.with = nil
		switch {
		case c.detached != nil && !m.ready: // its time runs already
		case e.again, c.detached != nil: // nobody can do without the member of a diskless Primary
			p.removeAt = e.now.Add(c.rules.peerTimeout)
		default:
			p.removeAt = e.now
		}
	}
	p.stalled = p.stalled || e.stalled
	asked := !p.want // by an operator, or by an earlier refusal
	if e.final && current {
		p.want, p.untold = false, e.untold
	}
	p.refused = p.refused || !p.want && !asked && m.role == Secondary && (!m.met || m.theirs.Role == Secondary)
	if m.ready && m.theirs.Role == Primary {
		c.meetOthersAgain()
	}
	c.do(lookAgain{})
	if m.met && !e.busy && c.role == Secondary && c.super.Disk == UpToDate {
		c.do(cutOff{})
	}
}

// meetOthersAgain begins the handshakes with other Secondaries anew, once a Primary is
// lost sight of: what was found out of them before it brought everybody up to date,
// a refusal as well, says nothing any more (11h, 11j).
func (c *core) meetOthersAgain() {
	for _, p := range c.others {
		if p.refused {
			p.want, p.refused = true, false
			c.do(connectAgain{p.node})
		}
		if m := p.with; m != nil && m.met && m.role == Secondary && m.theirs.Role == Secondary {
			c.part(p, CodeBusy, "the Primary is gone: the handshake begins again")
		}
	}
}

// isCutOff: whether others went on is unknown from here (10a), since the connection to p
// ended. What came after its end knows better: a promotion, or the next connection once
// it is through the handshake; nor is it so while the Primary is there, and another
// Secondary was lost.
func (c *core) isCutOff(p *peerState) bool {
	if c.role == Primary || p.with != nil && p.with.ready {
		return false
	}
	for _, o := range c.others {
		if o.with != nil && o.with.ready && o.with.theirs.Role == Primary {
			return false
		}
	}
	return true
}

// subset reports whether every member of a is one of b.
func subset(a, b []Member) bool {
	for _, m := range a {
		if !setHas(b, m) {
			return false
		}
	}
	return true
}
