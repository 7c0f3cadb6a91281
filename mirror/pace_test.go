package mirror

import (
	"testing"
	"time"
)

// A paceRig is a pacer on a clock of its own, clients whose writes take longer the
// faster the resync is, and a resync that takes what it gets.
type paceRig struct {
	pacer
	at      time.Time
	moved   int64         // bytes of the resync
	writing bool          // clients write
	base    time.Duration // of a write without the resync
	// slower is by how much a write takes longer for each MiB per second.
	slower time.Duration
	recent []paceMoved // of the last 50 ms
	lsn    LSN
	took   []time.Duration
}

type paceMoved struct {
	at time.Time
	n  int64
}

func newPaceRig(o Options) *paceRig {
	o.EnsureDefaults()
	r := &paceRig{pacer: newPacer(&o), at: time.Unix(1000, 0), base: 10 * time.Millisecond, slower: 50 * time.Microsecond}
	r.now = func() time.Time { return r.at }
	r.enter()
	return r
}

// run lets time pass, at most 1 GiB/s of resync and one write at a time.
func (r *paceRig) run(d time.Duration) (speed float64) {
	const unit, step = MaxCompare, 200 * time.Microsecond
	moved, end := r.moved, r.at.Add(d)
	ends := time.Time{}
	r.took = nil
	for r.at.Before(end) {
		if r.wait() == 0 && r.load() < 1<<10 {
			r.take(unit)
			r.moved += unit
			r.recent = append(r.recent, paceMoved{r.at, unit})
		}
		if r.writing && ends.IsZero() {
			r.lsn++
			r.ordered(r.lsn)
			took := r.base + time.Duration(r.load()*float64(r.slower))
			r.took = append(r.took, took)
			ends = r.at.Add(took)
		}
		if !ends.IsZero() && !r.at.Before(ends) {
			r.committed(r.lsn)
			ends = time.Time{}
		}
		r.at = r.at.Add(step)
	}
	r.committed(r.lsn)
	return float64(r.moved-moved) / d.Seconds()
}

// load is how fast the resync was just now, MiB per second.
func (r *paceRig) load() float64 {
	for len(r.recent) > 0 && r.at.Sub(r.recent[0].at) > 50*time.Millisecond {
		r.recent = r.recent[1:]
	}
	n := int64(0)
	for _, m := range r.recent {
		n += m.n
	}
	return float64(n) / (1 << 20) / 0.05
}

func (r *paceRig) meanTook() time.Duration {
	sum := time.Duration(0)
	for _, d := range r.took {
		sum += d
	}
	return sum / time.Duration(len(r.took))
}

const mib = 1 << 20

// While nobody writes the resync goes as fast as it can, and again soon after.
func TestPaceFullSpeedWhenIdle(t *testing.T) {
	r := newPaceRig(Options{})
	if s := r.run(time.Second); s < 900*mib {
		t.Errorf("%.0f MiB/s before anybody wrote", s/mib)
	}
	r.writing = true
	r.run(10 * time.Second)
	r.writing = false
	r.run(paceIdle + 10*time.Millisecond)
	if s := r.run(time.Second); s < 900*mib {
		t.Errorf("%.0f MiB/s once the writers were gone", s/mib)
	}
}

// While clients write, their writes stay in bounds, and the resync goes as fast as
// that allows: it neither starves nor only crawls.
func TestPaceKeepsLatencyInBounds(t *testing.T) {
	r := newPaceRig(Options{})
	r.run(time.Second)
	r.writing = true
	r.run(8 * time.Second)
	speed := r.run(8 * time.Second)
	mean := r.meanTook()
	// Each MiB/s costs 50 µs: the least makes 0.2 of 10 ms, and 1.0 more are in bounds.
	if bound := r.base * 115 / 100; mean > bound {
		t.Errorf("writes took %v in the mean, and %v without the resync", mean, r.base)
	}
	if speed < 12*mib {
		t.Errorf("the resync went at %.1f MiB/s, and might go at 20", speed/mib)
	}
	// Where the resync costs little, it is fast though clients write.
	r.slower = time.Microsecond
	r.run(8 * time.Second)
	if speed := r.run(8 * time.Second); speed < 300*mib {
		t.Errorf("%.0f MiB/s where it does not hurt", speed/mib)
	}
	if mean := r.meanTook(); mean > r.base+r.base/5 {
		t.Errorf("writes took %v in the mean, and %v without the resync", mean, r.base)
	}
	// And it learns that writes take longer for another reason.
	r.base *= 4
	r.run(30 * time.Second)
	if speed := r.run(4 * time.Second); speed < 300*mib {
		t.Errorf("%.0f MiB/s where writes are slow by themselves", speed/mib)
	}
}

// The first write after a while finds the resync at its least at once.
func TestPaceGivesWayAtOnce(t *testing.T) {
	r := newPaceRig(Options{ResyncRateMin: 2 * mib})
	r.run(time.Second)
	r.writing = true
	if s := r.run(150 * time.Millisecond); s > 10*mib {
		t.Errorf("%.0f MiB/s when writes began", s/mib)
	}
}

func TestPaceLimits(t *testing.T) {
	within := func(what string, got, least, most float64) {
		t.Helper()
		if got < least*mib || got > most*mib {
			t.Errorf("%s: %.1f MiB/s, %.1f to %.1f are wanted", what, got/mib, least, most)
		}
	}
	r := newPaceRig(Options{ResyncRateMin: 8 * mib, ResyncRateMax: 64 * mib})
	within("the most, idle", r.run(2*time.Second), 60, 66)
	r.writing, r.slower = true, time.Microsecond
	r.run(8 * time.Second)
	within("the most, where it does not hurt", r.run(2*time.Second), 55, 66)
	r.slower = time.Millisecond
	r.run(10 * time.Second)
	within("the least", r.run(2*time.Second), 7.5, 10)

	r = newPaceRig(Options{ResyncRate: 16 * mib})
	within("fixed, idle", r.run(2*time.Second), 15.5, 17)
	r.writing, r.slower = true, 10*time.Millisecond
	within("fixed, while clients write", r.run(2*time.Second), 15.5, 17)
	r = newPaceRig(Options{ResyncRate: ResyncUnlimited})
	r.writing, r.slower = true, 10*time.Millisecond
	within("no limit", r.run(time.Second), 900, 1100)
}

// A write that does not come to an end is noticed before it does; one that is
// plainly not the resync's fault is not.
func TestPaceNoticesAWriteThatHangs(t *testing.T) {
	r := newPaceRig(Options{})
	r.writing, r.slower = true, time.Microsecond
	r.run(8 * time.Second)
	before := r.run(time.Second)
	r.writing = false
	r.lsn++
	r.ordered(r.lsn) // and nothing commits
	r.hang(time.Second)
	if r.rate > before/4 {
		t.Errorf("%.0f MiB/s while a write hangs, after %.0f before", r.rate/mib, before/mib)
	}
	r.hang(paceHung)
	if s := r.hang(time.Second); s < 900*mib {
		t.Errorf("%.0f MiB/s while a write waits for something else", s/mib)
	}
}

// hang lets time pass without anything being committed.
func (r *paceRig) hang(d time.Duration) (speed float64) {
	lsn := r.lsn
	r.lsn = 0
	defer func() { r.lsn = lsn }()
	return r.run(d)
}
