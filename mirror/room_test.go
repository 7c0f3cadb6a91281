package mirror

import (
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

// smallJournal takes but one or two of the longest writes that it allows.
var smallJournal = journal.Options{Size: 1 << 20, SegmentSize: 64 << 10, AnySize: true}

// A Secondary's journal is full, and what it does not know to be stable is made so by
// what comes with the records that wait for room. Without the rule it waits for ever:
// the next word of the Primary's is behind them.
func TestRoomComesWithTheRecords(t *testing.T) {
	r := newRigSmall(t, CreateOptions{Size: rigSize}, true, smallJournal, patient, "a", "b")
	a, b, c := r.pair()
	synced := b.stallAt(fakedisk.OpDatasync, intentName, nil) // its first record's region is new
	most := int(a.vol.limits.write)
	c.write(0, fill(1, most))
	for v := a.vol; v.journal.Size()-v.journal.Used() >= v.limits.room(v.limits.record); {
		c.write(0, fill(1, rigBlock))
	}
	end := a.vol.Status().End
	a.vol.mu.Lock()
	l := a.vol.peers["b"].link
	a.vol.mu.Unlock()
	l.sending.Lock() // b hears nothing more
	talk := sync.OnceFunc(l.sending.Unlock)
	defer talk()
	synced.letGo()
	must(t, b.vol.syncNow())
	must(t, a.vol.syncNow())
	r.eventually("the write is stable", func() bool { return a.vol.Status().Stable == end })
	v := b.vol
	v.mu.Lock()
	stable, room := v.stable, v.journal.Size()-v.journal.Used() >= v.limits.batch(int64(most))
	v.mu.Unlock()
	if stable >= end || room {
		t.Fatalf("b knows LSN %d of %d as stable, and has room: %v", stable, end, room)
	}
	w := c.async(0, fill(2, most)) // comes back once a's journal has taken it
	talk()
	c.must(w)
	c.flush()
}

// A trim that moves nothing wakes nobody: who waits for room asks for the next one as
// soon as it wakes, and the two would keep a processor busy.
func TestTrimThatMovesNothing(t *testing.T) {
	r := newRigSmall(t, CreateOptions{Size: rigSize}, true, smallJournal, patient, "a")
	a := r.node("a")
	a.promote(false)
	c := a.attach()
	c.write(0, fill(1, int(a.vol.limits.write)))
	c.flush()
	v := a.vol
	v.note()
	must(t, v.syncNow())
	v.applyAll()
	kick(v.applyKick)
	r.eventually("everything is applied", func() bool { return v.Status().Applied == v.Status().End })
	must(t, v.takeCheckpoint())
	trim := func() (woken bool) {
		v.mu.Lock()
		ch := v.changed()
		v.starved = true
		v.mu.Unlock()
		v.trim()
		select {
		case <-ch:
			woken = true
		default:
		}
		return woken
	}
	r.eventually("a trim wakes nobody", func() bool { return !trim() })
}
