package mirror

import (
	"testing"
	"time"
)

// A lagScene is a peer of a volume to which a record is written every millisecond, on
// a clock of its own.
type lagScene struct {
	j      lagJudge
	start  time.Time
	at     time.Duration
	member bool
	// late is how long ago the peer had what it has now, in records and durably; of
	// nil it has everything at once.
	late, lateDurably func(at time.Duration) time.Duration
	// ours is what our own journal has at a time, in milliseconds of writing; nil: all.
	ours func(at time.Duration) time.Duration
	// paused: we observe nothing at that time.
	paused func(at time.Duration) bool
}

func newLagScene(budget time.Duration) *lagScene {
	s := &lagScene{j: lagJudge{budget: budget}, start: time.Unix(1e9, 0), member: true}
	s.j.begin(s.now(), 0)
	return s
}

func (s *lagScene) now() time.Time { return s.start.Add(s.at) }

// run goes on for d, or until the judge's verdict is reached, and reports whether it was.
func (s *lagScene) run(d time.Duration, until func() bool) bool {
	for end := s.at + d; s.at < end; {
		s.at += s.j.tick()
		if s.paused != nil && s.paused(s.at) {
			continue
		}
		ours := s.at
		if s.ours != nil {
			ours = s.ours(s.at)
		}
		had := func(late func(time.Duration) time.Duration) LSN {
			if late == nil {
				return LSN(s.at.Milliseconds()) // it may be ahead of our own journal
			}
			return LSN(max(s.at-late(s.at), 0).Milliseconds())
		}
		s.j.observe(s.now(), lagSample{
			ours: LSN(ours.Milliseconds()), theirs: had(s.late),
			oursDurable: LSN(ours.Milliseconds()), theirsDurable: had(s.lateDurably), member: s.member,
		})
		if until != nil && until() {
			return true
		}
	}
	return false
}

func constantly(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

// every has the peer stand still for the first part of each period.
func every(period, part time.Duration) func(time.Duration) time.Duration {
	return func(at time.Duration) time.Duration {
		if into := at % period; into < part {
			return into
		}
		return 0
	}
}

// TestLagTooSlow: who leaves the in-sync set for being slow, and who does not.
func TestLagTooSlow(t *testing.T) {
	const budget = 100 * time.Millisecond
	for _, tc := range []struct {
		name  string
		set   func(s *lagScene)
		after time.Duration // it leaves, give or take a few ticks; 0: it stays
	}{
		{"at once", func(*lagScene) {}, 0},
		{"within the budget", func(s *lagScene) { s.late = constantly(95 * time.Millisecond) }, 0},
		{"beyond it", func(s *lagScene) { s.late = constantly(150 * time.Millisecond) }, 1150 * time.Millisecond},
		{"far beyond it", func(s *lagScene) { s.late = constantly(2 * time.Second) }, 1100 * time.Millisecond},
		{"durably alone", func(s *lagScene) { s.lateDurably = constantly(150 * time.Millisecond) }, 1150 * time.Millisecond},
		{"a blip now and then", func(s *lagScene) { s.late = every(5*time.Second, 900*time.Millisecond) }, 0},
		{"a stall of a second in every two", func(s *lagScene) { s.late = every(2*time.Second, time.Second) }, 2500 * time.Millisecond},
		{"off", func(s *lagScene) { s.j.budget, s.late = 0, constantly(time.Hour) }, 0},
		{"nobody writes", func(s *lagScene) {
			s.ours = constantly(0)
			s.late = constantly(time.Hour)
		}, 0},
		{"our own disk is as slow", func(s *lagScene) {
			s.ours = func(at time.Duration) time.Duration { return at - at%time.Second }
			s.late = func(at time.Duration) time.Duration { return at % time.Second }
		}, 0},
		{"we were stopped, again and again", func(s *lagScene) {
			const stop, again = 2 * time.Second, 3 * time.Second
			s.paused = func(at time.Duration) bool { return at%again < stop }
			s.late = func(at time.Duration) time.Duration {
				if into := at % again; into < stop+30*time.Millisecond { // what came meanwhile is read a tick later
					return into + 30*time.Millisecond
				}
				return 20 * time.Millisecond
			}
		}, 0},
	} {
		s := newLagScene(budget)
		tc.set(s)
		left := s.run(5*time.Minute, s.j.tooSlow)
		if left != (tc.after > 0) {
			t.Errorf("%s: it left: %v, after %v", tc.name, left, s.at)
		} else if off := s.at - tc.after; left && (off < -budget || off > budget) {
			t.Errorf("%s: it left after %v, %v are wanted", tc.name, s.at, tc.after)
		}
	}
}

// One that was slow for an hour, and could not be done without, is soon forgiven.
func TestLagForgives(t *testing.T) {
	const budget = 100 * time.Millisecond
	s := newLagScene(budget)
	s.late = constantly(time.Second)
	s.run(time.Hour, nil)
	s.late = nil
	s.run(4*slowBudgets*budget+time.Second, nil)
	if s.j.tooSlow() || s.j.late != 0 || s.j.worst != 0 {
		t.Errorf("late by %v, %v at worst", s.j.late, s.j.worst)
	}
}

// TestLagJoins1b: a peer may join once what it lacked when it began to catch up is
// there and its lag at its own speed is below 250 ms, or half of a smaller budget.
func TestLagJoins1b(t *testing.T) {
	for _, tc := range []struct {
		name   string
		budget time.Duration
		late   func(at time.Duration) time.Duration
		after  time.Duration // it may join; 0: never
	}{
		{"level", 0, nil, 1},
		{"as far behind as may be", 0, constantly(180 * time.Millisecond), 250 * time.Millisecond},
		{"too far behind", 0, constantly(400 * time.Millisecond), 0},
		{"too far behind for its budget", 200 * time.Millisecond, constantly(180 * time.Millisecond), 0},
		{"near enough for its budget", 200 * time.Millisecond, constantly(40 * time.Millisecond), 100 * time.Millisecond},
		// 10 s behind, and ten times as fast as we write: what was missing takes it 1 s,
		// what came meanwhile 0.1 s.
		{"it catches up", 0, func(at time.Duration) time.Duration { return max(10*time.Second-9*at, 0) }, 1200 * time.Millisecond},
		// As fast as we write it never does.
		{"it does not catch up", 0, constantly(10 * time.Second), 0},
	} {
		s := newLagScene(tc.budget)
		s.member, s.late = false, tc.late
		s.start, s.at = s.start.Add(-time.Hour), time.Hour // what it lacks was written before
		if tc.late != nil {
			s.late = func(at time.Duration) time.Duration { return tc.late(at - time.Hour) }
		}
		s.j.begin(s.now(), LSN(s.at.Milliseconds()))
		may := s.run(5*time.Minute, func() bool { return s.j.mayJoin(s.now()) })
		if took := s.at - time.Hour; may != (tc.after > 0) || may && took > tc.after+2*s.j.tick() {
			t.Errorf("%s: it may join: %v, after %v; %v are wanted", tc.name, may, took, tc.after)
		}
	}
}

// TestLagPauses1b: how long a peer has to keep up before it may try again.
func TestLagPauses1b(t *testing.T) {
	const budget = 100 * time.Millisecond
	slow := func(s *lagScene) {
		s.late, s.member = constantly(time.Second), true
		if !s.run(time.Minute, s.j.tooSlow) {
			t.Fatal("it does not become too slow")
		}
		s.j.drop(s.now())
		s.late, s.member = nil, false
	}
	stalls := func(s *lagScene) { s.j.drop(s.now()); s.member = false }
	fails := func(s *lagScene) { s.j.fail(s.now(), true) }
	kept := func(s *lagScene) { s.j.fail(s.now(), false) }
	for _, tc := range []struct {
		name string
		what func(s *lagScene)
		stay time.Duration // between two times
		want []time.Duration
	}{
		{"too slow", slow, time.Second, []time.Duration{2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600}},
		{"too slow, after it stayed", slow, 11 * time.Minute, []time.Duration{2, 2, 2}},
		{"stalls", stalls, time.Second, []time.Duration{0, 1, 2, 4, 8}}, // how long it was a member before the first is unknown
		{"stalls, after it stayed", stalls, 61 * time.Second, []time.Duration{0, 0, 0}},
		{"fails to join", fails, time.Second, []time.Duration{1, 2, 4, 8}},
		{"is kept from joining", kept, time.Second, []time.Duration{1, 1, 1, 1}},
	} {
		s := newLagScene(budget)
		for i, want := range tc.want {
			tc.what(s)
			from := s.at
			if !s.run(time.Hour, func() bool { return s.j.mayJoin(s.now()) }) {
				t.Fatalf("%s: it may never join again", tc.name)
			}
			if took := s.at - from; took < want*time.Second || took > want*time.Second+2*s.j.tick() {
				t.Errorf("%s, time %d: it may try again after %v, %v are wanted", tc.name, i+1, took, want*time.Second)
			}
			s.j.join(s.now())
			s.member = true
			if s.j.status() != nil {
				t.Errorf("%s: a member is said to be out: %+v", tc.name, s.j.status())
			}
			s.run(tc.stay, nil)
		}
	}

	// A stay of more than a minute does not make up for a pause of ten.
	s := newLagScene(budget)
	for range 12 {
		slow(s)
		s.j.join(s.now())
	}
	s.run(2*time.Minute, nil)
	slow(s)
	if s.j.pause != pauseMost {
		t.Errorf("after a stay of 2 minutes the pause is %v, %v is wanted", s.j.pause, pauseMost)
	}
}

// TestLagStaysOut: a slow peer does not come back as long as it is slow, nor in the
// moments in which nobody writes; the status says since when, why, and until when.
func TestLagStaysOut(t *testing.T) {
	const budget = 100 * time.Millisecond
	s := newLagScene(budget)
	s.late = constantly(time.Second)
	if !s.run(time.Minute, s.j.tooSlow) {
		t.Fatal("it does not become too slow")
	}
	s.j.drop(s.now())
	left := s.now()
	s.member = false
	// Of each second and a half clients write for one, and it takes them two budgets.
	s.late = func(at time.Duration) time.Duration {
		if at%(1500*time.Millisecond) < time.Second {
			return 2 * budget
		}
		return 0
	}
	if s.run(time.Hour, func() bool { return s.j.mayJoin(s.now()) }) {
		t.Errorf("it may come back after %v", s.now().Sub(left))
	}
	st := s.j.status()
	if st == nil || !st.Since.Equal(left) || st.Budget != budget || st.Worst < 8*budget || st.MayReturn.Before(s.now()) {
		t.Errorf("the status is %+v", st)
	}
}
