package mirror

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// The in-sync set: who is waited for, who leaves, who joins (replication.md 2).

// A change of the in-sync set that is under way.
type change struct {
	kind    changeKind
	set     []Member // what the set comes to
	version uint64   // with that number
	// Shrinking: who goes. stays: the recorded set cannot do without whoever is lost, and
	// only a joiner goes.
	gone  []*peerState
	stays bool
	// Joining: who, and in which session.
	who  *peerState
	with *meeting
	lsn  LSN   // of its generation's record, 0 while there is none
	err  error // why a peer did not join, or this replica was not promoted
	// Promoting, or raising the epoch.
	epoch  uint64
	force  bool    // an operator's word that it may
	forced bool    // past what is not known
	voters []voter // who is asked first
}

type changeKind uint8

const (
	noChange changeKind = iota
	shrinking
	joining
	detaching
	promoting
	raising // the epoch
)

// voters calls f with the peers that are waited for, and how far each has what is
// sequenced, and durably. One may come twice.
func (c *core) voters(f func(p *peerState, received, durable LSN)) {
	for _, m := range c.super.Set {
		switch p := c.other(m.Node); {
		case p == nil:
		case p.stranger(m):
			f(p, 0, 0) // its acknowledgements are not the member's
		default:
			f(p, p.received, p.durable)
		}
	}
	for _, p := range c.others {
		if p.leaving {
			f(p, p.received, p.durable)
		}
	}
	if p := c.joiner; p != nil { // what is before its generation it need not be asked for
		received, durable := p.received, p.durable
		if p.incarnation != c.joinWith.theirs.Incarnation {
			received, durable = 0, 0 // it lost its memory meanwhile
		}
		f(p, max(received, c.joinLSN-1), max(durable, c.joinLSN-1))
	}
}

// reach is how far everybody who is waited for has what is sequenced, and durably: what
// may be committed, and be stable. It is looked at for every acknowledgement.
func (c *core) reach() (received, durable LSN) {
	received, durable = c.appended, c.durable
	if c.detached != nil {
		received, durable = c.end, c.end // the members' word alone counts
	}
	c.voters(func(_ *peerState, has, hasDurably LSN) {
		received, durable = min(received, has), min(durable, hasDurably)
	})
	return received, durable
}

// counted reports whether a voter's acknowledgements come in: it is connected
// and through its handshake, as the very member that is recorded, or on the way to
// become one.
func (c *core) counted(p *peerState) bool {
	if p.with == nil || !p.with.ready {
		return false
	}
	if p == c.joiner {
		return p.with == c.joinWith
	}
	i, recorded := setIndex(c.super.Set, p.node)
	return !recorded || !p.stranger(c.super.Set[i])
}

// stranger reports whether p was met as another incarnation than the member that is
// recorded: one that lost its memory while the set could not do without it (11f).
func (p *peerState) stranger(m Member) bool {
	return p.incarnation != 0 && p.incarnation != m.Incarnation
}

// lost lists the voters that are gone for longer than they may be.
func (c *core) lost(now time.Time) (gone []*peerState) {
	c.voters(func(p *peerState, _, _ LSN) {
		if !c.counted(p) && now.After(p.removeAt) && !slices.Contains(gone, p) {
			gone = append(gone, p)
		}
	})
	return gone
}

// leavers lists the voters that are to leave the in-sync set: those that are lost, or
// else the slowest of the members that are too slow, if the set can do without it. A
// Primary without a disk keeps whom it has.
func (c *core) leavers(now time.Time) []*peerState {
	gone := c.lost(now)
	if len(gone) > 0 || c.detached != nil || c.joiner != nil || !c.led || c.suspended {
		return gone
	}
	var slowest *peerState
	c.voters(func(p *peerState, _, _ LSN) {
		if c.counted(p) && p.lag.tooSlow() && !p.leaving && c.mayLeave(p) &&
			(slowest == nil || p.lag.worst > slowest.lag.worst) {
			slowest = p
		}
	})
	if slowest != nil {
		gone = append(gone, slowest)
	}
	return gone
}

// someLeave reports whether a smaller set is on its way.
func (c *core) someLeave() bool {
	return slices.ContainsFunc(c.others, func(p *peerState) bool { return p.leaving })
}

// enough reports whether a set may be what writes are acknowledged by.
func (c *core) enough(set []Member) bool { return len(set) >= c.rules.minInSync }

// mayLeave reports whether members may be removed from the recorded set.
func (c *core) mayLeave(gone ...*peerState) bool {
	left := without(c.super.Set, gone)
	return len(left) == len(c.super.Set) || c.enough(left)
}

func without(set []Member, gone []*peerState) []Member {
	for _, p := range gone {
		set = setWithout(set, p.node)
	}
	return set
}

// mayGrow reports whether a peer may join: not once the role is being given up,
// unless what is held back waits for it.
func (c *core) mayGrow() bool { return !c.demoting || c.suspended }

// memberLeft reports whether there is a member other than this replica that is
// neither gone nor on its way out.
func (c *core) memberLeft(now time.Time, gone []*peerState) bool {
	lost := slices.Concat(c.lost(now), gone)
	for _, m := range c.super.Set {
		if p := c.other(m.Node); p != nil && !p.leaving && !slices.Contains(lost, p) {
			return true
		}
	}
	return false
}

// mayDetach reports whether a member is left to go on through, connected or
// about to be, and as many as min-in-sync asks for.
func (c *core) mayDetach(now time.Time) bool {
	return c.rules.onIOError == Detach && c.role == Primary && c.led && c.memberLeft(now, nil) &&
		c.enough(setWithout(c.super.Set, c.rules.node))
}

// judgeQuorum finds out whether writes are held back for lack of in-sync replicas,
// and refuses them if the policy is to.
func (c *core) judgeQuorum(now time.Time) {
	was := c.suspended
	c.suspended = c.role == Primary && c.failure == nil && c.led && (!c.enough(c.super.Set) || !c.mayLeave(c.lost(now)...))
	switch {
	case c.suspended && !was:
		c.do(holdBack{})
	case was && !c.suspended:
		c.do(letGo{})
	}
	if c.refusesWrites() {
		c.do(refuseWaiting{})
	}
}

// refusesWrites reports whether writes get an error for lack of in-sync replicas.
func (c *core) refusesWrites() bool { return c.suspended && c.rules.onNoQuorum == IOError }

// leads: the generation of a Primary's own is durable on every member, and with it
// everything before. It serves.
func (c *core) leads(now time.Time) {
	c.led, c.serving = true, !c.closing && !c.demoting
	c.judgeQuorum(now)
}

// Shrink

// look asks for what has to come before members leave: the handler's word for each,
// and then a turn.
func (c *core) look(now time.Time) {
	gone := c.leavers(now)
	if c.role != Primary || c.failure != nil || len(gone) == 0 && !c.suspended {
		return
	}
	if c.goesOnWithout(gone, now) && !c.allFenced(gone) {
		for _, p := range gone {
			if !p.fenced && !p.asking && !now.Before(p.fenceAfter) {
				p.asking = true
				c.do(askFence{p.node})
			}
		}
		return // the status says why
	}
	c.do(wantTurn{})
}

// goesOnWithout reports whether whoever is gone will be removed: the set can do
// without, and so can a Primary that has no disk.
func (c *core) goesOnWithout(gone []*peerState, now time.Time) bool {
	return c.mayLeave(gone...) && (c.detached == nil || c.memberLeft(now, gone))
}

func (c *core) allFenced(gone []*peerState) bool {
	return !c.rules.fences || !slices.ContainsFunc(gone, func(p *peerState) bool { return !p.fenced })
}

// fenceAnswered: what was asked of one that is here again meanwhile counts for nothing.
func (c *core) fenceAnswered(e fenceAnswer) {
	p := c.other(e.node)
	if !p.asking {
		return
	}
	p.asking = false
	if e.err != nil {
		p.fenceAfter = e.now.Add(e.pause)
		c.do(notFenced{e.node, e.err})
		return
	}
	p.fenced = true
	c.do(fencedNow{e.node})
	c.do(lookAgain{})
}

// shrink removes the members that are lost: their sessions are closed and their later
// acknowledgements ignored; our journal is made durable up to all that they
// acknowledged; the Coordinator agrees; the smaller set is recorded in our superblock,
// then its generation record is made durable on every remaining member; only then is
// anything acknowledged without them (invariant 6, membership before ack). Until then
// they hold everything back at what they had acknowledged.
//
// Where that fails they go on holding everything back, and the next look tries again.
func (c *core) shrink(now time.Time) {
	gone := c.leavers(now)
	switch {
	case c.role != Primary || c.failure != nil || c.change.kind != noChange:
		return
	case c.goesOnWithout(gone, now) && !c.allFenced(gone):
		return // another was lost meanwhile
	case c.detached != nil && !c.memberLeft(now, gone):
		// Nobody is left who has the volume.
		c.failed(fail{fmt.Errorf("%w; and then the last in-sync peer was lost", c.detached), fromNothing,
			"the last member is lost to a Primary without a disk of its own: clients get errors from now on; promote a peer"})
		return
	}
	stays := !c.mayLeave(gone...)
	if stays {
		// The recorded set stays (11d); a joiner that was lost is waited for no more.
		gone = nil
		if j := c.joiner; j != nil && !c.counted(j) {
			gone = []*peerState{j}
		}
	}
	c.judgeQuorum(now)
	if len(gone) == 0 {
		return
	}
	for _, p := range gone {
		p.leaving = true
		c.dropped(p, now)
		if i, recorded := setIndex(c.super.Set, p.node); recorded && p.stranger(c.super.Set[i]) {
			p.received, p.durable = 0, 0 // of another than the member that leaves
		}
		c.part(p, CodeBusy, "it is being removed from the in-sync set")
	}
	c.change = change{kind: shrinking, gone: gone, stays: stays, set: c.super.Set, version: c.super.SetVersion + 1}
	if !stays {
		c.change.set = without(c.super.Set, gone)
	}
	c.do(syncJournal{})
}

// dropped: p leaves the in-sync set. If clients had to wait for it before, that
// lengthens its way back.
func (c *core) dropped(p *peerState, now time.Time) {
	slow := c.counted(p) && p.lag.tooSlow()
	if !setHasNode(c.super.Set, p.node) || !slow && !p.stalled {
		return
	}
	p.lag.drop(now)
	if slow {
		c.do(slowPeer{p.node, p.lag.slow.cause(), p.lag.after})
	}
}

func (c *core) journalSynced(err error) {
	if err != nil {
		c.change = change{}
		return
	}
	c.propose()
}

// othersHave reports whether lsn is durable here and on every voter that is not
// leaving, or that is lost as well: the next shrink removes it.
func (c *core) othersHave(lsn LSN) bool {
	have := c.durable >= lsn || c.detached != nil
	c.voters(func(p *peerState, _, durable LSN) {
		if !p.leaving && durable < lsn && c.counted(p) {
			have = false
		}
	})
	return have
}

// shrunk: the smaller set is in force.
func (c *core) shrunk() {
	ch := c.change
	c.change = change{}
	var nodes []string
	for _, p := range ch.gone {
		p.leaving = false
		if c.joiner == p {
			c.joiner = nil
		}
		nodes = append(nodes, p.node)
	}
	c.do(left{nodes, c.super.Set, ch.lsn})
	c.do(advance{})
	c.do(raiseBases{})
}

// Growth

// errLinkLost: the peer went away in the middle of something.
var errLinkLost = errors.New("the connection to the peer was lost")

// notThePeer is why a peer did not join although it did its part.
type notThePeer struct {
	what string
	err  error
}

func (e *notThePeer) Error() string { return fmt.Sprintf("%s: %v", e.what, e.err) }
func (e *notThePeer) Unwrap() error { return e.err }

// join makes a peer that has caught up a member, in replication.md's order
// (section 2, growth):
//
//  1. it receives the live stream already;
//  2. a generation record J that names it is appended, and from J on it is
//     waited for as if it were a member;
//  3. when it is durable through J and has recorded UpToDate, the Coordinator agrees,
//     our superblock records the larger set, and then its own and the other members' do.
//
// Losing the peer before step 3 is through leaves it to a shrink to begin a generation
// without it.
func (c *core) join(e joinTurn) {
	p := c.other(e.node)
	c.change = change{}
	switch {
	case c.role != Primary || !c.led || c.failure != nil || !c.mayGrow() || c.joiner != nil || c.someLeave():
		return
	case p.with != e.with:
		c.change.err = errLinkLost
		return
	}
	set := setWith(c.super.Set, Member{Node: p.node, Incarnation: e.with.theirs.Incarnation})
	c.change = change{kind: joining, who: p, with: e.with, set: set, version: c.super.SetVersion + 1}
	c.joiner, c.joinWith, c.joinLSN = p, e.with, c.end+1<<62 // not waited for before J is ordered
	c.do(beginGeneration{set: set})
}

// placed: from J on the joiner is waited for.
func (c *core) placed(lsn LSN) {
	if c.change.kind == joining {
		c.joinLSN = lsn
	}
}

// joinLimit is how long a joiner may take for what it lacks.
func (c *core) joinLimit() time.Duration {
	limit := 4 * c.rules.peerTimeout
	if c.rules.budget > 0 { // a member that had writes wait for so long would have to leave
		limit = min(limit, max(slowBudgets*c.rules.budget, time.Second))
	}
	return limit
}

// joinFails: the session ends, and whoever is half in is left to a shrink.
func (c *core) joinFails(err error) {
	if ch := c.change; ch.who.with == ch.with {
		c.part(ch.who, CodeBusy, "it did not join")
		ch.who.removeAt = time.Time{} // at once
	}
	c.change = change{err: err}
	c.do(lookAgain{})
}

func (c *core) setRecorded(e setRecorded) {
	ch := c.change
	if e.err != nil {
		c.fails("could not record the larger set", e.err)
		return
	}
	c.change = change{}
	c.joiner = nil
	ch.who.lag.join(e.now)
	c.do(joined{ch.who.node, ch.set, ch.lsn})
	c.do(advance{})
	c.judgeQuorum(e.now)
	c.do(settleBits{ch.who.node, ch.lsn})
}

// What a change goes through

// propose has the Coordinator agree to the change under way. After an outcome that is
// unknown the next proposal is on the same base: if it succeeds nothing of before can
// arrive any more, and if the record is newer, it is read.
func (c *core) propose() { c.do(propose{c.revision, c.proposal()}) }

// proposal is what the change under way comes to.
func (c *core) proposal() Agreement {
	return Agreement{Epoch: max(c.super.Epoch, c.change.epoch), SetVersion: c.change.version, Primary: c.rules.node, Set: c.change.set}
}

func (c *core) proposed(e proposed) {
	switch {
	case e.err == nil:
		c.revision = e.revision
		c.granted()
	case c.change.kind == promoting: // whatever became of it: whoever leads next asks first
		c.fails("", fmt.Errorf("the coordinator does not agree: %w", e.err))
	case errors.Is(e.err, ErrSuperseded):
		c.do(readAgreement{}) // by one of our own attempts, perhaps
	default:
		c.fails("the coordinator did not answer", e.err)
	}
}

// agreementRead settles what was unknown, if it is newer than what we based it on.
func (c *core) agreementRead(e agreementRead) {
	switch {
	case c.change.kind == promoting:
		c.mayFollowAgreement(e)
	case e.err != nil:
		c.fails("the coordinator did not answer", e.err)
	case e.revision > c.revision && !e.ours:
		c.do(superseded{e.is})
		c.fails("another node changed the in-sync set", fmt.Errorf("%w: node %q leads in epoch %d", ErrSuperseded, e.is.Primary, e.is.Epoch))
	case e.revision < c.revision:
		c.fails("the coordinator went back in time", fmt.Errorf("its record is of revision %d, and was of %d", e.revision, c.revision))
	case e.revision > c.revision && e.is.SetVersion == c.change.version && setEqual(e.is.Set, c.change.set):
		c.revision = e.revision
		c.granted()
	default:
		c.revision = e.revision
		c.do(propose{e.revision, c.proposal()})
	}
}

// granted: the change may be recorded.
func (c *core) granted() {
	ch := &c.change
	switch ch.kind {
	case joining:
		c.do(recordSet{ch.set})
	case promoting:
		c.do(beginGeneration{set: ch.set, record: true, epoch: ch.epoch, version: ch.version, promotion: true, suspect: c.suspect()})
	default:
		c.do(beginGeneration{set: ch.set, record: true, epoch: ch.epoch})
	}
}

func (c *core) begun(e begun) {
	if e.err != nil {
		c.fails("could not begin a generation", e.err)
		return
	}
	c.change.lsn = e.lsn
	switch c.change.kind {
	case shrinking:
		c.do(await{})
	case joining:
		c.do(await{limit: c.joinLimit()})
	case detaching:
		c.detachBegun()
	case promoting:
		c.promotionBegun()
	case raising:
		c.change = change{}
	}
}

// inForce reports whether what the change under way waits for is there. An error says
// that it never will be.
func (c *core) inForce() (bool, error) {
	ch := &c.change
	if c.failure != nil {
		return false, c.failure
	}
	switch ch.kind {
	case promoting:
		return c.elected()
	case joining:
	default:
		return c.othersHave(ch.lsn), nil
	}
	if ch.who.with != ch.with {
		return false, errLinkLost
	}
	return ch.with.joinReady >= ch.lsn && ch.who.durable >= ch.lsn && ch.who.received >= c.committed, nil
}

func (c *core) changeInForce() {
	switch c.change.kind {
	case shrinking:
		c.shrunk()
	case joining:
		c.propose()
	case promoting:
		c.do(readAgreement{})
	}
}

// gaveUp: what the change under way waits for is waited for no more.
func (c *core) gaveUp(err error) {
	if c.change.kind == promoting {
		err = c.notElected(err)
	}
	c.fails("", err)
}

// fails: the change is given up for now. Who was waited for is waited for.
func (c *core) fails(what string, err error) {
	switch c.change.kind {
	case joining:
		if what != "" {
			err = &notThePeer{what, err}
		}
		c.joinFails(err)
	case promoting:
		c.release()
		c.role = Secondary
		c.change = change{err: err}
	case detaching:
		c.change = change{}
		if c.failure == nil {
			c.failed(fail{err: fmt.Errorf("%w; going on without it failed: %w", c.detached, err), readFrom: fromNothing})
		}
	default:
		c.change = change{}
		if what != "" && c.failure == nil {
			c.do(changeFailed{what, err})
		}
	}
}
