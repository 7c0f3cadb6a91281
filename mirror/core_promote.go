package mirror

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Who may lead, and the way into the role and out of it (replication.md 2 and 10).

// notBegun stands for the LSN of a generation whose record has none yet.
const notBegun = math.MaxUint64

// judgePromotion returns what speaks against a promotion here, nil if nothing does.
// canRollBack: the replica is in the middle of a resync and can be taken back.
func (c *core) judgePromotion(force, canRollBack bool) *UnsafePromotionError {
	never := &UnsafePromotionError{Volume: c.rules.volume, Hopeless: true}
	unsafe := &UnsafePromotionError{Volume: c.rules.volume}
	if c.failure != nil {
		never.Unknown = append(never.Unknown, c.failure.Error())
	}
	if c.super.Disk == Inconsistent {
		why := "its data is Inconsistent: " + c.super.Resync.String()
		if canRollBack {
			why += fmt.Sprintf("; 'lockstep rollback %s' takes it back to what it was before", c.rules.volume)
		}
		never.Unknown = append(never.Unknown, why)
	}
	if (c.super.Disk == Outdated || c.super.Excluded) && !c.supersedes() {
		unsafe.Unknown = append(unsafe.Unknown, "its data is Outdated: others are known to have gone on without it")
	}
	for _, p := range c.others {
		s, hopeless := c.unknown(p)
		switch {
		case s == "" && p.with != nil && p.with.votes && !p.with.ready && !c.excludes(p):
			unsafe.Unknown = append(unsafe.Unknown, fmt.Sprintf("the handshake with node %q is not through", p.node))
		case s == "":
		case hopeless:
			never.Unknown = append(never.Unknown, s)
		default:
			unsafe.Unknown = append(unsafe.Unknown, s)
		}
	}
	switch {
	case len(never.Unknown) > 0:
		return never
	case len(unsafe.Unknown) > 0 && !force:
		return unsafe
	}
	return nil
}

// supersedes reports whether this replica may lead although it was excluded: the
// members of the set that excluded it are all here, Secondary, with that set or a
// newer one in their superblocks, and each has stood down because it lost records
// that this replica has; nobody else has more either. So all that they flushed is
// here, and of what they had only in memory as much as anybody has
// (replication.md 10).
func (c *core) supersedes() bool {
	sb := &c.super
	for _, p := range c.others {
		m := p.with
		if m == nil || !m.met || m.theirs.Role == Primary || !m.theirs.Excluded || m.theirs.Resync != nil ||
			m.verdict.Verdict != PeerBehind && m.verdict.Verdict != InSync {
			return false
		}
	}
	for _, m := range sb.Set {
		p := c.other(m.Node)
		if p == nil || p.with.theirs.SetVersion < sb.SetVersion || !setHasNode(p.with.theirs.Set, m.Node) {
			return false
		}
	}
	return len(sb.Set) > 0
}

// unknown says what of this peer speaks against a promotion here.
func (c *core) unknown(p *peerState) (sentence string, hopeless bool) {
	if m := p.with; m != nil && m.met {
		switch {
		case m.promised:
			return fmt.Sprintf("node %q is being promoted; should it be dead, its connection ends within %v", p.node, c.rules.peerTimeout), true
		case m.theirs.Role == Primary:
			return fmt.Sprintf("node %q is Primary: demote it first; should it be dead, its connection ends within %v", p.node, c.rules.peerTimeout), true
		case m.verdict.Verdict == InSync, m.verdict.Verdict == PeerBehind,
			m.verdict.Verdict == PeerTruncates, m.verdict.Verdict == PeerIsNew:
			return "", false
		case m.verdict.Verdict == WeAreNew:
			return fmt.Sprintf("node %q has the volume's data and this replica is empty: promote it there", p.node), true
		case m.verdict.Verdict == WeAreBehind, m.verdict.Verdict == WeTruncate:
			return fmt.Sprintf("node %q has %d records that this one lacks: promote it there", p.node, m.verdict.Theirs.Records), false
		}
		return fmt.Sprintf("node %q: %s", p.node, m.verdict.Reason), false
	}
	if p.split != nil {
		return fmt.Sprintf("node %q: %s", p.node, p.split.result.Reason), false
	}
	if !p.want {
		return fmt.Sprintf("node %q is StandAlone and may have gone on alone: run 'lockstep connect %s %s' (%s)", p.node, c.rules.volume, p.node, orNothing(p.problem)), false
	}
	if len(c.super.History) == 0 {
		return fmt.Sprintf("node %q is not connected, and this replica is empty: forced, it begins as an empty volume of its own, and what %q may hold cannot be joined with it again", p.node, p.node), false
	}
	if !c.excludes(p) {
		return fmt.Sprintf("node %q is not connected: it may have gone on alone", p.node), false
	}
	return "", false
}

func orNothing(problem string) string {
	if problem == "" {
		return "nothing was reported"
	}
	return problem
}

// excludes: this replica's own superblock says that p went on with nothing.
func (c *core) excludes(p *peerState) bool {
	return !c.super.Excluded && len(c.super.Set) > 0 && !setHasNode(c.super.Set, p.node)
}

// absent lists whom a forced promotion passes over: the handler is asked for each.
func (c *core) absent() (list []*peerState) {
	for _, p := range c.others {
		if (p.with == nil || !p.with.met) && !c.excludes(p) && !p.fenced {
			list = append(list, p)
		}
	}
	return list
}

// setForPromotion is the in-sync set of the generation that a promotion begins:
// ourselves and those recorded members that are here, in the incarnation that
// is recorded, with nothing that we lack.
func (c *core) setForPromotion() []Member {
	set := []Member{c.self()}
	for _, m := range c.super.Set {
		p := c.other(m.Node)
		if p == nil || p.with == nil || !p.with.met || p.with.theirs.Incarnation != m.Incarnation || p.with.theirs.Resync != nil {
			continue
		}
		if sentence, _ := c.unknown(p); sentence == "" && !c.super.Excluded {
			set = setWith(set, m)
		}
	}
	return set
}

// promote begins a promotion: what is known is judged, the peers relied on give their
// word, the Coordinator is asked who led so far, the role is taken, which ends every session, the Coordinator agrees, and a
// generation begins. When its record is durable on every member, which commits all that
// came before it, the volume serves (leads).
func (c *core) promote(e promoteTurn) {
	c.change = change{}
	if c.role == Primary {
		return
	}
	doubts := c.judgePromotion(false, e.canRollBack)
	if unsafe := c.judgePromotion(e.force, e.canRollBack); unsafe != nil {
		c.change.err = unsafe
		return
	}
	if doubts != nil {
		c.do(forced{doubts.Unknown})
	}
	c.change = change{kind: promoting, set: c.setForPromotion(), force: e.force, forced: doubts != nil}
	if doubts == nil { // else an operator's word stands for the votes
		c.change.voters = c.electors()
	}
	if len(c.change.voters) > 0 {
		c.askVotes()
		return
	}
	c.do(readAgreement{})
}

// mayFollowAgreement: a Coordinator that has a record lets its members lead, and
// others by force.
func (c *core) mayFollowAgreement(e agreementRead) {
	ch := &c.change
	switch {
	case e.err != nil:
		c.fails("", fmt.Errorf("the coordinator did not answer: %w", e.err))
		return
	case e.revision != 0 && !setHas(e.is.Set, c.self()):
		doubt := fmt.Sprintf("the coordinator has it that %s are in sync, as of epoch %d, and this replica is not", strings.Join(nodesOf(e.is.Set), " and "), e.is.Epoch)
		if !ch.force {
			c.fails("", &UnsafePromotionError{Volume: c.rules.volume, Unknown: []string{doubt}})
			return
		}
		ch.forced = true
		c.do(forced{[]string{doubt}})
	}
	c.revision = e.revision
	ch.epoch, ch.version = max(c.super.Epoch, e.is.Epoch), max(c.super.SetVersion, e.is.SetVersion)
	c.do(takeRole{})
}

// roleTaken: nothing is served and nothing is acknowledged before the generation is in
// force. What was known of the peers belongs to another session.
func (c *core) roleTaken(now time.Time) {
	ch := &c.change
	c.role, c.serving, c.led, c.suspended = Primary, false, false, false
	c.generation = notBegun // nothing is durable enough
	c.term++
	c.joiner = nil
	c.do(newTerm{})
	for _, p := range c.others {
		if m := p.with; m != nil && m.met {
			ch.epoch, ch.version = max(ch.epoch, m.theirs.Epoch), max(ch.version, m.theirs.SetVersion)
		}
		p.leaving = false
		p.received, p.durable, p.claim = 0, 0, claim{}
		p.removeAt = now.Add(c.rules.peerTimeout)
		p.lag.slow = nil // as another Primary's peer
		c.part(p, CodeBusy, "promoted")
	}
	ch.epoch, ch.version = ch.epoch+1, ch.version+1
}

// rolePrepared: the role is taken, or could not be.
func (c *core) rolePrepared(err error) {
	if err != nil {
		c.fails("", err)
		return
	}
	c.propose()
}

// suspect: this replica may lack what was acknowledged.
func (c *core) suspect() bool {
	return c.super.Excluded || setHasNode(c.super.Set, c.rules.node) && !setHas(c.super.Set, c.self())
}

func (c *core) promotionBegun() {
	ch := c.change
	c.change = change{}
	c.do(promoted{ch.set, ch.lsn, ch.forced})
	c.do(advance{})
	c.do(raiseBases{})
}

// raiseEpoch begins a generation above an epoch that a peer has seen, so that the peer
// may follow.
func (c *core) raiseEpoch(e epochTurn) {
	if c.role != Primary || c.super.Epoch > e.seen || c.failure != nil {
		return
	}
	for _, p := range c.others {
		c.part(p, CodeBusy, "a new epoch begins")
		p.removeAt = e.now.Add(c.rules.peerTimeout)
	}
	c.change = change{kind: raising, set: c.super.Set, epoch: e.seen + 1, version: c.super.SetVersion + 1}
	c.propose()
}

// demoteBegins: nobody is served any more, and what was written is brought to every
// member.
func (c *core) demoteBegins() {
	if c.role == Primary && c.failure == nil {
		c.serving, c.demoting = false, true
	}
}

// demoteGivesUp: it took too long.
func (c *core) demoteGivesUp() {
	c.demoting, c.serving = false, c.led && c.failure == nil
}

// demote gives the role up, unless something was ordered meanwhile.
func (c *core) demote() {
	if c.stable < c.end {
		return
	}
	c.role, c.demoting, c.led, c.suspended = Secondary, false, false, false
	c.term++
	for _, p := range c.others {
		c.part(p, CodeBusy, "demoted")
	}
	if c.detached != nil {
		c.failed(fail{err: c.detached, readFrom: fromNothing})
	}
	c.do(demoted{})
}

func nodesOf(set []Member) []string {
	names := make([]string, len(set))
	for i, m := range set {
		names[i] = m.Node
	}
	return names
}
