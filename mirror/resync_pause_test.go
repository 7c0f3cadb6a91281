package mirror

import (
	"strings"
	"testing"
	"time"
)

// A resync can be held back on either side, by an operator or for another volume's,
// and then nothing of it moves, while writes go on to the target; and it goes on
// once nobody holds it back any more.
func TestResyncIsPaused(t *testing.T) {
	rng := seed(t)
	u := newUndoRig(t, rng, func(o *Options) { o.ResyncRate = 1 << 20 })
	a := u.a.vol
	u.b.start()
	u.eventually("b is resynced", func() bool { return u.a.peer("b").Progress != nil })
	for _, row := range []struct {
		name         string
		pause, going func()
		onA, onB     string
	}{
		{"on the source", a.PauseResync, a.ResumeResync, "lockstep resync resume data", `paused on node "a"`},
		{"on the target", u.b.vol.PauseResync, u.b.vol.ResumeResync, `paused on node "b"`, "lockstep resync resume data"},
		{"for another volume", func() { a.HoldResync("first") }, func() { a.HoldResync("") }, `of volume "first"`, `paused on node "a"`},
	} {
		row.pause()
		u.eventually("both say that the resync is paused "+row.name, func() bool {
			x, y := u.a.peer("b"), u.b.peer("a")
			return x.Replication == PausedSyncS && strings.Contains(x.Paused, row.onA) &&
				y.Replication == PausedSyncT && strings.Contains(y.Paused, row.onB)
		})
		u.c.write(12<<20, randomly(rng, rigBlock))
		u.c.flush()
		u.eventually("writes reach the target", func() bool { return u.b.vol.Status().End == u.a.vol.Status().End })
		var before Progress
		u.eventually("what was under way has arrived", func() bool { // for longer than the target waits for more
			last := before
			before = *u.a.peer("b").Progress
			time.Sleep(resyncSyncDelay + resyncSyncDelay/4)
			return last.Done == before.Done && last.Compared == before.Compared
		})
		if before.Left != -1 || before.Done == before.Total {
			t.Fatalf("%s: %+v", row.name, before)
		}
		row.going()
		u.eventually("it goes on "+row.name, func() bool {
			p := u.a.peer("b").Progress
			return p != nil && p.Done > before.Done && u.b.peer("a").Replication == SyncTarget
		})
	}
	u.a.setRate(ResyncUnlimited)
	u.members()
	u.inSync("a", "b")
}

// A resync that begins while it is paused waits, until neither side holds it back.
func TestResyncBeginsPaused(t *testing.T) {
	u := newUndoRig(t, seed(t), nil)
	u.b.isolate()
	u.b.start()
	u.a.vol.PauseResync()
	u.b.vol.PauseResync()
	u.b.heal()
	paused := func() bool {
		return u.a.peer("b").Replication == PausedSyncS && u.b.peer("a").Replication == PausedSyncT
	}
	u.eventually("it is paused", func() bool {
		v := u.a.vol
		v.mu.Lock()
		l := v.peers["b"].link
		told := l != nil && l.theirPause
		v.mu.Unlock()
		return told && paused()
	})
	u.a.vol.ResumeResync()
	u.eventually("b alone holds it back", func() bool { return paused() && strings.Contains(u.a.peer("b").Paused, `on node "b"`) })
	if p := u.a.peer("b").Progress; p.Done != 0 || p.Compared != 0 {
		t.Errorf("some of it went on nevertheless: %+v", p)
	}
	u.b.vol.ResumeResync()
	u.members()
	u.inSync("a", "b")
}

// Two targets are resynced at once, and share the rate.
func TestResyncOfTwoTargets(t *testing.T) {
	const rate, area = 16 << 20, 8 << 20
	r, a, b, c, w := trio(t, func(o *Options) { o.ResyncRate = rate })
	rng := seed(t)
	b.kill()
	c.kill()
	first := a.vol.Status().Journal.First
	for i := 0; a.vol.Status().Journal.First == first; i++ {
		if i > 400 {
			t.Fatalf("the journal does not overflow\n%s", r.describe())
		}
		w.write(int64(i)%(area>>20)<<20, randomly(rng, 1<<20))
	}
	w.flush()
	began := time.Now()
	b.start()
	c.start()
	r.eventually("both are resynced at once", func() bool {
		x, y := a.peer("b"), a.peer("c")
		return x.Replication == SyncSource && y.Replication == SyncSource && x.Progress.Compared > 0 && y.Progress.Compared > 0
	})
	r.members()
	// Each volume's burst is paceBurst of a second's bytes.
	if least := time.Duration(float64(2*area)/rate*float64(time.Second)) - paceBurst; time.Since(began) < least {
		t.Errorf("they took %v, at a rate that allows %v", time.Since(began), least)
	}
	r.inSync("a", "b", "c")
}
