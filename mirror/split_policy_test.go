package mirror

import (
	"strings"
	"testing"
)

// everySettlement calls f with each combination of what a settlement depends on.
func everySettlement(f func(c *Comparison, a, b *splitParty)) (n int) {
	zero := []string{"", "disconnect", "discard-younger-primary", "discard-older-primary", "discard-zero-changes", "discard-node-a", "discard-node-b", "discard-node-z"}
	one := []string{"", "disconnect", "consensus", "discard-secondary", "call-pri-lost-after-sb"}
	two := []string{"", "disconnect", "call-pri-lost-after-sb"}
	var policies []SplitPolicies
	for _, z := range zero {
		for _, o := range one {
			for _, w := range two {
				policies = append(policies, SplitPolicies{ZeroPri: z, OnePri: o, TwoPri: w})
			}
		}
	}
	sides := []Side{Neither, Ours, Theirs}
	for i, p := range policies {
		for _, q := range []SplitPolicies{p, policies[(i+1)%len(policies)]} {
			for bits := range 16 {
				for _, keepA := range []string{"", "a", "b"} {
					for _, keepB := range []string{"", "a", "b"} {
						for _, gives := range sides {
							for _, younger := range sides {
								c := &Comparison{Verdict: SplitBrain, GivesWay: gives, Younger: younger}
								a := &splitParty{node: "a", role: Role(bits & 1), whole: bits&2 == 0, policies: p, keep: keepA}
								b := &splitParty{node: "b", role: Role(bits >> 2 & 1), whole: bits&8 == 0, policies: q, keep: keepB}
								f(c, a, b)
								n++
							}
						}
					}
				}
			}
		}
	}
	return n
}

// Over every combination: both sides decide the same; an operator's word comes
// first, and needs no policy; nobody who is Primary gives up anything without
// being demoted, which no word of a remote operator does; and what is not asked
// for is not done.
func TestSettlements(t *testing.T) {
	counts := map[string]int{}
	n := everySettlement(func(c *Comparison, a, b *splitParty) {
		mirrored := &Comparison{Verdict: SplitBrain, GivesWay: c.GivesWay.other(), Younger: c.Younger.other()}
		s, r := settleSplit(c, a, b), settleSplit(mirrored, b, a)
		wrong := func(what string) {
			t.Helper()
			t.Fatalf("%s: %+v and %+v\n gives way %v, younger %v\n %+v\n %+v", what, s, r, c.GivesWay, c.Younger, *a, *b)
		}
		if s.loser != r.loser.other() || s.demote != r.demote || s.reason != r.reason || s.reason == "" {
			wrong("not mirror images")
		}
		loser := map[Side]*splitParty{Ours: a, Theirs: b}[s.loser]
		words := a.keep != "" || b.keep != ""
		contradict := a.keep != "" && b.keep != "" && a.keep != b.keep
		same := a.policies.normal() == b.policies.normal()
		primaries := int(a.role) + int(b.role)
		p := a.policies.normal()
		policy := []string{p.ZeroPri, p.OnePri, p.TwoPri}[primaries]
		switch {
		case !a.whole || !b.whole || contradict:
			if loser != nil {
				wrong("settled though it cannot be")
			}
		case words:
			counts["by word"]++
			keep := a.keep + b.keep
			asked := a
			if keep[0] == 'a' {
				asked = b
			}
			if asked.role == Primary && loser != nil || asked.role == Secondary && (loser != asked || s.demote) {
				wrong("not as the operator said")
			}
		case !same || policy == "disconnect":
			if loser != nil {
				wrong("settled though nobody asked")
			}
		case loser != nil:
			counts[policy]++
			if s.demote != (loser.role == Primary) {
				wrong("a Primary gives up without being demoted, or a Secondary is demoted")
			}
			if loser.role == Primary && policy != "call-pri-lost-after-sb" {
				wrong("a Primary is demoted without that policy")
			}
			if (policy == "consensus" || policy == "discard-secondary") && loser.role == Primary {
				wrong("the Primary gives up")
			}
			if policy != "discard-secondary" && s.loser != byZeroPri(p.ZeroPri, c) {
				wrong("not the one that after-sb-0pri names")
			}
		case primaries == 0 && byZeroPri(policy, c) != Neither, primaries == 1 && policy == "discard-secondary",
			policy == "call-pri-lost-after-sb" && byZeroPri(p.ZeroPri, c) != Neither:
			wrong("not settled though the policy says so")
		}
	})
	t.Logf("%d combinations, settled %v", n, counts)
	for _, policy := range []string{"by word", "discard-younger-primary", "discard-older-primary", "discard-zero-changes", "discard-node-a", "consensus", "discard-secondary", "call-pri-lost-after-sb"} {
		if counts[policy] == 0 {
			t.Errorf("%s settled nothing", policy)
		}
	}
}

// byZeroPri is after-sb-0pri as DRBD's manual has it.
func byZeroPri(policy string, c *Comparison) Side {
	return map[string]Side{
		"discard-younger-primary": c.Younger, "discard-older-primary": c.Younger.other(), "discard-zero-changes": c.GivesWay,
		"discard-node-a": Ours, "discard-node-b": Theirs,
	}[policy]
}

// What is not done is refused with the reason, and what nobody knows with what
// there is.
func TestSplitPolicyNames(t *testing.T) {
	for _, row := range []struct{ setting, policy, want string }{
		{"after-sb-0pri", "disconnect", ""},
		{"after-sb-0pri", "", ""},
		{"after-sb-0pri", "discard-node-b", ""},
		{"after-sb-0pri", "discard-node-", "no policy"},
		{"after-sb-0pri", "discard-least-changes", "not known exactly"},
		{"after-sb-0pri", "consensus", "discard-younger-primary, discard-older-primary"},
		{"after-sb-1pri", "discard-secondary", ""},
		{"after-sb-1pri", "violently-as0p", "under the Primary's clients"},
		{"after-sb-1pri", "discard-node-b", "no policy"},
		{"after-sb-2pri", "call-pri-lost-after-sb", ""},
		{"after-sb-2pri", "discard-secondary", "no policy"},
		{"after-sb-2pri", "violently-as0p", "under the Primary's clients"},
		{"rr-conflict", "disconnect", ""},
		{"rr-conflict", "retry-connect", "goes on alone"},
		{"rr-conflict", "call-pri-lost", "would wait"},
		{"rr-conflict", "auto-discard", "acknowledged"},
		{"rr-conflict", "violently", "under the Primary's clients"},
		{"after-sb-3pri", "disconnect", "no setting"},
	} {
		var p SplitPolicies
		err := p.Set(row.setting, row.policy)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s %s: %v, want %q", row.setting, row.policy, err, row.want)
		}
	}
	p := SplitPolicies{ZeroPri: "discard-node-c"}
	if err := p.validate([]string{"a", "b"}); err == nil || !strings.Contains(err.Error(), `node "c" does not hold the volume`) {
		t.Errorf("%v", err)
	}
	if err := p.validate([]string{"a", "c"}); err != nil {
		t.Error(err)
	}
}

// Younger is the side that was promoted since, if the other was not.
func TestYounger(t *testing.T) {
	set := func(nodes ...string) (s []Member) {
		for _, n := range nodes {
			s = setWith(s, Member{n, 1})
		}
		return s
	}
	base := History{{ID: ID{1}, First: 1, Epoch: 1, Set: set("a", "b")}}
	grow := func(id byte, first LSN, epoch uint64, node string) History {
		h, err := base.Append(Generation{ID: ID{id}, Parent: ID{1}, First: first, Epoch: epoch, Set: set(node)})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	side := func(node string, h History, end LSN) Description {
		return Description{Node: node, Name: "v", Volume: ID{9}, History: h, End: end, Durable: end, Incarnation: 1}
	}
	for _, row := range []struct {
		what string
		a, b Description
		want Side
	}{
		{"a went on, b was promoted", side("a", grow(2, 11, 1, "a"), 20), side("b", grow(3, 9, 2, "b"), 20), Theirs},
		{"b went on, a was promoted", side("a", grow(2, 11, 2, "a"), 20), side("b", grow(3, 11, 1, "b"), 20), Ours},
		{"both were promoted", side("a", grow(2, 11, 2, "a"), 20), side("b", grow(3, 11, 3, "b"), 20), Neither},
		{"neither was", side("a", grow(2, 11, 1, "a"), 20), side("b", grow(3, 11, 1, "b"), 20), Neither},
	} {
		c, m := Compare(row.a, row.b), Compare(row.b, row.a)
		if c.Verdict != SplitBrain || c.Younger != row.want {
			t.Errorf("%s: %v, younger %v, want %v", row.what, c.Verdict, c.Younger, row.want)
		}
		if err := mirrored(c, m); err != nil {
			t.Errorf("%s: %v", row.what, err)
		}
	}
}
