package mirror

import "time"

// An event is something that has happened and that a core is told of.
type event interface{ tell(c *core) }

// An action is something that a core wants done. Those with a comment that names an
// event take time, and that event has to follow, once; the others are done at once, in
// their order, before any other event.
type action interface{}

// Events of the in-sync set.
type (
	// watch: it is time to see whether somebody has to leave.
	watch struct{ now time.Time }
	// fenceAnswer: the handler let us go on without the peer, or err says why not.
	// It is not asked again for a moment, pause.
	fenceAnswer struct {
		node  string
		err   error
		now   time.Time
		pause time.Duration
	}
	// shrinkTurn: those who have to leave may; no other change begins until this one
	// is through.
	shrinkTurn struct{ now time.Time }
	// joinTurn: the peer with which we are in this session may join, and no other
	// change begins until it has, or has not.
	joinTurn struct {
		node string
		with *meeting
		now  time.Time
	}
	// synced: all that was in our journal is durable, or err says that nothing is.
	synced struct{ err error }
	// proposed is how a proposal to the Coordinator ended.
	proposed struct {
		revision Revision
		err      error
	}
	// agreementRead is what the Coordinator has. ours: one of our own attempts made it.
	agreementRead struct {
		is       Agreement
		revision Revision
		ours     bool
		err      error
	}
	// placed: the generation that is being begun has its place in the order, and
	// nothing is ordered after it yet.
	placed struct{ lsn LSN }
	// begun: that generation is recorded and its record is in the journal, or err says
	// why not.
	begun struct {
		lsn LSN
		err error
	}
	// inForce: what the change under way waited for is there (core.inForce).
	inForce struct{}
	// gaveUp: it is not, and is waited for no more.
	gaveUp struct{ err error }
	// setRecorded: the larger set is in our superblock, or err says why not.
	setRecorded struct {
		err error
		now time.Time
	}
	// generationDurable: the newest generation's record is durable on every member.
	generationDurable struct{ now time.Time }
	// quorumLook: who is here has changed; are they enough?
	quorumLook struct{ now time.Time }
	// diskFailed: a file of the replica's failed, for good; readFrom is where reads may
	// go on (fault.go).
	diskFailed struct {
		err      error
		readFrom uint32
		now      time.Time
	}
	// detachTurn: a Primary without its disk may begin the generation of its peers.
	detachTurn struct{}
)

// Events of a connection.
type (
	// met: the hellos were exchanged, and the histories compared.
	met struct {
		node string
		with *meeting
	}
	// leadWanted: this Primary is to begin a session, and nothing follows if it may.
	leadWanted struct {
		node string
		with *meeting
		now  time.Time
	}
	// linkLost: the connection is over. again: another is tried at once. busy: it was
	// ended by the peer, which will be here again. final: one of the two refused the other
	// in a way that an operator has to mend. untold: and it is not known whether the peer
	// knows. stalled: nothing came of the peer for too long.
	linkLost struct {
		node                                string
		with                                *meeting
		again, busy, final, untold, stalled bool
		now                                 time.Time
	}
)

// Actions of a connection.
type (
	// refusePeer: end it with these words, for good.
	refusePeer struct {
		code     Code
		sentence string
	}
	// meetAgain: end it, and begin with another handshake.
	meetAgain struct{}
	// wantEpoch: begin an epoch above this → epochTurn.
	wantEpoch struct{ seen uint64 }
	// connectAgain: try to connect.
	connectAgain struct{ node string }
	// cutOff: the superblock says Consistent from now on, if core.isCutOff by then.
	cutOff struct{}
)

func (e met) tell(c *core)        { c.met(e) }
func (e leadWanted) tell(c *core) { c.lead(e) }
func (e linkLost) tell(c *core)   { c.linkLost(e) }

// Events of the role.
type (
	// epochTurn: a peer has seen an epoch that is newer than ours, and follows nothing
	// older (invariant 7). This Primary may begin one above it.
	epochTurn struct {
		seen uint64
		now  time.Time
	}
	// promoteTurn: an operator wants this replica to lead, by force if need be.
	// canRollBack: it is in the middle of a resync and can be taken back.
	promoteTurn struct{ force, canRollBack bool }
	// roleTaken: no round of the applier's that began as Secondary is under way, and none
	// begins before what follows at once is done.
	roleTaken struct{ now time.Time }
	// rolePrepared: that is over, or err says why it did not come.
	rolePrepared struct{ err error }
	// demoteBegins: an operator wants this replica to lead no more. demoteGivesUp: it took
	// too long.
	demoteBegins  struct{}
	demoteGivesUp struct{}
	// demoteTurn: it may stop leading now, if all that was ordered is stable; nothing is
	// ordered before what follows at once is done.
	demoteTurn struct{}
)

// Events and actions of a vote (core_vote.go).
type (
	// prepareHeard: the peer is about to be promoted and asks for our vote → castVote, at once.
	prepareHeard struct {
		node string
		with *meeting
	}
	// voteHeard: the peer that was asked has answered.
	voteHeard struct {
		with     *meeting
		yes      bool
		sentence string
	}
	// askVote: ask the peer for its vote, if this is still the connection to it.
	askVote struct {
		node string
		with *meeting
	}
	// castVote: this is our vote.
	castVote struct {
		yes      bool
		sentence string
	}
)

func (e prepareHeard) tell(c *core) { c.castVote(e) }
func (e voteHeard) tell(c *core)    { e.with.vote, e.with.whyNot = voteOf(e.yes), e.sentence }

// Actions of the in-sync set.
type (
	// askFence: ask the handler whether we may go on without the peer → fenceAnswer.
	askFence struct{ node string }
	// fencedNow: it let us. notFenced: it did not.
	fencedNow struct{ node string }
	notFenced struct {
		node string
		err  error
	}
	// wantTurn: the in-sync set has to change → shrinkTurn, when no other change of
	// the set or the role is under way.
	wantTurn struct{}
	// wantDetach: the same → detachTurn.
	wantDetach struct{}
	// closeLink: end the connection with these words.
	closeLink struct {
		node     string
		code     Code
		sentence string
	}
	// slowPeer: the peer leaves for being too slow.
	slowPeer struct {
		node  string
		cause string
		after time.Time // it may return
	}
	// syncJournal: make the journal durable up to its end → synced.
	syncJournal struct{}
	// propose: have the Coordinator record what is to be, in the place of revision base
	// → proposed.
	propose struct {
		base Revision
		next Agreement
	}
	// readAgreement: ask the Coordinator what is in force → agreementRead.
	readAgreement struct{}
	// beginGeneration: record it, then append its record → placed, begun.
	beginGeneration struct {
		set []Member // its in-sync set
		// record: the superblock has the set from then on, not once the newcomer is
		// ready only.
		record bool
		// epoch and version of the set are at least these.
		epoch, version uint64
		// promotion: this replica begins to lead. suspect: what was acknowledged may be
		// lost, so the loss counter rises.
		promotion, suspect bool
	}
	// await: wait until core.inForce, no longer than limit unless that is 0 → inForce,
	// or gaveUp.
	await struct{ limit time.Duration }
	// recordSet: the superblock has this set from now on → setRecorded.
	recordSet struct{ set []Member }
	// left: the smaller set is in force without these.
	left struct {
		nodes []string
		set   []Member
		lsn   LSN
	}
	// joined: the peer is a member, by the generation at lsn.
	joined struct {
		node string
		set  []Member
		lsn  LSN
	}
	// raiseBases: who left had what the members had when the turn began.
	raiseBases struct{}
	// settleBits: what the peer's bitmap said is settled; it begins anew.
	settleBits struct {
		node string
		lsn  LSN
	}
	// advance: acknowledge as far as the marks reach now.
	advance struct{}
	// lookAgain: somebody may have to leave → watch, soon.
	lookAgain struct{}
	// holdBack: too few members are in sync, writes wait from now on; letGo: no more.
	holdBack struct{}
	letGo    struct{}
	// refuseWaiting: answer the writes that wait with ErrNoQuorum.
	refuseWaiting struct{}
	// changeFailed: the set stays as it is, and so does who is waited for.
	changeFailed struct {
		what string
		err  error
	}
	// superseded: another node changed the agreement. This Primary is none any more in
	// the others' eyes, and acknowledges nothing that they lack.
	superseded struct{ by Agreement }
	// detachNow: the disk failed, the volume goes on without.
	detachNow struct{ err error }
	// detachedNow: the generation of the peers has begun.
	detachedNow struct {
		set []Member
		lsn LSN
	}
	// fail: the replica is Failed.
	fail struct {
		err      error
		readFrom uint32
		sentence string // for the log
	}
)

// Actions of the role.
type (
	// forced: the promotion goes past what is not known.
	forced struct{ unknown []string }
	// takeRole: have nothing under way that began as Secondary → roleTaken, rolePrepared.
	takeRole struct{}
	// newTerm: what is pending, and what was committed, is of another role.
	newTerm struct{}
	// promoted: the generation has begun, and serves when it is in force.
	promoted struct {
		set    []Member
		lsn    LSN
		forced bool
	}
	demoted struct{}
)

func (e epochTurn) tell(c *core)         { c.raiseEpoch(e) }
func (e promoteTurn) tell(c *core)       { c.promote(e) }
func (e roleTaken) tell(c *core)         { c.roleTaken(e.now) }
func (e rolePrepared) tell(c *core)      { c.rolePrepared(e.err) }
func (e demoteBegins) tell(c *core)      { c.demoteBegins() }
func (e demoteGivesUp) tell(c *core)     { c.demoteGivesUp() }
func (e demoteTurn) tell(c *core)        { c.demote() }
func (e watch) tell(c *core)             { c.look(e.now) }
func (e fenceAnswer) tell(c *core)       { c.fenceAnswered(e) }
func (e shrinkTurn) tell(c *core)        { c.shrink(e.now) }
func (e joinTurn) tell(c *core)          { c.join(e) }
func (e synced) tell(c *core)            { c.journalSynced(e.err) }
func (e proposed) tell(c *core)          { c.proposed(e) }
func (e agreementRead) tell(c *core)     { c.agreementRead(e) }
func (e placed) tell(c *core)            { c.placed(e.lsn) }
func (e begun) tell(c *core)             { c.begun(e) }
func (e inForce) tell(c *core)           { c.changeInForce() }
func (e gaveUp) tell(c *core)            { c.gaveUp(e.err) }
func (e setRecorded) tell(c *core)       { c.setRecorded(e) }
func (e generationDurable) tell(c *core) { c.leads(e.now) }
func (e quorumLook) tell(c *core)        { c.judgeQuorum(e.now) }
func (e diskFailed) tell(c *core)        { c.diskFailed(e) }
func (e detachTurn) tell(c *core)        { c.detach() }
