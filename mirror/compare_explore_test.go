package mirror

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// check holds the verdict against the records. It returns what is wrong.
func (m *model) check(b bug, ab, ba Comparison) error {
	n, o := &m.node[0], &m.node[1]
	var common uint8
	for common < min(n.end, o.end) && n.journal[common] == o.journal[common] {
		common++
	}
	onlyA, onlyB := n.records(common, n.end), o.records(common, o.end)
	ackedA, ackedB := onlyA&m.acked != 0, onlyB&m.acked != 0
	wrong := func(format string, args ...any) error {
		return fmt.Errorf(format+"\n  %v of %d: %s\n  a: %v\n  b: %v", append(args, ab.Verdict, ab.Common, ab.Reason, n, o)...)
	}
	switch v := ab.Verdict; {
	case ackedA && ackedB && v != SplitBrain:
		return wrong("S: both hold acknowledged writes that the other lacks")
	case v == WeAreBehind && onlyA != 0 || v == PeerBehind && onlyB != 0:
		return wrong("B: the one behind holds what the other lacks")
	case v == InSync && (onlyA != 0 || onlyB != 0):
		return wrong("I: in sync, but the journals differ")
	case v == WeTruncate && ackedA || v == PeerTruncates && ackedB:
		return wrong("T: an acknowledged write would be cut")
	case ab.Common != LSN(common):
		return wrong("C: the common prefix has %d records", common)
	case v == WeTruncate && ab.Ours.Class == Real && (onlyA&^m.isGen != 0 || n.primary),
		v == PeerTruncates && ab.Theirs.Class == Real && (onlyB&^m.isGen != 0 || o.primary):
		return wrong("G: a side that wrote, or is Primary, gives way unasked")
	case v == SplitBrain && (onlyA&^m.isGen == 0 && !n.primary || onlyB&^m.isGen == 0 && !o.primary):
		return wrong("Z: a side without a write, and without the role, does not give way")
	case v > SplitBrain:
		return wrong("D: nothing is new, foreign or damaged here")
	case b == sound && (ab.Ours.Writes != m.countWrites(n, common) || ab.Theirs.Writes != m.countWrites(o, common)):
		return wrong("W: writes past the common point are %d and %d", m.countWrites(n, common), m.countWrites(o, common))
	}
	if err := mirrored(ab, ba); err != nil {
		return wrong("M: %w", err)
	}
	return nil
}

func (m *model) countWrites(n *modelNode, from uint8) (writes uint64) {
	for _, r := range n.journal[from:n.end] {
		if m.isGen&(1<<r) == 0 {
			writes++
		}
	}
	return writes
}

// mirrored checks that two views of one meeting are each other's mirror image.
func mirrored(ab, ba Comparison) error {
	if ab.Verdict != ba.Verdict.Mirror() || ab.Common != ba.Common || ab.Ours != ba.Theirs || ab.Theirs != ba.Ours ||
		ab.NeedsResync != ba.NeedsResync || ab.GivesWay != ba.GivesWay.other() || ab.Younger != ba.Younger.other() {
		return fmt.Errorf("not mirror images:\n  %+v\n  %+v", ab, ba)
	}
	return nil
}

// canonical renumbers records and generations by where they first stand, and
// forgets what can no longer matter, so that states that differ in nothing else
// are one.
func (m model) canonical() model {
	var records, gens [32]uint8 // new number plus one
	var acked, isGen uint32
	m.records, m.gens = 0, 0
	for i := range m.node {
		n := &m.node[i]
		if m.losses == 0 {
			n.durable, n.keptGen = n.end, n.gens
		}
		for k, r := range n.journal[:n.end] {
			if records[r] == 0 {
				acked |= m.acked >> r & 1 << m.records
				isGen |= m.isGen >> r & 1 << m.records
				m.records++
				records[r] = m.records
			}
			n.journal[k] = records[r] - 1
		}
		for k := range n.history[:n.gens] {
			g := &n.history[k]
			if gens[g.id] == 0 {
				m.gens++
				gens[g.id] = m.gens
			}
			g.id = gens[g.id]
		}
	}
	m.acked, m.isGen = acked, isGen
	return m
}

// explore visits every state that start leads to and returns how many there are,
// which verdicts they gave, and the shortest way to a wrong one.
func explore(start model, b bug) (states int, verdicts map[Verdict]int, err error) {
	type visit struct {
		parent int
		label  string
	}
	order, how := []model{start.canonical()}, []visit{{-1, "start"}}
	seen := map[model]struct{}{order[0]: {}}
	verdicts = make(map[Verdict]int)
	for k := 0; k < len(order); k++ {
		m := order[k]
		ab, ba := m.compare(b)
		verdicts[ab.Verdict]++
		if err := m.check(b, ab, ba); err != nil {
			var trace string
			for ; k >= 0; k = how[k].parent {
				trace = "  " + how[k].label + "\n" + trace
			}
			return len(order), verdicts, fmt.Errorf("after\n%s%w", trace, err)
		}
		for _, s := range m.steps(b, ab, ba) {
			next := s.canonical()
			if _, ok := seen[next]; !ok {
				seen[next] = struct{}{}
				order, how = append(order, next), append(how, visit{k, s.label})
			}
		}
	}
	return len(order), verdicts, nil
}

// budgets to explore: a second's worth, or the one that LOCKSTEP_HISTORIES gives
// as writes,promotions,joins,losses. 2,2,1,1 takes some seconds, 2,2,1,2 a minute
// and 3 GB.
func budgets(t *testing.T) []budget {
	s := os.Getenv("LOCKSTEP_HISTORIES")
	if s == "" {
		return []budget{{2, 2, 0, 1}, {1, 2, 1, 1}, {2, 2, 1, 0}}
	}
	var b budget
	if _, err := fmt.Sscanf(s, "%d,%d,%d,%d", &b.writes, &b.promotions, &b.joins, &b.losses); err != nil {
		t.Fatalf("LOCKSTEP_HISTORIES=%q: %v", s, err)
	}
	// A promotion and a join may each be followed by a drop.
	gens := 2*b.promotions + 2*b.joins + 2
	if b.writes+gens > modelRecords || gens > modelGenerations {
		t.Fatalf("LOCKSTEP_HISTORIES=%q is beyond the model's arrays", s)
	}
	return []budget{b}
}

// TestHistoryTellsAll is invariant 11: over every pair of histories within the
// budget, the verdict never merges, drops or overwrites what one side may have
// acknowledged, finds the common point exactly, and is the same from both sides.
func TestHistoryTellsAll(t *testing.T) {
	unraced(t)
	t.Parallel()
	for _, b := range budgets(t) {
		t.Run(b.String(), func(t *testing.T) {
			states, verdicts, err := explore(newModel(b), sound)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states, verdicts %v", states, verdicts)
			for v := InSync; v <= SplitBrain; v++ {
				if verdicts[v] == 0 {
					t.Errorf("no state gave %v: the exploration shows nothing about it", v)
				}
			}
		})
	}
}

// TestHistoryTellsAllFindsBugs shows that the exploration finds what each rule
// is for, and by which check.
func TestHistoryTellsAllFindsBugs(t *testing.T) {
	for b, check := range map[bug]string{
		resume: "S", lostHistory: "T", noTrim: "I", lengthOnly: "I", aloneLost: "T", noCut: "T", noAlone: "T", noSync: "T",
		fewest: "S", primaryToo: "G", neverGives: "Z", staleSelf: "T",
	} {
		t.Run(string(b), func(t *testing.T) {
			states, _, err := explore(newModel(budget{2, 2, 1, 1}), b)
			if err == nil {
				t.Fatalf("%d states, nothing found", states)
			}
			if !strings.Contains(err.Error(), "\n"+check+": ") {
				t.Errorf("not found by check %s", check)
			}
			t.Logf("%d states: %v", states, err)
		})
	}
}
