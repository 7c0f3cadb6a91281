package mirror

import (
	"errors"
	"fmt"
	"strings"
)

// Verdict is what two histories say about each other (replication.md 5), as one
// of the two replicas sees it.
type Verdict uint8

const (
	// InSync: both end with the same record.
	InSync Verdict = iota
	// PeerBehind: the peer's history is a prefix of ours; it lacks what is past
	// Common.
	PeerBehind
	// WeAreBehind: ours is a prefix of the peer's.
	WeAreBehind
	// PeerTruncates: the peer gives up what it has past Common, in which nothing
	// can have been acknowledged without us, or is no write at all; then it is
	// level or behind.
	PeerTruncates
	// WeTruncate: we do.
	WeTruncate
	// SplitBrain: neither may give way without an operator or a policy that he
	// set, or the one that may is Primary.
	SplitBrain
	// PeerIsNew: the peer holds nothing of any volume, all zeroes. It may be
	// filled only if the configuration or an operator declared it new.
	PeerIsNew
	// WeAreNew: we are.
	WeAreNew
	// Unrelated: they are not replicas of one volume.
	Unrelated
	// Damaged: the two histories contradict each other in what they share.
	Damaged
	// NoSource: an Inconsistent replica met one that cannot bring it up to date:
	// another Inconsistent one, or one that has not got as far as its base.
	NoSource
)

var verdictNames = []string{
	"InSync", "PeerBehind", "WeAreBehind", "PeerTruncates", "WeTruncate", "SplitBrain",
	"PeerIsNew", "WeAreNew", "Unrelated", "Damaged", "NoSource",
}

// String is the verdict's name.
func (v Verdict) String() string { return nameOf(verdictNames, v) }

// Mirror is the verdict as the other replica sees it.
func (v Verdict) Mirror() Verdict {
	switch v {
	case PeerBehind:
		return WeAreBehind
	case WeAreBehind:
		return PeerBehind
	case PeerTruncates:
		return WeTruncate
	case WeTruncate:
		return PeerTruncates
	case PeerIsNew:
		return WeAreNew
	case WeAreNew:
		return PeerIsNew
	}
	return v
}

// Class is what one side's suffix, its records past the last common one, is
// worth.
type Class uint8

const (
	// None: there is no suffix.
	None Class = iota
	// Tentative: nothing in it can have been acknowledged without the other
	// side, and the other side has not lost its memory since, or had gone on
	// without it before.
	Tentative
	// Real: it may hold writes that were acknowledged.
	Real
)

var classNames = []string{"none", "tentative", "real"}

// String is the class's name.
func (c Class) String() string { return nameOf(classNames, c) }

// A Suffix is what one side has past the last common record.
type Suffix struct {
	Class   Class
	Records uint64
	// Writes: records less generation records. A write that was cut at
	// journal.MaxPayload counts once per record.
	Writes      uint64
	First, Last LSN // 0 if there is none
}

// Side is one of the two replicas compared.
type Side uint8

const (
	Neither Side = iota
	Ours
	Theirs
)

// A Comparison is what Compare found.
type Comparison struct {
	Verdict Verdict
	// Common is the last record that both hold; 0 is the volume's beginning,
	// when both are all zeroes.
	Common LSN
	Ours   Suffix
	Theirs Suffix
	// NeedsResync: the replica that is behind (or new) is Inconsistent, in the
	// middle of a bitmap resync that has to go on; Common is at or past the
	// base that it began from.
	NeedsResync bool
	// GivesWay, where the two parted for real, is the side that has not a single
	// write to lose, if there is one. It truncates by itself (WeTruncate or
	// PeerTruncates), unless it is Primary: then the verdict is SplitBrain until
	// it is demoted.
	GivesWay Side
	// Younger, where the two parted for real, is the side that was promoted since,
	// if the other was not: that one was Primary before, or never.
	Younger Side
	// Reason is one sentence for people, from our side.
	Reason string
}

// Compare judges two replicas of a volume that meet, by the table of
// replication.md 5 and nothing else (invariant 11): no clock, no guess, no
// counter of writes. It is pure, and Compare(b, a) is the mirror image of
// Compare(a, b): the same but for the sides.
//
// Where the table leaves something open:
//
//   - A suffix is tentative by the set in its generation records, and by the other's
//     incarnation or the generation in which that went on, alone. Who is Primary decides only who keeps a tentative one:
//     against a Primary that has nothing past the common point, a tentative
//     suffix is truncated and a real one is judged like one against another.
//   - Of two real suffixes without a write the Primary's stays, and otherwise the
//     one that would stay were both tentative. One that lies below a resync base
//     is not given up.
//   - A Primary whose suffix is tentative gives way to a real one like anybody:
//     the verdict says so, and a volume that serves refuses to act on it.
//   - Two empty histories are in sync: replicas are created all zeroes. A replica
//     of this volume with an empty history, which never had a durable record, is
//     behind and not new; one that never heard of the volume is new.
//   - An Inconsistent replica counts as ending at its resync base, which nothing
//     can take back: it never leads and never truncates.
//   - Histories pruned so far that no common generation is left are Unrelated.
func Compare(ours, theirs Description) Comparison {
	if why := unrelated(&ours, &theirs); why != "" {
		return Comparison{Verdict: Unrelated, Reason: why}
	}
	a, err := standing(&ours)
	if err != nil {
		return Comparison{Verdict: Damaged, Reason: "our own description contradicts itself: " + err.Error()}
	}
	b, err := standing(&theirs)
	if err != nil {
		return Comparison{Verdict: Damaged, Reason: fmt.Sprintf("%s's description contradicts itself: %v", theirs.Node, err)}
	}
	var c Comparison
	switch {
	case len(a.history) == 0 || len(b.history) == 0:
		c = compareEmpty(a, b)
	default:
		common, k, err := Common(a.history, b.history, a.end, b.end)
		switch {
		case err != nil:
			c = Comparison{Verdict: Damaged, Reason: "the histories contradict each other: " + err.Error()}
		case k < 0:
			c = Comparison{Verdict: Unrelated, Reason: "the two histories have no generation in common"}
		default:
			c = compareSuffixes(a, b, common)
		}
	}
	if c.Reason == "" {
		c.Reason = c.explain(&ours, &theirs)
	}
	return c
}

// unrelated says why the two cannot be replicas of one volume, "" if they can.
func unrelated(ours, theirs *Description) string {
	switch {
	case ours.Name != theirs.Name:
		return fmt.Sprintf("our volume is named %q, theirs %q", ours.Name, theirs.Name)
	case !ours.Volume.IsZero() && !theirs.Volume.IsZero() && ours.Volume != theirs.Volume:
		return fmt.Sprintf("our volume has id %v, theirs %v: they were created separately", ours.Volume, theirs.Volume)
	case ours.Size != theirs.Size:
		return fmt.Sprintf("our replica has %d bytes, theirs %d", ours.Size, theirs.Size)
	case ours.Node == theirs.Node:
		return fmt.Sprintf("both nodes are named %q", ours.Node)
	}
	return ""
}

// A position in the comparison: one replica and where it stands.
type stance struct {
	*Description
	history History // ends at end
	end     LSN
}

// standing is where a replica stands: at its journal's end, or at its resync
// base.
func standing(d *Description) (stance, error) {
	s := stance{Description: d, history: d.History.CutTo(d.End), end: d.End}
	if d.Volume.IsZero() && len(d.History) > 0 {
		return s, errors.New("there is a history but no volume id")
	}
	if d.Resync == nil {
		if len(s.history) == 0 && (d.End != 0 || d.History.pruned()) {
			return s, fmt.Errorf("the journal ends at LSN %d, before the history's first generation", d.End)
		}
		return s, nil
	}
	base := d.Resync.Base
	s.history, s.end = d.History.CutTo(base.LSN), base.LSN
	if !s.history.Holds(base, base.LSN) {
		return s, fmt.Errorf("the resync base, LSN %d of generation %v, is not in the history", base.LSN, base.Generation)
	}
	return s, nil
}

// leads reports whether others may be brought up to date from s.
func (s stance) leads() bool { return s.Resync == nil }

// compareEmpty judges two replicas of which at least one holds no record.
func compareEmpty(a, b stance) Comparison {
	c := Comparison{Ours: suffixOf(a, b, 0), Theirs: suffixOf(b, a, 0)}
	switch {
	case a.Volume.IsZero() && len(b.history) > 0:
		c.Verdict, c.NeedsResync = WeAreNew, !a.leads()
	case b.Volume.IsZero() && len(a.history) > 0:
		c.Verdict, c.NeedsResync = PeerIsNew, !b.leads()
	default:
		return compareSuffixes(a, b, 0)
	}
	return c
}

// compareSuffixes is the table of replication.md 5.
func compareSuffixes(a, b stance, common LSN) Comparison {
	c := Comparison{Common: common, Ours: suffixOf(a, b, common), Theirs: suffixOf(b, a, common)}
	switch {
	case !a.leads() || !b.leads():
		c.judgeInconsistent(a, b)
	case c.Ours.Class == None && c.Theirs.Class == None:
		c.Verdict = InSync
	case c.Ours.Class == None && a.Role != Primary:
		c.Verdict = WeAreBehind
	case c.Theirs.Class == None && b.Role != Primary:
		c.Verdict = PeerBehind
	case c.Ours.Class == None && c.Theirs.Class == Tentative:
		c.Verdict = PeerTruncates
	case c.Theirs.Class == None && c.Ours.Class == Tentative:
		c.Verdict = WeTruncate
	case c.Ours.Class == Tentative && c.Theirs.Class == Tentative:
		c.Verdict = PeerTruncates
		if stays(a, b) == Theirs {
			c.Verdict = WeTruncate
		}
	case c.Ours.Class == Tentative:
		c.Verdict = WeTruncate
	case c.Theirs.Class == Tentative:
		c.Verdict = PeerTruncates
	default:
		c.judgeParted(a, b)
	}
	return c
}

// judgeParted: neither suffix is tentative. One without a single write is given
// up all the same: whoever holds it wrote nothing that the other lacks, and a
// generation record changes no byte of a store. A Primary never gives way: it
// may be writing while the histories are compared, and has clients.
func (c *Comparison) judgeParted(a, b stance) {
	c.Verdict, c.GivesWay = SplitBrain, c.withoutWrites(a, b)
	switch ours, theirs := a.promotedPast(c.Common), b.promotedPast(c.Common); {
	case ours && !theirs:
		c.Younger = Ours
	case theirs && !ours:
		c.Younger = Theirs
	}
	switch {
	case c.GivesWay == Ours && a.Role != Primary:
		c.Verdict = WeTruncate
	case c.GivesWay == Theirs && b.Role != Primary:
		c.Verdict = PeerTruncates
	}
}

// judgeInconsistent: an Inconsistent replica is brought up to date by one that
// has its base, and by no other.
func (c *Comparison) judgeInconsistent(a, b stance) {
	switch {
	case !a.leads() && !b.leads():
		c.Verdict = NoSource
	case !b.leads():
		c.Verdict = brings(c.Ours.Class, c.Theirs.Class)
	default:
		c.Verdict = brings(c.Theirs.Class, c.Ours.Class).Mirror()
	}
	c.NeedsResync = c.Verdict == WeAreBehind || c.Verdict == PeerBehind
}

// brings is the source's verdict on a target, by what each has past the common
// point.
func brings(source, target Class) Verdict {
	switch {
	case target == None:
		return PeerBehind
	case source == None:
		return NoSource
	}
	return SplitBrain
}

// suffixOf is what s has past common, as against other.
func suffixOf(s, other stance, common LSN) Suffix {
	if s.end <= common {
		return Suffix{}
	}
	x := Suffix{
		Class:   Real,
		Records: uint64(s.end - common),
		Writes:  s.history.Writes(common+1, s.end),
		First:   common + 1,
		Last:    s.end,
	}
	if s.mayGiveUp(common, other) {
		x.Class = Tentative
	}
	return x
}

// mayGiveUp reports whether everything past common is tentative: written in
// generations that waited for other, which never had it and has not forgotten that
// it did, and not known to be stable.
func (s stance) mayGiveUp(common LSN, other stance) bool {
	if !s.leads() || common < s.Stable {
		return false
	}
	first := s.history.index(common + 1)
	if first < 0 {
		return false
	}
	for i := range s.history[first:] {
		g := &s.history[first+i]
		k, waited := setIndex(g.Set, other.Node)
		if !waited || g.Set[k].Incarnation != other.Incarnation && !other.neverHad(common, g.Set[k], g.Epoch) {
			return false
		}
	}
	return true
}

// neverHad reports whether s, when it was m, went on alone right past common, in a
// higher epoch than the given one: so it had no record there by then, acknowledges
// nothing of an older epoch since, and that it lost its memory later takes nothing
// of that away.
func (s stance) neverHad(common LSN, m Member, epoch uint64) bool {
	i := s.history.index(common + 1)
	if i < 0 {
		return false
	}
	g := &s.history[i]
	return g.First == common+1 && g.Epoch > epoch && len(g.Set) == 1 && g.Set[0] == m
}

// stays decides between two suffixes that either could give up: the higher
// epoch, else the Primary, else the longer, else the higher node name.
func stays(a, b stance) Side {
	ea, eb := a.history.Last().Epoch, b.history.Last().Epoch
	ours := false
	switch {
	case ea != eb:
		ours = ea > eb
	case a.Role != b.Role:
		ours = a.Role == Primary
	case a.end != b.end:
		ours = a.end > b.end
	default:
		ours = strings.Compare(a.Node, b.Node) > 0
	}
	if ours {
		return Ours
	}
	return Theirs
}

// promotedPast reports whether the first generation that begins past common began
// with a promotion: its epoch is a higher one.
func (s stance) promotedPast(common LSN) bool {
	i := s.history.index(common) + 1
	if i >= len(s.history) {
		return false
	}
	return i == 0 || s.history[i].Epoch > s.history[i-1].Epoch
}

// withoutWrites is the side whose real suffix is generation records only; if both
// are, the one that is not Primary, or does not stay.
func (c *Comparison) withoutWrites(a, b stance) Side {
	ours := c.Ours.Class == Real && c.Ours.Writes == 0
	theirs := c.Theirs.Class == Real && c.Theirs.Writes == 0
	switch {
	case ours && theirs && a.Role != b.Role:
		ours = a.Role != Primary
	case ours && theirs:
		ours = stays(a, b) == Theirs
	}
	switch {
	case ours:
		return Ours
	case theirs:
		return Theirs
	}
	return Neither
}
