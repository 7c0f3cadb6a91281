package mirror

import "time"

// An estimator tells from how a long work went on how long it will take. It
// reckons with the speed of the last quarter of the time so far, at least a second
// and at most 10: what a resync did at its beginning, when blocks were equal or
// clients were writing, says little of its end. Pauses are left out.
type estimator struct {
	spent time.Duration // at work, until at
	at    time.Time     // of the last note, zero before the first
	stood bool          // paused: the clock stands
	done  int64
	marks []estimateMark // oldest first, none much older than what is reckoned with
}

type estimateMark struct {
	spent time.Duration
	done  int64
}

const (
	estimateLeast = time.Second
	estimateMost  = 10 * time.Second
	estimateMarks = 64
)

// note: so much is done now. Only when that grows is a mark made: work that is
// acknowledged in large parts has the speed from one part to another.
func (e *estimator) note(now time.Time, done int64) {
	e.tick(now)
	if len(e.marks) > 0 && done == e.done {
		return
	}
	e.done = done
	gap := e.window() / (estimateMarks / 2)
	if n := len(e.marks); n > 1 && e.spent-e.marks[n-2].spent < gap {
		e.marks[n-1] = estimateMark{e.spent, done}
	} else {
		e.marks = append(e.marks, estimateMark{e.spent, done})
	}
	old := 0
	for old+2 < len(e.marks) && e.spent-e.marks[old+1].spent >= e.window() {
		old++
	}
	e.marks = append(e.marks[:0], e.marks[old:]...)
}

// pause stops the clock, or has it go on.
func (e *estimator) pause(now time.Time, paused bool) {
	e.tick(now)
	e.stood = paused
}

func (e *estimator) tick(now time.Time) {
	if !e.at.IsZero() && !e.stood {
		e.spent += now.Sub(e.at)
	}
	e.at = now
}

func (e *estimator) window() time.Duration {
	return min(max(e.spent/4, estimateLeast), estimateMost)
}

// speed in bytes per second, 0 while unknown.
func (e *estimator) speed() float64 {
	if len(e.marks) < 2 {
		return 0
	}
	first, last := e.marks[0], e.marks[len(e.marks)-1]
	if last.spent <= first.spent {
		return 0
	}
	return float64(last.done-first.done) / (last.spent - first.spent).Seconds()
}

// left is how long it takes from now until total is done; -1 while unknown.
func (e *estimator) left(now time.Time, total int64) time.Duration {
	speed := e.speed()
	if speed <= 0 || e.stood {
		return -1
	}
	last := e.marks[len(e.marks)-1]
	since := e.spent + now.Sub(e.at) - last.spent // last.done was reached
	return max(time.Duration(float64(total-last.done)/speed*float64(time.Second))-since, 0)
}
