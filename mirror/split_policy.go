package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SplitPolicies are what an operator has a split-brain settled by, in which both
// sides wrote: DRBD's policies, by its names and with its meanings. "" is
// "disconnect": nothing is settled by itself. The two nodes have to be told the
// same, else nothing is.
//
// A side without a single write needs no policy: it gives way as soon as it is
// not Primary (Compare).
type SplitPolicies struct {
	// ZeroPri, after-sb-0pri, is for two Secondaries: "discard-younger-primary"
	// and "discard-older-primary" give up the side that was promoted after the two
	// parted, or the one that was Primary before; where neither or both were
	// promoted since, they do nothing. "discard-zero-changes" gives up the side
	// that wrote nothing, and "discard-node-NODE" that node's.
	ZeroPri string
	// OnePri, after-sb-1pri, is for one Primary: "discard-secondary" gives up the
	// other; "consensus" does if ZeroPri would; "call-pri-lost-after-sb" does what
	// ZeroPri would, and has a Primary that is to give up demoted.
	OnePri string
	// TwoPri, after-sb-2pri, is for two: "call-pri-lost-after-sb" has the one
	// demoted that ZeroPri would give up.
	TwoPri string
}

// Names of policies.
const (
	policyDisconnect       = "disconnect"
	policyYoungerPrimary   = "discard-younger-primary"
	policyOlderPrimary     = "discard-older-primary"
	policyZeroChanges      = "discard-zero-changes"
	policyNodePrefix       = "discard-node-"
	policyConsensus        = "consensus"
	policyDiscardSecondary = "discard-secondary"
	policyPrimaryLost      = "call-pri-lost-after-sb"
)

// splitSettings are the settings by their names in a configuration, what each may
// be, and what DRBD knows besides and we do not do, with the reason. rr-conflict,
// for two that are no split-brain, but of which the Primary would have to give way,
// can be nothing but the default, and is not kept.
var splitSettings = []struct {
	name    string
	of      func(*SplitPolicies) *string
	known   []string
	refused map[string]string
}{
	{"after-sb-0pri", func(p *SplitPolicies) *string { return &p.ZeroPri },
		[]string{policyDisconnect, policyYoungerPrimary, policyOlderPrimary, policyZeroChanges, policyNodePrefix + "NODE"},
		map[string]string{
			"discard-least-changes": "which side changed fewer blocks is not known exactly once writes have left the journal",
		}},
	{"after-sb-1pri", func(p *SplitPolicies) *string { return &p.OnePri },
		[]string{policyDisconnect, policyConsensus, policyDiscardSecondary, policyPrimaryLost},
		map[string]string{"violently-as0p": violently}},
	{"after-sb-2pri", func(p *SplitPolicies) *string { return &p.TwoPri },
		[]string{policyDisconnect, policyPrimaryLost},
		map[string]string{"violently-as0p": violently}},
	{"rr-conflict", func(*SplitPolicies) *string { return new(string) },
		[]string{policyDisconnect},
		map[string]string{
			"violently":     violently,
			"call-pri-lost": "the writes of such a Primary wait for its peer, and a demotion would wait with them",
			"retry-connect": "a Primary that its peer refuses goes on alone, and then the two are a split-brain, which after-sb-1pri and after-sb-2pri are for",
			"auto-discard":  "it would give up writes of the peer that may have been acknowledged",
		}},
}

const violently = "it would change the volume under the Primary's clients; " + policyPrimaryLost + " disconnects them first"

// SplitSettings are the names of the policies' settings.
func SplitSettings() []string {
	var names []string
	for _, s := range splitSettings {
		names = append(names, s.name)
	}
	return names
}

// Set sets a policy by the setting's name. Its error says what may stand there,
// and of a policy of DRBD's that is not known here why not.
func (p *SplitPolicies) Set(setting, policy string) error {
	for _, s := range splitSettings {
		if s.name != setting {
			continue
		}
		if why, ok := s.refused[policy]; ok {
			return fmt.Errorf("%q is not done: %s", policy, why)
		}
		node, isNode := strings.CutPrefix(policy, policyNodePrefix)
		byNode := slices.Contains(s.known, policyNodePrefix+"NODE") && isNode && node != ""
		if policy != "" && !byNode && !slices.Contains(s.known, policy) {
			return fmt.Errorf("%q is no policy: one of %s is wanted", policy, strings.Join(s.known, ", "))
		}
		*s.of(p) = policy
		return nil
	}
	return fmt.Errorf("%q is no setting for a split-brain: one of %s is wanted", setting, strings.Join(SplitSettings(), ", "))
}

// Discards is the node that ZeroPri gives up by name, "" if it names none.
func (p *SplitPolicies) Discards() string {
	node, ok := strings.CutPrefix(p.ZeroPri, policyNodePrefix)
	if !ok {
		return ""
	}
	return node
}

// validate checks every policy; nodes are those that hold the volume.
func (p *SplitPolicies) validate(nodes []string) error {
	var errs []error
	for _, s := range splitSettings {
		var scratch SplitPolicies
		if err := scratch.Set(s.name, *s.of(p)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	if node := p.Discards(); node != "" && !slices.Contains(nodes, node) {
		errs = append(errs, fmt.Errorf("after-sb-0pri: node %q does not hold the volume; these do: %s", node, strings.Join(nodes, ", ")))
	}
	return errors.Join(errs...)
}

// normal is p with the default in place of "".
func (p SplitPolicies) normal() SplitPolicies {
	for _, s := range splitSettings {
		if v := s.of(&p); *v == "" {
			*v = policyDisconnect
		}
	}
	return p
}

// A splitParty is what one side brings to the settlement of a split-brain.
type splitParty struct {
	node     string
	role     Role
	whole    bool // not in the middle of a resync
	policies SplitPolicies
	keep     string // whose writes an operator wants to keep; "" if none said so
	discard  bool   // and that the other's are kept nowhere
}

// A settlement says who gives up what it wrote.
type settlement struct {
	loser Side
	// demote: a policy wants the loser demoted first.
	demote bool
	// discard: what the loser wrote is kept nowhere, an operator said.
	discard bool
	reason  string // one sentence: why, or why nobody does
}

// settleSplit decides by an operator's word, else by the policies, who gives up
// its side of a split-brain. It is pure, and the mirror image on the other side.
func settleSplit(c *Comparison, ours, theirs *splitParty) settlement {
	const byHand = "look at both sides with 'lockstep split show', and settle it with 'lockstep split resolve'"
	if !ours.whole || !theirs.whole {
		return settlement{reason: "one of them is in the middle of a resync: delete that one's replica and create it anew"}
	}
	loser, words := Neither, 0
	for _, keep := range []string{ours.keep, theirs.keep} {
		switch keep {
		case "":
			continue
		case ours.node:
			loser = Theirs
		case theirs.node:
			loser = Ours
		}
		words++
	}
	if words == 2 && ours.keep != theirs.keep {
		return settlement{reason: "an operator wants each side kept: " + byHand}
	}
	if loser != Neither {
		s := settled(loser, ours, theirs, false, "so it was decided")
		s.discard = ours.discard || theirs.discard
		return s
	}
	p := ours.policies.normal()
	if q := theirs.policies.normal(); p != q {
		return settlement{reason: "the two nodes have different policies: " + byHand}
	}
	primaries := 0
	for _, x := range []*splitParty{ours, theirs} {
		if x.role == Primary {
			primaries++
		}
	}
	secondary := Theirs
	if theirs.role == Primary {
		secondary = Ours
	}
	zero := zeroPri(c, p.ZeroPri, ours, theirs)
	setting, policy := "after-sb-0pri", p.ZeroPri
	switch primaries {
	case 0:
		loser = zero
	case 1:
		setting, policy = "after-sb-1pri", p.OnePri
		switch {
		case policy == policyDiscardSecondary, policy == policyConsensus && zero == secondary:
			loser = secondary
		case policy == policyPrimaryLost:
			loser = zero
		}
	case 2:
		setting, policy = "after-sb-2pri", p.TwoPri
		if policy == policyPrimaryLost {
			loser = zero
		}
	}
	switch {
	case loser != Neither:
		return settled(loser, ours, theirs, true, setting+" is "+policy)
	case policy == policyDisconnect:
		return settlement{reason: byHand}
	}
	return settlement{reason: fmt.Sprintf("%s, %s, does not settle it: %s", setting, policy, byHand)}
}

// zeroPri is the side that after-sb-0pri gives up.
func zeroPri(c *Comparison, policy string, ours, theirs *splitParty) Side {
	node, byNode := strings.CutPrefix(policy, policyNodePrefix)
	switch {
	case byNode && node == ours.node:
		return Ours
	case byNode && node == theirs.node:
		return Theirs
	case policy == policyYoungerPrimary:
		return c.Younger
	case policy == policyOlderPrimary:
		return c.Younger.other()
	case policy == policyZeroChanges:
		return c.GivesWay
	}
	return Neither
}

// settled has the loser give up. A Primary does only if it is demoted first,
// which a policy may have done, and an operator does himself.
func settled(loser Side, ours, theirs *splitParty, byPolicy bool, why string) settlement {
	x, kept := ours, theirs
	if loser == Theirs {
		x, kept = theirs, ours
	}
	s := settlement{loser: loser, reason: fmt.Sprintf("%s gives up what it wrote, and is resynced from %s: %s", x.node, kept.node, why)}
	if x.role == Primary {
		s.demote = byPolicy
		if !byPolicy {
			s.loser = Neither
			s.reason = fmt.Sprintf("%s is to give up what it wrote, and is Primary: demote it there, and connect the two again", x.node)
		}
	}
	return s
}

// other is the other side.
func (s Side) other() Side {
	switch s {
	case Ours:
		return Theirs
	case Theirs:
		return Ours
	}
	return Neither
}
