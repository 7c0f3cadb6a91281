package mirror

import (
	"fmt"
	"slices"
)

// Every history of two nodes without a Coordinator, up to bounds: forced
// promotions, writes, acknowledgements alone and together, replication, power
// losses that cut the journal's unsynced end and change the incarnation,
// truncation after a comparison, and reuse of the cut LSNs. Compare sees
// histories, ends and incarnations; the truth is the records themselves, which
// are numbered and never reused.

// A bug is a rule of the protocol that a run leaves out, to show that the model
// finds what the rule is for.
type bug string

const (
	sound       bug = ""
	resume      bug = "resume"       // a Primary that lost power goes on in its old generation
	lostHistory bug = "lost_history" // the history is not durable before its generation's records
	noTrim      bug = "no_trim"      // truncation leaves the generations that began beyond the cut
	lengthOnly  bug = "length_only"  // the common point is the lesser of both ends
	aloneLost   bug = "alone_lost"   // the sets that lack the peer are forgotten with the power
	noCut       bug = "no_cut"       // a power loss leaves the incarnation as it is
	noAlone     bug = "no_alone"     // no new generation before acknowledging without the peer
	noSync      bug = "no_sync"      // that generation's record is not durable before it
	fewest      bug = "fewest"       // of two real suffixes the one with fewer writes gives way, not only one with none
	primaryToo  bug = "primary_too"  // a Primary without a write gives way, too
	neverGives  bug = "never_gives"  // nobody gives way
	staleSelf   bug = "stale_self"   // who goes on alone is recorded in the incarnation before its memory was lost
)

const (
	modelRecords     = 14 // longest journal
	modelGenerations = 10 // longest history
)

type modelGeneration struct {
	id, first, epoch uint8
	set              [2]uint8 // each node's incarnation, 0 if it is no member
}

type modelNode struct {
	journal       [modelRecords]uint8 // record numbers; LSN n stands at n-1
	end, durable  uint8
	history       [modelGenerations]modelGeneration
	gens, keptGen uint8 // generations, and how many of them survive a power loss
	incarnation   uint8
	primary       bool
}

func (n *modelNode) String() string {
	s := fmt.Sprintf("journal %v, durable %d, incarnation %d, generations", n.journal[:n.end], n.durable, n.incarnation)
	for _, g := range n.history[:n.gens] {
		s += fmt.Sprintf(" %d@%d(e%d)%v", g.id, g.first, g.epoch, g.set)
	}
	return s
}

// last is the newest generation.
func (n *modelNode) last() *modelGeneration { return &n.history[n.gens-1] }

func (n *modelNode) records(from, to uint8) (set uint32) {
	for _, r := range n.journal[from:to] {
		set |= 1 << r
	}
	return set
}

// A model state is a value: it is its own key.
type model struct {
	node    [2]modelNode
	linked  bool
	acked   uint32 // writes that a client was told of and somebody holds
	isGen   uint32 // records that are generation records
	records uint8  // numbers given to records so far
	gens    uint8  // and to generations
	budget         // left
}

// append adds a record to node i's journal.
func (m *model) append(i int) (bit uint32) {
	n := &m.node[i]
	n.journal[n.end] = m.records
	n.end++
	bit = 1 << m.records
	m.records++
	return bit
}

// begin starts a generation with this set on node i. Its record is durable at
// once if node i is the whole set, for it acknowledges by itself from then on.
func (m *model) begin(i int, b bug, set [2]uint8, epoch uint8) {
	n := &m.node[i]
	m.gens++
	n.history[n.gens] = modelGeneration{id: m.gens, first: n.end + 1, epoch: epoch, set: set}
	n.gens++
	slices.SortStableFunc(n.history[:n.gens], func(a, b modelGeneration) int { return int(a.first) - int(b.first) })
	if b != lostHistory {
		n.keptGen = n.gens
	}
	m.isGen |= m.append(i)
	if set[1-i] == 0 && b != noSync {
		n.durable = n.end
	}
}

// cut shortens node i's journal, and its history to match.
func (n *modelNode) cut(b bug, end uint8) {
	clear(n.journal[end:])
	n.end, n.durable = end, min(n.durable, end)
	for b != noTrim && n.gens > 0 && n.last().first > end {
		*n.last() = modelGeneration{}
		n.gens--
	}
	n.keptGen = min(n.keptGen, n.gens)
}

var modelNames = [2]string{"a", "b"}

// describe is what node i tells the other.
func (m *model) describe(i int) Description {
	n := &m.node[i]
	d := Description{
		Node: modelNames[i], Volume: ID{1}, Name: "v", Size: 4096, End: LSN(n.end),
		Incarnation: uint64(n.incarnation), History: make(History, n.gens),
	}
	if n.primary {
		d.Role = Primary
	}
	var parent ID
	for k, g := range n.history[:n.gens] {
		h := Generation{ID: ID{g.id}, Parent: parent, Epoch: uint64(g.epoch), First: LSN(g.first)}
		for j, incarnation := range g.set {
			if incarnation != 0 {
				h.Set = append(h.Set, Member{Node: modelNames[j], Incarnation: uint64(incarnation)})
			}
		}
		d.History[k], parent = h, h.ID
	}
	return d
}

// compare is Compare, or what a bug makes of it.
func (m *model) compare(b bug) (ab, ba Comparison) {
	x, y := m.describe(0), m.describe(1)
	if b != lengthOnly {
		ab, ba = Compare(x, y), Compare(y, x)
		return ab.with(b, Ours), ba.with(b, Theirs)
	}
	p, _ := standing(&x)
	q, _ := standing(&y)
	c := min(p.end, q.end)
	return compareSuffixes(p, q, c), compareSuffixes(q, p, c)
}

// with is the comparison that a bug in the rule on suffixes without a write makes.
// Of two sides that wrote as much, first gives way.
func (c Comparison) with(b bug, first Side) Comparison {
	fewer := first
	switch {
	case c.Ours.Writes < c.Theirs.Writes:
		fewer = Ours
	case c.Theirs.Writes < c.Ours.Writes:
		fewer = Theirs
	}
	switch truncates := map[Side]Verdict{Ours: WeTruncate, Theirs: PeerTruncates}; {
	case b == fewest && c.Verdict == SplitBrain && c.GivesWay == Neither:
		c.Verdict = truncates[fewer]
	case b == primaryToo && c.Verdict == SplitBrain && c.GivesWay != Neither:
		c.Verdict = truncates[c.GivesWay]
	case b == neverGives && c.GivesWay != Neither:
		c.Verdict = SplitBrain
	}
	return c
}

// A step is a state that follows another, and how.
type step struct {
	model
	label string
}

// steps lists everything that can happen next.
func (m *model) steps(b bug, ab, ba Comparison) (next []step) {
	add := func(s model, format string, a ...any) { next = append(next, step{s, fmt.Sprintf(format, a...)}) }
	for i := range m.node {
		m.roleSteps(i, b, add)
		m.writeSteps(i, b, add)
		m.lossSteps(i, b, add)
	}
	switch s := *m; {
	case m.linked:
		s.linked = false
		add(s, "the link is cut")
	case !m.node[0].primary || !m.node[1].primary:
		m.meet(0, b, ab, add)
		m.meet(1, b, ba, add)
	}
	return next
}

type adder func(s model, format string, a ...any)

// roleSteps: node i is promoted or demoted, drops its peer or lets it join.
func (m *model) roleSteps(i int, b bug, add adder) {
	n, o := &m.node[i], &m.node[1-i]
	var alone [2]uint8
	alone[i] = n.incarnation
	set := n.last().set
	set[i] = n.incarnation
	if b == staleSelf {
		alone[i] = 1
	}
	if !n.primary && m.promotions > 0 {
		s := *m
		s.promotions--
		s.linked, s.node[i].primary = false, true
		epoch := n.last().epoch + 1
		forced := s
		forced.begin(i, b, alone, epoch)
		add(forced, "%s is promoted alone", modelNames[i])
		if set != alone {
			s.begin(i, b, set, epoch)
			add(s, "%s is promoted with the set as recorded", modelNames[i])
		}
	}
	if !n.primary {
		return
	}
	s := *m
	s.node[i].primary = false
	add(s, "%s is demoted", modelNames[i])
	if s = *m; !m.linked && set[1-i] != 0 {
		if b != noAlone {
			s.begin(i, b, alone, n.last().epoch)
		}
		s.acked |= s.node[i].records(0, s.node[i].end) &^ s.isGen
		add(s, "%s drops its peer and acknowledges alone", modelNames[i])
	}
	if s = *m; m.linked && m.joins > 0 && set[1-i] != o.incarnation {
		s.joins--
		set[1-i] = o.incarnation
		s.begin(i, b, set, n.last().epoch)
		add(s, "%s lets its peer join", modelNames[i])
	}
}

// writeSteps: node i writes, replicates or syncs.
func (m *model) writeSteps(i int, b bug, add adder) {
	n, o := &m.node[i], &m.node[1-i]
	if s := *m; n.primary && m.writes > 0 {
		s.writes--
		bit := s.append(i)
		if n.last().set[1-i] == 0 {
			s.acked |= bit
		}
		add(s, "%s writes %d", modelNames[i], m.records)
	}
	if s := *m; n.primary && m.linked && o.end < n.end {
		t := &s.node[1-i]
		t.journal[t.end] = n.journal[t.end]
		t.end++
		t.follow(n, b)
		if n.at(t.end).set[1-i] == o.incarnation { // a member: it commits all before
			s.acked |= t.records(0, t.end) &^ s.isGen
		}
		add(s, "%s replicates %d", modelNames[i], n.journal[o.end])
	}
	if s := *m; n.durable < n.end || n.keptGen < n.gens {
		s.node[i].durable, s.node[i].keptGen = n.end, n.gens
		add(s, "%s syncs", modelNames[i])
	}
}

// at is the generation of a record.
func (n *modelNode) at(lsn uint8) *modelGeneration {
	k := n.gens - 1
	for k > 0 && n.history[k].first > lsn {
		k--
	}
	return &n.history[k]
}

// follow makes n's history the part of other's that n has records of.
func (n *modelNode) follow(other *modelNode, b bug) {
	n.history, n.gens = other.history, other.gens
	end := n.end
	for n.gens > 0 && n.last().first > end {
		*n.last() = modelGeneration{}
		n.gens--
	}
	if b == lostHistory {
		n.keptGen = min(n.keptGen, n.gens)
	} else {
		n.keptGen = n.gens
	}
}

// lossSteps: node i loses power and keeps any part of what was not durable.
func (m *model) lossSteps(i int, b bug, add adder) {
	if m.losses == 0 {
		return
	}
	for keep := m.node[i].durable; keep <= m.node[i].end; keep++ {
		s := *m
		n, o := &s.node[i], &s.node[1-i]
		s.losses--
		s.linked = false
		s.acked &^= n.records(keep, n.end) &^ o.records(0, o.end)
		if b == lostHistory {
			clear(n.history[n.keptGen:])
			n.gens = n.keptGen
		}
		n.cut(b, keep)
		n.durable, n.keptGen = keep, n.gens
		n.primary = n.primary && b == resume
		if b != noCut {
			n.incarnation++
		}
		for k := range n.history[:n.gens] {
			if g := &n.history[k]; b == aloneLost && g.set[1-i] == 0 {
				g.set[1-i] = o.incarnation
			}
		}
		add(s, "%s loses power and keeps %d", modelNames[i], keep)
	}
}

// meet: the two compare, c being node i's view, and node 1-i gives way. In a
// split-brain an operator says so, and what it loses counts no more; one that
// wrote nothing gives way by itself.
func (m *model) meet(i int, b bug, c Comparison, add adder) {
	s := *m
	me, o := &s.node[i], &s.node[1-i]
	if o.primary {
		return
	}
	keep := o.end
	switch c.Verdict {
	case InSync, PeerBehind:
	case PeerTruncates, SplitBrain:
		keep = uint8(c.Common)
	default:
		return
	}
	if c.Verdict == SplitBrain {
		s.acked &^= o.records(keep, o.end) &^ me.records(0, me.end)
	}
	o.cut(b, keep)
	if b != noTrim {
		o.follow(me, b)
	}
	s.linked = true
	add(s, "%s and %s meet: %v, %s keeps %d", modelNames[i], modelNames[1-i], c.Verdict, modelNames[1-i], keep)
}

// A budget is how much may happen in one exploration.
type budget struct{ writes, promotions, joins, losses uint8 }

func (b budget) String() string {
	return fmt.Sprintf("%d,%d,%d,%d", b.writes, b.promotions, b.joins, b.losses)
}

// newModel is a healthy pair: one generation with both in it, its record
// durable on both, no Primary.
func newModel(b budget) model {
	m := model{linked: true, budget: b}
	for i := range m.node {
		m.node[i].incarnation = 1
	}
	m.begin(0, sound, [2]uint8{1, 1}, 1)
	m.node[0].durable = 1
	m.node[1] = m.node[0]
	return m
}
