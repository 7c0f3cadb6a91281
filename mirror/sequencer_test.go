package mirror

import (
	"bytes"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// TestLargestWriteBehindASmallOne: the largest write there is, in one batch with
// a small one before it, waits until the smallest journal has room for it, and
// nothing fails.
func TestLargestWriteBehindASmallOne(t *testing.T) {
	r := newRigOf(t, 2*block.MaxBuffer, true, nil, "a")
	a := r.node("a")
	r.eventually("a serves", func() bool { return a.vol.Status().Serving })
	c := a.attach()
	synced := a.stallAt(fakedisk.OpDatasync, fakeData, nil)
	for range 28 { // until it is half full
		c.write(0, fill(1, 1<<20))
	}
	c.flush()
	go func() { _ = a.vol.takeCheckpoint() }()
	synced.wait(t)

	small, large := make(waitDone, 1), make(waitDone, 1)
	one, other := writeReq(0, fill(3, 4096)), writeReq(4096, fill(4, block.MaxBuffer))
	one.Done, other.Done = small, large
	submitted := make(chan struct{})
	go func() {
		defer close(submitted)
		c.s.Submit([]*block.Request{one, other})
	}()
	c.must(small)
	if s := a.vol.Status(); s.Disk != UpToDate || s.Journal.Used < 33<<20 {
		t.Fatalf("%v, with %d bytes in the journal: %s", s.Disk, s.Journal.Used, s.Failure)
	}
	c.pending(large, "a write for which the journal has no room")
	synced.letGo()
	c.must(large)
	<-submitted
	c.flush()
	if got := c.read(0, 8192); !bytes.Equal(got, append(fill(3, 4096), fill(4, 4096)...)) {
		t.Errorf("it reads %d and %d", got[0], got[4096])
	}
}

// TestCrowd: whoever submits gives way to others while one of the last syncs
// answered several clients, and no longer.
func TestCrowd(t *testing.T) {
	v := &Volume{}
	answered := func(n int) bool {
		done := make(waitDone, n)
		for range n {
			v.flushes = append(v.flushes, flushWait{req: &block.Request{Op: block.OpFlush, Done: done}})
		}
		v.completeFlushes()
		return v.crowd.Load() > 0
	}
	if answered(1) {
		t.Error("one client is a crowd")
	}
	if !answered(2) {
		t.Error("two clients are none")
	}
	for i := range crowdTurns {
		if is, want := answered(1), i < crowdTurns-1; is != want {
			t.Errorf("%d flushes later: %v, want %v", i+1, is, want)
		}
	}
	answered(2)
	for range 2 * crowdTurns {
		if !answered(0) {
			t.Fatal("a sync that answered nobody counts")
		}
	}
}
