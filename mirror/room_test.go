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
// the next word of the Primary's is behind them. Its journal is smaller than the
// Primary's, which leaves so much free in its own that no equal one is ever so full.
func TestRoomComesWithTheRecords(t *testing.T) {
	r := newRigSmall(t, CreateOptions{Size: rigSize}, true, journal.Options{Size: 2 << 20, SegmentSize: 64 << 10, AnySize: true}, patient, "a", "b")
	b := r.node("b")
	b.kill()
	r.small = smallJournal
	b.create()
	b.start()
	a, b, c := r.pair()
	synced := b.stallAt(fakedisk.OpDatasync, intentName, nil) // its first record's region is new
	v := b.vol
	hasRoom := func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.journal.Size()-v.journal.Used() >= v.limits.batch(rigBlock)
	}
	for hasRoom() { // one by one: what is on its way would wait for room with an older word
		c.write(0, fill(1, rigBlock))
		r.eventually("b has it", func() bool { return b.vol.Status().End == a.vol.Status().End })
	}
	end := a.vol.Status().End
	a.vol.mu.Lock()
	l := a.vol.peers["b"].link
	a.vol.mu.Unlock()
	l.sending.Lock() // b hears nothing more
	talk := sync.OnceFunc(l.sending.Unlock)
	defer talk()
	synced.letGo()
	must(t, v.syncNow())
	must(t, a.vol.syncNow())
	r.eventually("all is stable", func() bool { return a.vol.Status().Stable == end })
	if stable := v.Status().Stable; stable >= end || hasRoom() {
		t.Fatalf("b knows LSN %d of %d as stable, and has room: %v", stable, end, hasRoom())
	}
	w := c.async(0, fill(2, rigBlock)) // comes back once a's journal has taken it
	talk()
	c.must(w)
	c.flush()
}

// In the middle of a write nothing makes room but its end: a Secondary waits for what
// the write's next records take, and not for the reserve that its Primary keeps.
func TestRoomInTheMiddleOfAWrite(t *testing.T) {
	r := newRigSmall(t, CreateOptions{Size: rigSize}, true, smallJournal, patient, "a", "b")
	a, b, c := r.pair()
	most := int(a.vol.Info().AtomicWrite)
	for i := range 8 { // more than the journal holds
		c.write(int64(i*most), fill(byte(i), most))
		c.flush()
	}
	if has, all := b.vol.Status().Durable, a.vol.Status().Durable; has != all {
		t.Errorf("b has LSN %d durably, a %d", has, all)
	}
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
