package mirror

import "testing"

// The counter-examples that histories decide, by their numbers in
// docs/counterexamples.md. What needs a running volume is tested there.

// 3a: one record of A's more or less, and the same two nodes are an ordinary
// failover (X) or a split-brain (Y). With a generation at every shrink the
// histories differ.
func TestTrace3a(t *testing.T) {
	both := gen(5, 1, "a1 b1")
	b := replica("b1", 103, both, gen(6, 101, "b1")).as(Primary)
	t.Run("X", func(t *testing.T) {
		// A appended 101..105 and died before B had any of them.
		a := replica("a1", 105, both)
		if c := Compare(a, b); c.Verdict != WeTruncate || c.Common != 100 {
			t.Errorf("%v(%d): %s", c.Verdict, c.Common, c.Reason)
		}
	})
	t.Run("Y", func(t *testing.T) {
		// A dropped B, then acknowledged and flushed 102..106 alone.
		a := replica("a1", 106, both, gen(7, 101, "a1")).stable(106)
		c := Compare(a, b)
		if c.Verdict != SplitBrain || c.Common != 100 || c.Ours.Writes != 5 || c.Theirs.Writes != 2 || c.GivesWay != Neither {
			t.Errorf("%+v", c)
		}
	})
}

// 9a: A's host resets and loses 96..100, which B has received. A begins a new
// generation where its journal ends now, so 96 is not 96'.
func TestTrace9a(t *testing.T) {
	both := gen(5, 1, "a1 b1")
	b := replica("b1", 100, both)
	t.Run("restarted generation", func(t *testing.T) {
		a := replica("a2", 98, both, gen(6, 96, "a2 b1")).as(Primary)
		// B may hold what A acknowledged and forgot: B's is real.
		if c := Compare(a, b); c.Verdict != WeTruncate || c.Common != 95 || c.Theirs.Class != Real {
			t.Errorf("%+v", c)
		}
		a = replica("a2", 98, both, gen(6, 96, "a2")).as(Primary)
		if c := Compare(a, b); c.Verdict != SplitBrain || c.Common != 95 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("before it is Primary again", func(t *testing.T) {
		if c := Compare(replica("a2", 95, both), b); c.Verdict != WeAreBehind || c.Common != 95 {
			t.Errorf("%+v", c)
		}
	})
}

// 9b: both forced to Primary. Random ids keep two generations at the same LSN
// apart.
func TestTrace9b(t *testing.T) {
	first, err := NewID(nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := NewID(nil)
	if err != nil {
		t.Fatal(err)
	}
	both, ga, gb := gen(5, 1, "a1 b1"), gen(0, 101, "a1"), gen(0, 101, "b1")
	ga.ID, gb.ID = first, second
	c := Compare(replica("a1", 110, both, ga), replica("b1", 110, both, gb))
	if c.Verdict != SplitBrain || c.Common != 100 || c.Ours.Writes != 9 || c.Theirs.Writes != 9 {
		t.Errorf("%+v", c)
	}
}

// 9d: a note to the table. A alone wrote 101..200; B, promoted by force, has its
// generation record at once, so it is not merely behind. As long as it is Primary
// the two refuse each other; then it gives way, for it wrote nothing.
func TestTrace9d(t *testing.T) {
	both := gen(5, 1, "a1 b1")
	a := replica("a1", 200, both, gen(6, 101, "a1"))
	c := Compare(a, replica("b1", 101, both, gen(7, 101, "b1")).as(Primary))
	if c.Verdict != SplitBrain || c.Ours.Writes != 99 || c.Theirs.Writes != 0 || c.GivesWay != Theirs {
		t.Errorf("%+v", c)
	}
	if c := Compare(a, replica("b1", 101, both, gen(7, 101, "b1"))); c.Verdict != PeerTruncates || c.Theirs.Class != Real {
		t.Errorf("%+v", c)
	}
	if c := Compare(a, replica("b1", 102, both, gen(7, 101, "b1"))); c.Verdict != SplitBrain || c.GivesWay != Neither {
		t.Errorf("%+v", c)
	}
	if c := Compare(a, replica("b1", 100, both)); c.Verdict != PeerBehind || c.Common != 100 {
		t.Errorf("%+v", c)
	}
}

// 10a: A, alone, acknowledged 102..200. B's superblock still says {A,B}. However
// B is promoted, with the set that it knows or alone, A's writes are not cut.
func TestTrace10a(t *testing.T) {
	both := gen(5, 1, "a1 b1")
	a := replica("a1", 200, both, gen(6, 101, "a1"))
	if c := Compare(a, replica("b1", 110, both, gen(7, 101, "a1 b1")).as(Primary)); c.Verdict != PeerTruncates {
		t.Errorf("B waited for A all the time and acknowledged nothing: %v, %s", c.Verdict, c.Reason)
	}
	if c := Compare(a, replica("b1", 110, both, gen(7, 101, "b1")).as(Primary)); c.Verdict != SplitBrain {
		t.Errorf("B was forced and served alone: %v, %s", c.Verdict, c.Reason)
	}
}

// 14a, 14c: there is no truncation point beside the history. A truncated to 160
// and then wrote 161..180 in generation 6; a crash and a start later its history
// says so and nothing else does. An entry past the end is dropped.
func TestTrace14(t *testing.T) {
	g5, g6 := gen(5, 1, "a1 b1"), gen(6, 161, "a1 b1")
	for _, end := range []LSN{160, 161, 180} {
		h := history(g5, g6).CutTo(end)
		if (len(h) == 2) != (end >= 161) {
			t.Errorf("end %d leaves %d generations", end, len(h))
		}
		for _, lsn := range []LSN{1, 160, 161, 170} {
			old, young := lsn < 161 || len(h) == 1, lsn >= 161 && len(h) == 2
			if h.Valid(lsn, g5.Tag()) != old || h.Valid(lsn, g6.Tag()) != young {
				t.Errorf("end %d: LSN %d is valid of generation 5: %v, of 6: %v", end, lsn, h.Valid(lsn, g5.Tag()), h.Valid(lsn, g6.Tag()))
			}
		}
	}
	// On meeting, the entry without a record counts for nothing either.
	if c := Compare(replica("a1", 160, g5, g6), replica("b1", 165, g5, g6)); c.Verdict != WeAreBehind || c.Common != 160 {
		t.Errorf("%+v", c)
	}
}
