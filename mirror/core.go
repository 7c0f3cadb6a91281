package mirror

import (
	"slices"
	"time"
)

// What a replica decides, its core decides: who leaves the in-sync set and who joins
// it, whether writes are held back, whether it may be promoted and with whom, what it
// makes of a peer that it meets, what becomes of it when its disk fails.
//
// # Events in, actions out
//
// A core is a value. [core.step] tells it an event, something that has happened, and
// it answers with the actions that follow, and with nothing else: it reads no clock
// (an event brings the time), does no I/O, starts no goroutine, takes no lock, draws
// no random number and goes through no map. The same events in the same order give
// the same actions, to the byte. TestCoreIsPure holds the files core*.go, and what
// they call, to that.
//
// Volume is its driver (drive.go): under Volume.mu it turns what happens into events,
// does at once what can be done at once, and without the lock what takes time; how
// that ended is the next event. Tests are another: testdata/core holds scripts of
// events and of what has to follow, and TestCoreWalk goes at random.
//
// # What it knows
//
// The superblock as committed; the role; how far the journal is known to be sequenced,
// written, durable, committed and stable; of every configured peer the connection, what
// it acknowledged within it, and whether it keeps up (lag.go); and the change of the
// in-sync set that is under way. There is one of these at a time: who wants one asks
// for a turn (wantTurn) and gets it as an event.
//
// Acknowledgements are no events: they come by the hundred thousand, and move marks
// that the core looks at (peerState.received and durable) and nothing else. Where a
// decision waits for them, inForce says whether they are there.
//
// # Invariants
//
//   - 6, membership before ack. A member that is to go, and a peer that is to come, are
//     voters (core.voters) until the set without the one, or with the other, is
//     recorded and in force: nothing is acknowledged meanwhile that they lack. This
//     holds through an outcome of the Coordinator's that is unknown: the union counts.
//   - 7, fencing. What the core answers to a peer of an older epoch is a refusal.
//   - 8, only a member may lead. A promotion whose safety is not known is refused, or
//     an operator's word, which is in its action, and in the history.
//   - A superblock only ever goes where transitions.go lets it.
type core struct {
	rules rules

	super   Superblock // as last committed
	role    Role
	serving bool   // a Primary that answers clients
	led     bool   // the newest generation's record is durable on every member
	term    uint64 // counts promotions of this process: requests of another term are refused
	failure error  // why the replica is Failed
	// detached is why this Primary does without its disk (detach.go), and
	// detaching that its peers' generation has not begun yet.
	detached  error
	detaching bool
	closing   bool
	demoting  bool
	suspended bool // too few members are in sync: no write is acknowledged

	end        LSN // newest record sequenced or received
	appended   LSN // newest record in the journal, if not yet durably
	durable    LSN
	committed  LSN // on a Secondary: what reads for a diskless Primary see (remote.go)
	stable     LSN
	generation LSN // record of the newest generation, as Primary

	others []*peerState // sorted by node
	// joiner is the peer that the newest generation names and that is no
	// recorded member yet: waited for from joinLSN on (replication.md 2, growth), in
	// the session joinWith. In another one it has to begin anew.
	joiner   *peerState
	joinWith *meeting
	joinLSN  LSN

	change   change
	revision Revision // of the Coordinator's record, that the next proposal is based on

	todo []action // of the step under way
}

// rules are what the operator set, as far as it decides anything.
type rules struct {
	node        string
	volume      string
	minInSync   int
	onNoQuorum  QuorumPolicy
	onIOError   IOErrorPolicy
	peerTimeout time.Duration
	budget      time.Duration // Options.PeerLatencyBudget
	fences      bool          // a handler is asked before a peer is left behind
}

// A peerState is what a core knows of one peer.
type peerState struct {
	node    string
	want    bool // connected, or to be
	refused bool // not wanted, by what two Secondaries found out of each other
	// untold: not wanted, by what the two found out of each other; whether it knows is
	// not known, so it may come, or is called, to hear that once more.
	untold      bool
	with        *meeting // nil without a connection
	incarnation uint64   // of the replica that was met last
	received    LSN      // acknowledged within this session
	durable     LSN
	claim       claim
	removeAt    time.Time // a member without a connection is lost from then on
	// leaving: it is being removed, and holds back everything, at what it had
	// acknowledged, until the smaller set is in force.
	leaving    bool
	lag        lagJudge
	stalled    bool      // its last session ended because nothing came of it for too long
	fenced     bool      // the handler let us go on without it, and it was not here since
	asking     bool      // the handler is being asked
	fenceAfter time.Time // and is not before
	problem    string
	split      *metSplit // nil without a split-brain
}

// A claim is what a replica once acknowledged as durable, in one incarnation.
type claim struct {
	incarnation uint64
	durable     LSN
}

// A meeting is one connection to a peer, as far as it decides anything: what the two
// told each other, and how far they came.
type meeting struct {
	role      Role // ours, when it began
	met       bool // hellos were exchanged: theirs and verdict are valid
	ready     bool // through the handshake; acknowledgements count
	theirs    Description
	verdict   Comparison
	joinReady LSN // the generation through which it says that it is ready to join

	votes    bool // the protocol has votes
	promised bool // it is about to be promoted, and we gave our word that we are not
	vote     vote // its word, that we asked for
	whyNot   string
}

// newCore is the core of a replica that has not recovered yet.
func newCore(r rules, peers []string) core {
	c := core{rules: r}
	for _, node := range slices.Sorted(slices.Values(peers)) {
		c.others = append(c.others, &peerState{node: node, want: true, lag: lagJudge{budget: r.budget}})
	}
	return c
}

// other is what is known of a node; nil if it is no configured peer.
func (c *core) other(node string) *peerState {
	for _, p := range c.others {
		if p.node == node {
			return p
		}
	}
	return nil
}

// self is this replica as a member.
func (c *core) self() Member {
	return Member{Node: c.rules.node, Incarnation: c.super.Incarnation}
}

// step takes in an event and returns what follows from it, in that order.
func (c *core) step(e event) []action {
	c.todo = nil
	e.tell(c)
	todo := c.todo
	c.todo = nil
	return todo
}

// do has something done.
func (c *core) do(a action) { c.todo = append(c.todo, a) }

// part ends the connection to p, telling it why; acknowledgements that come later
// are not counted.
func (c *core) part(p *peerState, code Code, sentence string) {
	if p.with != nil {
		p.with = nil
		c.do(closeLink{p.node, code, sentence})
	}
}
