package mirror

import (
	"math"
	"testing"
	"time"
)

// The estimate of the time left is off by no more than a fifth of it over the last
// half of a work, whatever went before: here what is left is not in doubt, for the
// clock is the test's own. In the last twentieth, where a fifth is next to nothing,
// it may be off by a hundredth of the whole.
func TestEstimate(t *testing.T) {
	rng := seed(t)
	const total = int64(20 << 30)
	for _, row := range []struct {
		name string
		ack  int64 // bytes that are acknowledged at once
		// speed in MiB per second, by how much is done, of 1, and the time.
		speed func(done float64, at time.Duration) float64
	}{
		{"steady", 1 << 20, func(float64, time.Duration) float64 { return 400 }},
		{"in large parts", 64 << 20, func(float64, time.Duration) float64 { return 150 }},
		{"short", 16 << 20, func(float64, time.Duration) float64 { return 4000 }},
		{"slow", 16 << 20, func(float64, time.Duration) float64 { return 10 }},
		{"equal blocks first", 1 << 20, func(done float64, _ time.Duration) float64 { return pick(done < 0.3, 2000.0, 100) }},
		{"held back by clients at first", 1 << 20, func(done float64, _ time.Duration) float64 { return pick(done < 0.1, 4.0, 500) }},
		{"waves of a second", 1 << 20, func(_ float64, at time.Duration) float64 {
			return 200 + 100*math.Sin(at.Seconds()*2*math.Pi)
		}},
		{"noise", 4 << 20, func(float64, time.Duration) float64 { return 50 + 300*rng.Float64() }},
	} {
		t.Run(row.name, func(t *testing.T) { checkEstimate(t, total, row.ack, row.speed) })
	}
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

func checkEstimate(t *testing.T, total, ack int64, speed func(float64, time.Duration) float64) {
	type point struct {
		at, left time.Duration
		done     int64
	}
	var points []point
	var e estimator
	start := time.Unix(5000, 0)
	e.note(start, 0)
	done, acked, at := 0.0, int64(0), time.Duration(0)
	const step = 5 * time.Millisecond
	for acked < total {
		at += step
		done = min(done+speed(done/float64(total), at)*(1<<20)*step.Seconds(), float64(total))
		if now := int64(done); now-acked >= ack || now == total {
			acked = now
			e.note(start.Add(at), acked)
		}
		points = append(points, point{at, e.left(start.Add(at), total), int64(done)})
	}
	worst := 0.0
	for _, p := range points {
		truth := at - p.at
		if p.done < total/2 {
			continue
		}
		off := math.Abs(float64(p.left - truth))
		if p.left < 0 {
			t.Fatalf("at %v of %v: no estimate", p.at, at)
		}
		if truth > at/20 {
			worst = max(worst, off/float64(truth))
		} else if off > float64(at)/100 {
			t.Fatalf("at %v of %v: %v left by the estimate, %v in truth", p.at, at, p.left, truth)
		}
		if worst > 0.2 {
			t.Fatalf("at %v of %v: %v left by the estimate, %v in truth", p.at, at, p.left, truth)
		}
	}
	t.Logf("took %v, off by at most %.0f %%", at, 100*worst)
}

// A pause does not count, and while it lasts nobody knows.
func TestEstimatePause(t *testing.T) {
	var e estimator
	now := time.Unix(5000, 0)
	rng := newRand(1)
	half := func() {
		for range 50 {
			now = now.Add(100 * time.Millisecond)
			e.note(now, e.done+1<<20)
		}
	}
	e.note(now, 0)
	half()
	e.pause(now, true)
	if left := e.left(now, 100<<20); left != -1 {
		t.Errorf("%v left while it is paused", left)
	}
	now = now.Add(time.Duration(1+rng.IntN(10)) * time.Hour)
	e.note(now, e.done) // an acknowledgement that was under way
	now = now.Add(time.Hour)
	e.pause(now, false)
	if left := e.left(now, 100<<20); left < 4*time.Second || left > 6*time.Second {
		t.Errorf("%v left of 5 s", left)
	}
	half()
	if left := e.left(now, 100<<20); left != 0 {
		t.Errorf("%v left when all is done", left)
	}
}
