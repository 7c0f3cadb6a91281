package mirror

import (
	"fmt"
	"time"
)

// BudgetLeast is the least Options.PeerLatencyBudget.
const BudgetLeast = 10 * time.Millisecond

// How a peer leaves the in-sync set for being slow, and when it may join.
const (
	// lagLimit is how far behind a peer may be that joins: at its own speed, in time
	// (replication.md 2). With a budget of less than twice that, it is half the budget.
	lagLimit = 250 * time.Millisecond
	// slowBudgets is for how long, in budgets, writes have to have waited for longer
	// than the budget until the peer leaves, and calmBudgets how long it has to keep
	// up before it may come back, the first time.
	slowBudgets, calmBudgets = 10, 20
	// joinStay: a peer that is dropped sooner after it joined waits twice as long
	// before the next try, at least pauseLeast and at most pauseMost (1b).
	joinStay   = time.Minute
	pauseLeast = time.Second
	pauseMost  = 10 * time.Minute
)

// A lagJudge says of one peer whether it is too slow to be waited for, and when it
// may be waited for (again). It is told times, and keeps none itself. Volume.mu
// guards it.
//
// What it measures is how long the peer takes for what this replica has already: it
// marks the newest record of our own journal that the peer lacks, and counts the time
// until the peer has that; then the next. Beside it goes a mark of what is durable
// here and somebody waits to have durable. So neither a slow disk of our own nor a
// volume that nobody writes to makes a peer slow. In a catch-up the first mark is
// where our journal ended when it began; each further one is as far ahead as the peer
// came behind during the one before, so the time for it is the lag at the peer's own
// speed.
//
// A member is too slow once writes have waited for it longer than the budget for ten
// times the budget; of that, a quarter of the time in which they did not is taken off.
// One that left for it keeps receiving, and may join when it has kept up without a
// break for a pause, that doubles each time that it does not stay.
type lagJudge struct {
	budget time.Duration // 0: no member is too slow

	seen              time.Time // the last observation
	received, durable lagMark
	behind            bool          // has not caught up yet with what there was when the session began
	late              time.Duration // for how long writes have waited too long
	worst             time.Duration // the longest that one took meanwhile

	joined time.Time     // as a member; zero if that is not known, or it is none
	pause  time.Duration // before the next try; one that was slow has to keep up all the time
	after  time.Time     // no try before
	slow   *SlowStatus   // why it left, nil if it did not for being slow
}

// A lagMark is a record that a peer lacks.
type lagMark struct {
	lsn    LSN           // 0: it lacks none
	waited time.Duration // for this one
	took   time.Duration // the one before
}

// A lagSample is how far a peer is at one moment: ours is the newest record that our
// own journal has, oursDurable the newest durable one of those that somebody waits
// for, and theirs what the peer has acknowledged.
type lagSample struct {
	ours, theirs               LSN
	oursDurable, theirsDurable LSN
	member                     bool
}

// tick is how often to observe, at least.
func (j *lagJudge) tick() time.Duration {
	if j.budget > 0 {
		return min(j.budget, lagLimit) / 4
	}
	return lagLimit / 4
}

// limit is the lag below which a peer may join.
func (j *lagJudge) limit() time.Duration {
	if j.budget > 0 {
		return min(j.budget/2, lagLimit)
	}
	return lagLimit
}

// begin is called when a session begins whose catch-up goes up to goal, at least.
func (j *lagJudge) begin(now time.Time, goal LSN) {
	j.seen, j.received, j.durable = now, lagMark{lsn: goal}, lagMark{}
	j.behind, j.late, j.worst = true, 0, 0
}

// observe takes in a sample. Of a pause of our own, in which nothing was observed,
// no more than two ticks count.
func (j *lagJudge) observe(now time.Time, s lagSample) {
	dt := min(now.Sub(j.seen), 2*j.tick())
	j.seen = now
	if j.received.observe(dt, s.ours, s.theirs) {
		j.behind = false
	}
	j.durable.observe(dt, s.oursDurable, s.theirsDurable)
	lag := j.lag()
	switch {
	case !s.member:
		j.late = 0
		if j.slow != nil && lag >= j.limit() {
			j.after = later(j.after, now.Add(j.pause))
		}
	case j.budget > 0 && lag > j.budget:
		j.late = min(j.late+dt, slowBudgets*j.budget) // one that has to stay is not held to an hour of it
		j.worst = max(j.worst, lag)
	case j.late > 0:
		if j.late -= dt / 4; j.late <= 0 {
			j.late, j.worst = 0, 0
		}
	}
}

// observe reports whether the peer has what was marked.
func (m *lagMark) observe(dt time.Duration, ours, theirs LSN) (reached bool) {
	if m.lsn > theirs {
		m.waited += dt
		return false
	}
	m.took = m.waited
	m.lsn, m.waited = 0, 0
	if ours > theirs {
		m.lsn = ours
	}
	return true
}

// lag is how far behind the peer is, in time; 0 while it lacks nothing.
func (j *lagJudge) lag() (lag time.Duration) {
	for _, m := range []*lagMark{&j.received, &j.durable} {
		if m.lsn != 0 {
			lag = max(lag, m.waited, m.took)
		}
	}
	return lag
}

// tooSlow reports whether the peer, a member, is to leave.
func (j *lagJudge) tooSlow() bool { return j.budget > 0 && j.late >= slowBudgets*j.budget }

// mayJoin reports whether the peer may be made a member.
func (j *lagJudge) mayJoin(now time.Time) bool {
	return !j.behind && !now.Before(j.after) && j.lag() < j.limit()
}

// join is called when the peer became a member.
func (j *lagJudge) join(now time.Time) {
	j.joined, j.slow, j.late, j.worst = now, nil, 0, 0
}

// fail is called when it did not, although it might. Only what it did itself makes its
// pauses longer: a Coordinator that answers again finds it ready.
func (j *lagJudge) fail(now time.Time, itself bool) {
	if itself {
		j.wait(now, pauseLeast)
		return
	}
	j.after = later(j.after, now.Add(pauseLeast))
}

// drop is called when a member has to leave for which clients had to wait up to a
// limit: it was too slow, or stalled for longer than a peer may.
func (j *lagJudge) drop(now time.Time) {
	stayed := j.joined.IsZero() || now.Sub(j.joined) >= max(joinStay, j.pause)
	slow, worst := j.tooSlow(), j.worst
	j.joined, j.late, j.worst = time.Time{}, 0, 0
	if stayed {
		j.pause = 0
	}
	switch {
	case slow:
		j.wait(now, max(calmBudgets*j.budget, pauseLeast))
		j.slow = &SlowStatus{Since: now, Budget: j.budget, Worst: worst}
	case !stayed:
		j.wait(now, pauseLeast)
	}
}

func (j *lagJudge) wait(now time.Time, least time.Duration) {
	j.pause = min(max(2*j.pause, least), pauseMost)
	j.after = later(j.after, now.Add(j.pause))
}

// status is nil unless the peer is out for being slow.
func (j *lagJudge) status() *SlowStatus {
	if j.slow == nil {
		return nil
	}
	s := *j.slow
	s.MayReturn = j.after
	s.Reason = fmt.Sprintf("slow: %v; it may return from %s on, if its lag stays below %v until then",
		s.cause(), s.MayReturn.Format(time.TimeOnly), j.limit())
	return &s
}

func (s *SlowStatus) cause() string {
	return fmt.Sprintf("writes waited for it longer than the %v of peer-latency-budget, up to %v, for %v, so it left the in-sync set at %s",
		s.Budget, s.Worst.Round(time.Millisecond), slowBudgets*s.Budget, s.Since.Format(time.TimeOnly))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
