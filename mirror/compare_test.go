package mirror

import (
	"strings"
	"testing"
)

// gen is a generation whose set is members: a node's letter and its incarnation's
// digit each, such as "a1 b1".
func gen(id byte, first LSN, members string) Generation {
	g := Generation{ID: ID{id}, First: first}
	for m := range strings.FieldsSeq(members) {
		g.Set = append(g.Set, Member{Node: m[:1], Incarnation: uint64(m[1] - '0')})
	}
	return g
}

// history chains generations to their parents.
func history(gens ...Generation) History {
	var h History
	for _, g := range gens {
		if last := h.Last(); last != nil {
			g.Parent = last.ID
		}
		h = append(h, g)
	}
	return h
}

// replica is a description of who ("a1": node a in incarnation 1), whose journal
// ends at end.
func replica(who string, end LSN, gens ...Generation) Description {
	return Description{
		Node: who[:1], Incarnation: uint64(who[1] - '0'),
		Volume: ID{9}, Name: "v", Size: 1 << 20, End: end, Durable: end, History: history(gens...),
	}
}

func (g Generation) of(epoch uint64) Generation { g.Epoch = epoch; return g }

func (d Description) as(r Role) Description          { d.Role = r; return d }
func (d Description) stable(lsn LSN) Description     { d.Stable = lsn; return d }
func (d Description) volume(id byte) Description     { d.Volume = ID{id}; return d }
func (d Description) epoch(epoch uint64) Description { d.History.Last().Epoch = epoch; return d }
func (d Description) resyncing(p Position) Description {
	d.Disk, d.Resync = Inconsistent, &ResyncMark{Base: p, Source: "x"}
	return d
}

// TestCompareTable has a row for every row of replication.md 5's table, and for
// what the table leaves open. Each is judged from both sides.
func TestCompareTable(t *testing.T) {
	both := gen(1, 1, "a1 b1")
	empty := replica("b1", 0)
	for _, row := range []struct {
		name   string
		a, b   Description
		want   Verdict
		common LSN
		ours   Class
		theirs Class
	}{
		{"one empty, of no volume: new", replica("a1", 10, both), empty.volume(0), PeerIsNew, 0, Tentative, None},
		{"one empty, of this volume: behind", replica("a1", 10, both), empty, PeerBehind, 0, Tentative, None},
		{"both empty", replica("a1", 0), empty, InSync, 0, None, None},
		{"both empty, of no volume", replica("a1", 0).volume(0), empty.volume(0), InSync, 0, None, None},
		{"a history without its first record counts as empty", replica("a1", 0, both), empty.volume(0), InSync, 0, None, None},
		{"no common entry, both non-empty", replica("a1", 10, gen(1, 1, "a1")), replica("b1", 10, gen(2, 1, "b1")), Unrelated, 0, None, None},
		{"another volume", replica("a1", 10, both), replica("b1", 10, both).volume(8), Unrelated, 0, None, None},
		{"same id with another first LSN", replica("a1", 10, both, gen(2, 5, "a1 b1")), replica("b1", 10, both, gen(2, 6, "a1 b1")), Damaged, 0, None, None},
		{"same id with another set", replica("a1", 10, both), replica("b1", 10, gen(1, 1, "b1")), Damaged, 0, None, None},
		{"a common generation with another parent", replica("a1", 10, gen(1, 1, "a1"), gen(3, 5, "a1")), replica("b1", 10, gen(2, 1, "b1"), gen(3, 5, "a1")), Damaged, 0, None, None},
		{"journal before the history", replica("a1", 3, gen(1, 5, "a1")), replica("b1", 10, both), Damaged, 0, None, None},
		{"none, none", replica("a1", 10, both), replica("b1", 10, both), InSync, 10, None, None},
		{"none, some", replica("a1", 10, both), replica("b1", 12, both), WeAreBehind, 10, None, Tentative},
		{"none, some real", replica("a1", 10, both), replica("b1", 12, both, gen(2, 11, "b1")), WeAreBehind, 10, None, Real},
		{"some, none", replica("a1", 12, both), replica("b1", 10, both), PeerBehind, 10, Tentative, None},
		{"some tentative, none but Primary", replica("a1", 12, both), replica("b1", 10, both).as(Primary), WeTruncate, 10, Tentative, None},
		{"some real, none but Primary", replica("a1", 12, both, gen(2, 11, "a1")), replica("b1", 10, both).as(Primary), SplitBrain, 10, Real, None},
		{"tentative, real", replica("a1", 12, both), replica("b1", 11, both, gen(2, 11, "b1")), WeTruncate, 10, Tentative, Real},
		{"tentative and Primary, real", replica("a1", 12, both).as(Primary), replica("b1", 11, both, gen(2, 11, "b1")), WeTruncate, 10, Tentative, Real},
		{"real, tentative", replica("a1", 12, both, gen(2, 11, "a1")), replica("b1", 11, both), PeerTruncates, 10, Real, Tentative},
		{"tentative, tentative: the higher epoch stays", replica("a1", 12, both).as(Primary), replica("b1", 11, both, gen(2, 11, "a1 b1")).epoch(7), WeTruncate, 10, Tentative, Tentative},
		{"tentative, tentative: the Primary stays", replica("a1", 11, both, gen(2, 11, "a1 b1")).as(Primary), replica("b1", 12, both), PeerTruncates, 10, Tentative, Tentative},
		{"tentative, tentative: the longer stays", replica("a1", 13, both, gen(2, 11, "a1 b1")), replica("b1", 12, both), PeerTruncates, 10, Tentative, Tentative},
		{"tentative, tentative: the higher name stays", replica("a1", 12, both, gen(2, 11, "a1 b1")), replica("b1", 12, both), WeTruncate, 10, Tentative, Tentative},
		{"real, real", replica("a1", 12, both, gen(2, 11, "a1")), replica("b1", 13, both, gen(3, 11, "b1")), SplitBrain, 10, Real, Real},
		{"the other lost its memory: real", replica("a1", 12, both), replica("b2", 11, both, gen(2, 11, "a1 b2")), PeerTruncates, 10, Real, Tentative},
		{"it did after it had gone on alone: tentative", replica("a1", 12, both), replica("b2", 12, both, gen(2, 11, "b1").of(1)), WeTruncate, 10, Tentative, Real},
		{"it did before it went on alone: real", replica("a1", 12, both), replica("b2", 12, both, gen(2, 11, "b2").of(1)), SplitBrain, 10, Real, Real},
		{"it did after it had gone on with another: real", replica("a1", 12, both), replica("b2", 12, both, gen(2, 11, "b1 c1").of(1)), SplitBrain, 10, Real, Real},
		{"it did after it had gone on alone, behind another: real", replica("a1", 12, both), replica("b2", 14, both, gen(2, 11, "c1").of(1), gen(3, 13, "b1").of(2)), SplitBrain, 10, Real, Real},
		{"it did after it had gone on alone, but had the suffix since: real", replica("a1", 13, both, gen(3, 13, "a1 b1").of(2)), replica("b2", 12, both, gen(2, 11, "b1").of(1)), SplitBrain, 10, Real, Real},
		{"one generation of the suffix is alone: all of it is real", replica("a1", 14, both, gen(2, 11, "a1"), gen(3, 13, "a1 b1")), replica("b1", 11, both, gen(4, 11, "a1 b1")), PeerTruncates, 10, Real, Tentative},
		{"below our noted stable: real", replica("a1", 12, both).stable(11), replica("b1", 12, both, gen(2, 11, "b1")), SplitBrain, 10, Real, Real},
		{"at our noted stable: tentative", replica("a1", 12, both).stable(10), replica("b1", 11, both, gen(2, 11, "b1")), WeTruncate, 10, Tentative, Real},
		{"real without a write, real", replica("a1", 12, both, gen(2, 11, "a1"), gen(3, 12, "a1")), replica("b1", 12, both, gen(4, 11, "b1")), WeTruncate, 10, Real, Real},
		{"real without a write, below our noted stable", replica("a1", 11, both, gen(2, 11, "a1")).stable(11), replica("b1", 12, both, gen(4, 11, "b1")), WeTruncate, 10, Real, Real},
		{"real without a write, and Primary", replica("a1", 11, both, gen(2, 11, "a1")).as(Primary), replica("b1", 12, both, gen(4, 11, "b1")), SplitBrain, 10, Real, Real},
		{"real without a write, real and Primary", replica("a1", 11, both, gen(2, 11, "a1")), replica("b1", 12, both, gen(4, 11, "b1")).as(Primary), WeTruncate, 10, Real, Real},
		{"real without a write, none but Primary", replica("a1", 11, both, gen(2, 11, "a1")), replica("b1", 10, both).as(Primary), WeTruncate, 10, Real, None},
		{"real without a write and Primary, none but Primary", replica("a1", 11, both, gen(2, 11, "a1")).as(Primary), replica("b1", 10, both).as(Primary), SplitBrain, 10, Real, None},
		{"two real ones without a write: the Primary stays", replica("a1", 11, both, gen(2, 11, "a1")).as(Primary), replica("b1", 12, both, gen(4, 11, "b1"), gen(5, 12, "b1")).epoch(9), PeerTruncates, 10, Real, Real},
		{"two real ones without a write: the higher epoch stays", replica("a1", 11, both, gen(2, 11, "a1")).epoch(9), replica("b1", 12, both, gen(4, 11, "b1"), gen(5, 12, "b1")), PeerTruncates, 10, Real, Real},
		{"two real ones without a write, both Primary", replica("a1", 11, both, gen(2, 11, "a1")).as(Primary), replica("b1", 11, both, gen(4, 11, "b1")).as(Primary), SplitBrain, 10, Real, Real},
		{"real without a write, below a resync base", replica("a1", 12, both, gen(2, 11, "a1")), replica("b1", 11, both, gen(4, 11, "b1")).resyncing(Position{Generation: ID{4}, LSN: 11}), SplitBrain, 10, Real, Real},
		{"below our noted stable, and the peer is Primary", replica("a1", 12, both).stable(11), replica("b1", 10, both).as(Primary), SplitBrain, 10, Real, None},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := Compare(row.a, row.b)
			if c.Verdict != row.want || c.Common != row.common || c.Ours.Class != row.ours || c.Theirs.Class != row.theirs {
				t.Errorf("got %v(%d) %v/%v, want %v(%d) %v/%v: %s",
					c.Verdict, c.Common, c.Ours.Class, c.Theirs.Class, row.want, row.common, row.ours, row.theirs, c.Reason)
			}
			if c.Reason == "" {
				t.Error("no reason given")
			}
			if err := mirrored(c, Compare(row.b, row.a)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCompareUnrelated: what two replicas must share before histories count.
func TestCompareUnrelated(t *testing.T) {
	both := gen(1, 1, "a1 b1")
	for name, change := range map[string]func(*Description){
		"named":   func(d *Description) { d.Name = "w" },
		"bytes":   func(d *Description) { d.Size = 4096 },
		"has id":  func(d *Description) { d.Volume = ID{7} },
		"nodes":   func(d *Description) { d.Node = "a" },
		"neither": func(*Description) {},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := replica("a1", 10, both), replica("b1", 10, both)
			change(&b)
			c := Compare(a, b)
			if name == "neither" {
				if c.Verdict != InSync {
					t.Fatal(c.Verdict, c.Reason)
				}
				return
			}
			if c.Verdict != Unrelated || !strings.Contains(c.Reason, name) {
				t.Errorf("%v: %s", c.Verdict, c.Reason)
			}
		})
	}
}

// TestCompareInconsistent: a replica in a resync stands at its base and never
// leads.
func TestCompareInconsistent(t *testing.T) {
	both, alone := gen(1, 1, "a1 b1"), gen(2, 11, "a1")
	base := Position{Generation: ID{1}, LSN: 10}
	for _, row := range []struct {
		name string
		a, b Description
		want Verdict
	}{
		{"the source has the base and more", replica("a1", 20, both, alone), replica("b1", 18, both, alone).resyncing(base), PeerBehind},
		{"the source ends at the base", replica("a1", 10, both), replica("b1", 10, both).resyncing(base), PeerBehind},
		{"the target is Primary by name only", replica("a1", 10, both), replica("b1", 10, both).resyncing(base).as(Primary), PeerBehind},
		{"the source is shorter than the base", replica("a1", 9, both), replica("b1", 10, both).resyncing(base), NoSource},
		{"the source parted before the base", replica("a1", 20, both, gen(3, 9, "a1")), replica("b1", 10, both).resyncing(base), SplitBrain},
		{"a full resync, from all zeroes", replica("a1", 20, both, alone), replica("b1", 20, both, alone).resyncing(Position{}), PeerBehind},
		{"both", replica("a1", 10, both).resyncing(base), replica("b1", 10, both).resyncing(base), NoSource},
		{"a base outside its own history", replica("a1", 20, both), replica("b1", 10, both).resyncing(Position{Generation: ID{4}, LSN: 10}), Damaged},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, d := Compare(row.a, row.b), Compare(row.b, row.a)
			if c.Verdict != row.want || c.NeedsResync != (row.want == PeerBehind) {
				t.Errorf("%v, needs resync %v: %s", c.Verdict, c.NeedsResync, c.Reason)
			}
			if c.Theirs.Class == Tentative {
				t.Error("what lies below a resync base is in the store and cannot be taken back")
			}
			if err := mirrored(c, d); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSplitBrainCounts: exact numbers of writes, the side that has none, and that
// it gives way unless it is Primary.
func TestSplitBrainCounts(t *testing.T) {
	both := gen(1, 1, "a1 b1")
	ours := []Generation{both, gen(2, 11, "a1"), gen(3, 14, "a1")}
	for _, row := range []struct {
		name   string
		end    LSN // of b's
		role   Role
		writes uint64
		gives  Side
		want   Verdict
	}{
		{"both wrote", 13, Secondary, 2, Neither, SplitBrain},
		{"generation records only", 11, Secondary, 0, Theirs, PeerTruncates},
		{"generation records only, on a Primary", 11, Primary, 0, Theirs, SplitBrain},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := Compare(replica("a1", 15, ours...), replica("b1", row.end, both, gen(4, 11, "b1")).as(row.role))
			want := Suffix{Class: Real, Records: 5, Writes: 3, First: 11, Last: 15}
			if c.Verdict != row.want || c.Ours != want || c.Theirs.Writes != row.writes || c.GivesWay != row.gives {
				t.Errorf("%+v", c)
			}
		})
	}
}
