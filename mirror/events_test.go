package mirror

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
)

// An eventLog keeps what volumes told.
type eventLog struct {
	mu  sync.Mutex
	all []Event
}

func (l *eventLog) told(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

// of is what a node told of a kind.
func (l *eventLog) of(node string, kind EventKind) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.all), func(e Event) bool { return e.Node != node || e.Kind != kind })
}

func (l *eventLog) hooks(o *Options) { o.Hooks.Event = l.told }

// A peer that goes out of sync, and the resync, are told of on both sides, in order.
func TestEventsOfAResync(t *testing.T) {
	var log eventLog
	u := newUndoRig(t, seed(t), log.hooks)
	u.eventually("a told that b is out of sync", func() bool { return len(log.of("a", EventOutOfSync)) > 0 })
	if got := log.of("a", EventOutOfSync); len(got) != 1 || got[0].Peer != "b" || got[0].Role != Primary || got[0].Volume != rigVolume {
		t.Errorf("out-of-sync: %+v", got)
	}
	u.b.start()
	u.members()
	u.eventually("both told that the resync is through", func() bool {
		return len(log.of("a", EventResync)) >= 2 && len(log.of("b", EventResync)) >= 2
	})
	if got := log.of("b", EventAfterResyncTarget); len(got) != 1 || got[0].Peer != "a" || got[0].Disk != UpToDate {
		t.Errorf("after-resync-target: %+v", got)
	}
	if got := log.of("a", EventAfterResyncTarget); len(got) != 0 {
		t.Errorf("the source: %+v", got)
	}
}

func TestEventsOfFailures(t *testing.T) {
	var log eventLog
	r := newFakeRig(t, log.hooks, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	b.isolate()
	r.dropped(a, b)
	c.write(0, fill(2, rigBlock))
	c.flush()
	a.demote()
	a.isolate()
	b.heal()
	b.promote(true)
	w := b.attach()
	w.write(0, fill(3, rigBlock))
	w.flush()
	a.heal()
	r.eventually("both tell of the split-brain", func() bool {
		return len(log.of("a", EventSplitBrain)) == 1 && len(log.of("b", EventSplitBrain)) == 1
	})
	if e := log.of("b", EventSplitBrain)[0]; e.Peer != "a" || e.Role != Primary || !strings.Contains(e.Reason, "split-brain") {
		t.Errorf("%+v", e)
	}
	b.vol.fault(errDisk)
	r.eventually("b tells that its disk failed", func() bool { return len(log.of("b", EventLocalIOError)) == 1 })
	if e := log.of("b", EventLocalIOError)[0]; !strings.Contains(e.Reason, errDisk.Error()) {
		t.Errorf("%+v", e)
	}
}

// A hook that does not return keeps nothing from going on.
func TestEventThatHangs(t *testing.T) {
	leave := make(chan struct{})
	var told atomic.Int32
	r := newRig(t, func(o *Options) {
		if o.Node == "a" {
			o.Hooks.Event = func(Event) { told.Add(1); <-leave }
		}
	}, "a", "b")
	defer close(leave)
	a, _, c := r.pair()
	a.vol.mu.Lock()
	for range 3 * maxEvents {
		a.vol.emit(EventOutOfSync, "b", "")
	}
	a.vol.mu.Unlock()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	r.eventually("one was told", func() bool { return told.Load() == 1 })
}

// before-resync-target may take longer than a peer may be silent, and its error
// keeps the replica as it is.
func TestBeforeResyncTarget(t *testing.T) {
	var refuse atomic.Bool
	var asked []Event
	var mu sync.Mutex
	u := newUndoRig(t, seed(t), func(o *Options) {
		o.PeerTimeout = 500 * time.Millisecond
		o.Hooks.BeforeResyncTarget = func(ctx context.Context, e Event) error {
			mu.Lock()
			asked = append(asked, e)
			mu.Unlock()
			if refuse.Load() {
				return errors.New("the backup has not been made")
			}
			select {
			case <-time.After(2 * o.PeerTimeout):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	refuse.Store(true)
	u.b.start()
	u.eventually("b refuses", func() bool { return u.b.peer("a").Connection == StandAlone })
	if p := u.b.peer("a").Problem; !strings.Contains(p, "the backup has not been made") || !strings.Contains(p, "lockstep connect data") {
		t.Error(p)
	}
	if s := u.b.vol.Status(); s.Disk == Inconsistent || s.End != u.base {
		t.Errorf("b is %v at LSN %d, and was at %d", s.Disk, s.End, u.base)
	}
	refuse.Store(false)
	if err := u.b.vol.Connect("a"); err != nil {
		t.Fatal(err)
	}
	u.members()
	u.inSync("a", "b")
	mu.Lock()
	defer mu.Unlock()
	if len(asked) < 2 || asked[1].Peer != "a" || asked[1].Resumed {
		t.Errorf("asked %+v", asked)
	}
}

// Nothing is acknowledged without a peer that may still be writing.
func TestFencePeer(t *testing.T) {
	old := fencePause
	fencePause = 100 * time.Millisecond
	t.Cleanup(func() { fencePause = old }) // the rig's own cleanup comes first
	var fence, asked atomic.Int32          // 0 refuses
	r := newRig(t, func(o *Options) {
		o.Hooks.FencePeer = func(_ context.Context, e Event) error {
			asked.Add(1)
			if fence.Load() == 0 || e.Kind != EventFencePeer {
				return errors.New("the power switch does not answer")
			}
			return nil
		}
	}, "a", "b")
	a, b, c := r.pair()
	if asked.Load() != 0 {
		t.Errorf("asked %d times of a peer that is there", asked.Load())
	}
	b.isolate()
	r.eventually("fence-peer is asked", func() bool { return asked.Load() > 0 })
	w := c.submit(writeReq(0, fill(1, rigBlock)))
	flush := c.submit(&block.Request{Op: block.OpFlush})
	r.eventually("it says so", func() bool { return strings.Contains(a.peer("b").Problem, "the power switch does not answer") })
	time.Sleep(200 * time.Millisecond) // for what must not come
	select {
	case <-flush:
		t.Fatal("a flush was acknowledged without the peer, which is not fenced")
	default:
	}
	if !a.peer("b").Member {
		t.Fatal("b was removed from the in-sync set")
	}
	var err error
	if err = b.vol.Promote(t.Context(), PromoteOptions{Force: true}); err == nil || !strings.Contains(err.Error(), "the power switch does not answer") {
		t.Fatalf("promoted past a peer that is not fenced: %v", err)
	}
	fence.Store(1)
	c.must(w)
	c.must(flush)
	b.heal()
	r.members()
	r.inSync("a", "b")
	// It is asked anew each time that the peer is lost.
	n := asked.Load()
	b.isolate()
	c.write(0, fill(2, rigBlock))
	c.flush()
	if asked.Load() == n {
		t.Error("it was not asked again")
	}
}
