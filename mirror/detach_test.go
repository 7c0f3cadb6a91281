package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// detachRows are the ways in which a replica's disk fails.
var detachRows = []struct {
	op    fakedisk.Op
	files string
}{
	{fakedisk.OpWrite, "*.seg*"},
	{fakedisk.OpDatasync, "*.seg*"},
	{fakedisk.OpWrite, fakeData},
	{fakedisk.OpDatasync, fakeData},
	{fakedisk.OpRead, fakeData},
	{fakedisk.OpWrite, superblockName},
	{fakedisk.OpDatasync, superblockName},
	{fakedisk.OpWrite, intentName},
	{fakedisk.OpDatasync, intentName},
	{fakedisk.AnyChange, "*"}, // all of it
}

// failAfter makes the k-th operation from now on that matches, and every later
// one, fail.
func (n *rigNode) failAfter(op fakedisk.Op, pattern string, k int, err error) (failed *atomic.Bool) {
	failed = new(atomic.Bool)
	var seen atomic.Int64
	n.fake.OnOp(func(o fakedisk.Op, file string) error {
		match, _ := path.Match(pattern, file)
		change := op == fakedisk.AnyChange && o != fakedisk.OpOpen && o != fakedisk.OpList && o != fakedisk.OpLock && o != fakedisk.OpRead && o != fakedisk.OpSize
		if !match || o != op && !change || seen.Add(1) <= int64(k) {
			return nil
		}
		failed.Store(true)
		return err
	})
	return failed
}

// A workload is what one client wrote to the first blocks, one write at a time.
type workload struct {
	*client
	blocks [64]byte
	n      int
}

// until writes, reads and flushes, no request of which may fail, until the
// condition holds and a while longer; the last request is a flush.
func (c *workload) until(n *rigNode, cond func() bool) {
	c.t.Helper()
	r, want := n.rig, &c.blocks
	for first := c.n; ; c.n++ {
		i := c.n
		b := i % len(want)
		want[b] = byte(i + 1)
		c.write(int64(b)*rigBlock, fill(want[b], rigBlock))
		if i%5 == 4 {
			c.flush()
		}
		k := (i * 7) % len(want)
		if got := c.read(int64(k)*rigBlock, rigBlock); !bytes.Equal(got, fill(want[k], rigBlock)) {
			c.t.Fatalf("block %d reads %d, written %d\n%s", k, got[0], want[k], r.describe())
		}
		if i%16 == 15 {
			n.vol.applyAll() // it rests while there are flushes
			_ = n.vol.takeCheckpoint()
			n.vol.clearIntent()
		}
		if i%50 == 49 {
			_ = n.vol.commitSuper(func(*Superblock) {})
		}
		if cond() && i-first > len(want) {
			c.flush()
			return
		}
		if i-first == 20000 {
			c.t.Fatalf("in vain\n%s", r.describe())
		}
	}
}

func always() bool { return true }

// check reads what was written.
func (c *workload) check(from *client) {
	c.t.Helper()
	for i, want := range c.blocks {
		if got := from.read(int64(i)*rigBlock, rigBlock); !bytes.Equal(got, fill(want, rigBlock)) {
			c.t.Fatalf("block %d reads %d, written %d", i, got[0], want)
		}
	}
}

// TestInvariant9Detach: the disk of the Primary of a pair fails, at every k-th
// operation of whatever kind on whatever file. Clients see no error, and read
// what they wrote; the volume goes on through the peer, which has everything
// that was flushed, says so, and takes over; the replica that failed stays
// Failed.
func TestInvariant9Detach(t *testing.T) {
	t.Parallel()
	for _, row := range detachRows {
		for _, k := range []int{0, 1, 3} {
			if k > 0 && (underRace || row.files == intentName) { // which is written but once
				continue
			}
			t.Run(fmt.Sprintf("%s/%s/%d", row.op, row.files, k), func(t *testing.T) {
				t.Parallel()
				r := newFakeRig(t, nil, "a", "b")
				a, b, c := r.pair()
				failed := a.failAfter(row.op, row.files, k, errDisk)
				w := workload{client: c}
				w.until(a, func() bool { return failed.Load() && a.vol.Status().Disk == Diskless })
				r.detached(a, b)
				r.eventually("it uses its disk no more", func() bool {
					before := a.fake.Count(fakedisk.AnyOp)
					w.until(a, always)
					return a.fake.Count(fakedisk.AnyOp) == before
				})
				r.eventually("nothing is left pending on the peer", func() bool {
					s := b.vol.Status()
					return s.Applied == s.End && b.vol.pending.n.Load() == 0
				})
				// The peer takes over, without force: nobody else has a disk.
				a.demote()
				if s := a.vol.Status(); s.Disk != Failed || s.Role != Secondary {
					t.Errorf("demoted, it is %v %v", s.Role, s.Disk)
				}
				a.vol.note() // as in the background: its journal knows nothing of that
				_ = a.vol.syncNow()
				b.promote(false)
				d := b.attach()
				w.check(d)
				a.kill()
				a.fake.OnOp(nil)
				b.kill()
				a.start()
				if s := a.vol.Status(); s.Disk != Failed && row.op != fakedisk.AnyChange {
					t.Errorf("after a restart it is %v", s.Disk)
				}
				// Whether that it failed could be noted or not, it does not lead
				// by itself: as far as it knows b may have gone on.
				var unsafe *UnsafePromotionError
				if err := a.vol.Promote(t.Context(), PromoteOptions{}); !errors.As(err, &unsafe) {
					t.Errorf("it is promoted without its peer: %v", err)
				}
				a.createAgain()
				b.start()
				r.meet()
				b.promote(false)
				r.members()
				r.inSync("b", "a")
			})
		}
	}
}

// detached waits until a goes on without its disk, and checks that nobody says
// anything else.
func (r *rig) detached(a, b *rigNode) {
	r.t.Helper()
	r.eventually("the peer records the set without the Primary", func() bool {
		s, p := b.vol.Status(), b.peer(a.name)
		return len(s.InSync) == 1 && s.InSync[0].Node == b.name && s.Disk == UpToDate && p.Disk != nil && *p.Disk == Diskless && !p.Member
	})
	s := a.vol.Status()
	if s.Role != Primary || !s.Serving || s.Disk != Diskless || s.Failure == "" || len(s.InSync) != 1 || !a.peer(b.name).Member {
		r.t.Errorf("it goes on diskless and says\n%s", r.describe())
	}
}

// TestInvariant9PassOn: with on-io-error pass-on clients get the error instead,
// and nothing that was flushed is missing on the peer.
func TestInvariant9PassOn(t *testing.T) {
	t.Parallel()
	for _, row := range detachRows {
		if row.op == fakedisk.OpRead {
			continue // an error of that read alone
		}
		t.Run(string(row.op)+"/"+row.files, func(t *testing.T) {
			r := newFakeRig(t, func(o *Options) { o.OnIOError = PassOn }, "a", "b")
			a, b, c := r.pair()
			c.write(0, fill(1, rigBlock))
			c.flush()
			a.failAfter(row.op, row.files, 0, errDisk)
			for i := 0; a.vol.failed() == nil; i++ {
				<-c.async(rigBlock, fill(2, rigBlock))
				<-c.asyncFlush()
				a.vol.applyAll() // it rests while there are flushes
				_ = a.vol.takeCheckpoint()
				a.vol.clearIntent()
				a.vol.clearIntent() // now it is idle
				if i > 20 {
					_ = a.vol.commitSuper(func(*Superblock) {})
				}
			}
			if s := a.vol.Status(); s.Disk != Failed || s.Serving {
				t.Errorf("it is %v, serving %v", s.Disk, s.Serving)
			}
			for _, w := range []waitDone{c.async(0, fill(3, rigBlock)), c.asyncFlush()} {
				if err := <-w; !errors.Is(err, errDisk) {
					t.Errorf("answered with %v", err)
				}
			}
			b.promote(true)
			if got := b.attach().read(0, 1); got[0] != 1 {
				t.Errorf("the peer reads %d", got[0])
			}
		})
	}
}

// TestInvariant9SecondaryTellsAtOnce: a Secondary whose disk fails is out of the
// in-sync set without waiting for any time limit (a minute here), and stays out.
func TestInvariant9SecondaryTellsAtOnce(t *testing.T) {
	t.Parallel()
	for _, row := range detachRows {
		if row.op == fakedisk.OpRead {
			continue // a Secondary reads for a diskless Primary only
		}
		for _, k := range []int{0, 2} {
			if k > 0 && (underRace || row.files == intentName) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s/%d", row.op, row.files, k), func(t *testing.T) {
				t.Parallel()
				r := newFakeRig(t, slowToDrop, "a", "b")
				a, b, c := r.pair()
				failed := b.failAfter(row.op, row.files, k, errDisk)
				w := workload{client: c}
				w.until(b, failed.Load)
				r.eventually("it is Failed and out", func() bool {
					s := a.vol.Status()
					return b.vol.Status().Disk == Failed && len(s.InSync) == 1 && s.InSync[0].Node == "a" && s.Stable == s.End
				})
				c.write(0, fill(7, rigBlock))
				c.flush()
				b.kill()
				b.fake.OnOp(nil)
				if row.op == fakedisk.AnyChange { // it could not note that it failed
					b.createAgain()
					return
				}
				b.start()
				r.eventually("it is refused", func() bool { return a.peer("b").Problem != "" })
				if s := b.vol.Status(); s.Disk != Failed || a.peer("b").Member {
					t.Errorf("it is %v\n%s", s.Disk, r.describe())
				}
				b.createAgain()
				r.members()
				r.inSync("a", "b")
			})
		}
	}
}

// TestInvariant6Detach (membership before ack): what a Primary sequenced when
// its disk failed is acknowledged by nobody before the peer has recorded, and
// has durably, the set without it; then all of it is.
func TestInvariant6Detach(t *testing.T) {
	r := newFakeRig(t, patient, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	held := b.stallAt(fakedisk.OpDatasync, superblockName, nil)
	a.failAfter(fakedisk.OpWrite, "*.seg*", 0, errDisk)
	a.vol.change.Lock() // the generation cannot begin
	begin := sync.OnceFunc(a.vol.change.Unlock)
	defer begin()
	w := c.async(rigBlock, fill(2, rigBlock))
	r.eventually("b acknowledged it", func() bool { return a.peer("b").Received == a.vol.Status().End })
	c.pending(w, "a write that the peer has, of a set with the Primary")
	begin()
	held.wait(t) // b is about to record the set
	more := c.async(2*rigBlock, fill(3, rigBlock))
	f := c.asyncFlush()
	r.eventually("they are sequenced", func() bool { s := a.vol.Status(); return s.End >= s.Committed+3 })
	for _, w := range []waitDone{w, more, f} {
		c.pending(w, "a request before the set is recorded")
	}
	held.letGo()
	for _, w := range []waitDone{w, more, f} {
		c.must(w)
	}
	if s := b.vol.Status(); len(s.InSync) != 1 || s.Durable < a.vol.Status().End {
		t.Errorf("all is acknowledged, and\n%s", r.describe())
	}
}

// TestInvariant3DisklessReads: what a diskless Primary reads is what was
// committed: not what its peer has and it does not know of yet, and not less.
func TestInvariant3DisklessReads(t *testing.T) {
	r := newFakeRig(t, patient, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	a.failAfter(fakedisk.OpWrite, "*.seg*", 0, errDisk)
	c.write(0, fill(2, rigBlock))
	r.detached(a, b)
	if got := c.read(0, 1); got[0] != 2 {
		t.Errorf("a committed write that the peer has not applied reads %d", got[0])
	}
	// b has the next one; a does not hear of it.
	g := r.gate("b", "a")
	end := b.vol.Status().End
	g.hold()
	w := c.async(0, fill(3, rigBlock))
	r.eventually("b has it", func() bool { return b.vol.Status().End > end })
	read := make(chan byte, 1)
	go func() { read <- c.read(0, 1)[0] }()
	r.eventually("b is asked", func() bool { return len(b.link("a").server.slots) == 0 && a.link("b").underWay() == 1 })
	c.pending(w, "a write that the Primary has no word of")
	b.vol.applyRound()
	g.open()
	if got := <-read; got != 2 {
		t.Errorf("an uncommitted write was read: %d", got)
	}
	c.must(w)
	if got := c.read(0, 1); got[0] != 3 {
		t.Errorf("a committed write reads %d", got[0])
	}
	c.flush()
	if got := c.read(0, 1); got[0] != 3 {
		t.Errorf("a flushed write reads %d", got[0])
	}
}

func (n *rigNode) link(peer string) *link {
	n.vol.mu.Lock()
	defer n.vol.mu.Unlock()
	return n.vol.peers[peer].link
}

func (l *link) underWay() int {
	l.reads.mu.Lock()
	defer l.reads.mu.Unlock()
	return len(l.reads.waiting)
}

// TestDisklessPeerBlinks: a peer that is cut off, or killed and started again,
// for less than the time limit is waited for, by reads too; nothing is lost.
func TestDisklessPeerBlinks(t *testing.T) {
	r := newFakeRig(t, slowToDrop, "a", "b")
	a, b, c := r.pair()
	failed := a.failAfter(fakedisk.OpDatasync, "*.seg*", 0, errDisk)
	load := workload{client: c}
	load.until(a, func() bool { return failed.Load() && a.vol.Status().Disk == Diskless })
	r.detached(a, b)
	for i, blink := range []func(){
		func() { b.isolate(); b.heal() },
		func() { b.restart() },
	} {
		w := c.async(64*rigBlock, fill(byte(i+100), rigBlock))
		blink()
		read := make(chan byte, 1)
		go func() { read <- c.read(rigBlock, 1)[0] }()
		c.must(w)
		<-read
		load.until(a, always)
		load.check(c)
		r.detached(a, b)
	}
}

// TestDisklessLosesTheLast: with its last member gone for longer than the time
// limit a diskless Primary answers everything with an error, reads too, and
// never anything else. Without force the member takes over.
func TestDisklessLosesTheLast(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	failed := a.failAfter(fakedisk.OpWrite, "*.seg*", 0, errDisk)
	load := workload{client: c}
	load.until(a, func() bool { return failed.Load() && a.vol.Status().Disk == Diskless })
	if err := a.vol.Disconnect("b"); err == nil {
		t.Error("the last member was disconnected")
	}
	b.isolate()
	w := c.async(64*rigBlock, fill(200, rigBlock))
	read := make(chan error, 1)
	go func() { read <- c.s.ReadAt(make([]byte, rigBlock), 0) }()
	if err := <-w; !errors.Is(err, ErrFailed) {
		t.Errorf("a write is answered with %v", err)
	}
	if err := <-read; !errors.Is(err, ErrFailed) {
		t.Errorf("a read is answered with %v", err)
	}
	if err := <-c.asyncFlush(); !errors.Is(err, ErrFailed) {
		t.Errorf("a flush is answered with %v", err)
	}
	if s := a.vol.Status(); s.Disk != Failed || s.Serving {
		t.Errorf("it is %v, serving %v", s.Disk, s.Serving)
	}
	b.heal()
	r.eventually("b has lost its Primary", func() bool { return b.vol.Status().Disk == Consistent })
	b.promote(false)
	load.check(b.attach())
}

// TestDetachOverBitmap: the bitmap of a peer that has just become a member fails.
func TestDetachOverBitmap(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	b.kill()
	load := workload{client: c}
	load.until(a, func() bool { return len(a.vol.Status().InSync) == 1 })
	a.failAfter(fakedisk.OpWrite, outOfSync, 0, errDisk)
	b.start()
	load.until(a, func() bool { return a.vol.Status().Disk == Diskless })
	r.detached(a, b)
	load.check(c)
}

// TestDisklessFlush: what a diskless Primary acknowledges to a flush survives the
// loss of the Primary and of the peer's power.
func TestDisklessFlush(t *testing.T) {
	r := newFakeRig(t, patient, "a", "b")
	a, b, c := r.pair()
	a.failAfter(fakedisk.OpWrite, "*.seg*", 0, errDisk)
	c.write(0, fill(1, rigBlock))
	r.detached(a, b)
	c.flush()
	c.write(rigBlock, fill(2, rigBlock))
	fua := writeReq(2*rigBlock, fill(3, rigBlock))
	fua.FUA = true
	c.must(c.submit(fua))
	c.write(3*rigBlock, fill(4, rigBlock)) // which nothing made durable
	b.powerLoss(fakedisk.LoseAll)
	a.kill()
	b.start()
	b.promote(true)
	d := b.attach()
	for i, want := range []byte{1, 2, 3, 0} {
		if got := d.read(int64(i)*rigBlock, 1); got[0] != want {
			t.Errorf("block %d reads %d, want %d", i, got[0], want)
		}
	}
}

// TestDisklessBackPressure: what waits in a diskless Primary's memory for the
// peer is bounded like anywhere, and moves without a flush or a background sync.
func TestDisklessBackPressure(t *testing.T) {
	r := newFakeRig(t, func(o *Options) { patient(o); o.PendingLimit = 4 << 20 }, "a", "b")
	a, b, c := r.pair()
	a.failAfter(fakedisk.OpWrite, "*.seg*", 0, errDisk)
	c.write(0, fill(1, rigBlock))
	r.detached(a, b)
	g := r.gate("b", "a")
	g.hold()
	done := make(chan error, 20)
	go func() {
		for i := range cap(done) {
			w := c.async(int64(i%16)<<20, fill(byte(i), 1<<20)) // blocks when there is no room
			go func() { done <- <-w }()
		}
	}()
	r.eventually("memory is full", func() bool { return a.vol.Status().PendingBytes >= 4<<20 })
	if got := a.vol.Status().PendingBytes; got > 4<<20+roundBytes+1<<20 {
		t.Errorf("%d bytes wait in memory", got)
	}
	g.open()
	for range cap(done) {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(hangTime):
			t.Fatalf("a write hangs\n%s", r.describe())
		}
	}
	c.flush()
	r.eventually("memory is empty", func() bool { return a.vol.Status().PendingBytes == 0 })
}

// TestDisklessOfThree: with two peers a diskless Primary waits for both, and goes
// on through the one when the other is lost.
func TestDisklessOfThree(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b", "c")
	a, b, c := r.node("a"), r.node("b"), r.node("c")
	r.eventually("all meet", func() bool {
		return a.peer("b").Verdict != "" && a.peer("c").Verdict != "" && b.peer("c").Verdict != ""
	})
	a.promote(false)
	set := func(n *rigNode, k int) func() bool { return func() bool { return len(n.vol.Status().InSync) == k } }
	r.eventually("all are members", set(a, 3))
	load := workload{client: a.attach()}
	failed := a.failAfter(fakedisk.OpWrite, "*.seg*", 3, errDisk)
	load.until(a, func() bool { return failed.Load() && set(a, 2)() && set(b, 2)() && set(c, 2)() })
	b.kill()
	load.until(a, func() bool { return set(a, 1)() && set(c, 1)() })
	load.check(load.client)
	a.kill()
	r.eventually("c has lost its Primary", func() bool { return c.vol.Status().Disk == Consistent })
	c.promote(false) // whoever is absent is excluded
	load.check(c.attach())
}

// TestDisklessReadFails: a member that cannot read either passes that on, for
// that read alone.
func TestDisklessReadFails(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, rigBlock))
	c.flush()
	r.inSync("a", "b")
	a.failAfter(fakedisk.OpWrite, "*.seg*", 0, errDisk)
	c.write(rigBlock, fill(2, rigBlock))
	r.detached(a, b)
	b.failAfter(fakedisk.OpRead, fakeData, 0, errDisk)
	if err := c.s.ReadAt(make([]byte, rigBlock), 0); !errors.Is(err, errPeerRead) {
		t.Errorf("a read is answered with %v", err)
	}
	b.fake.OnOp(nil)
	if got := c.read(0, 1); got[0] != 1 {
		t.Errorf("reads %d", got[0])
	}
}

// TestDisklessLongReads: a read of any length, many at once, and of a range that
// ends the volume.
func TestDisklessLongReads(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	want := make([]byte, rigSize)
	for i := range want {
		want[i] = byte(i / 4096 * 7)
	}
	c.write(0, want)
	a.failAfter(fakedisk.OpWrite, "*.seg*", 0, errDisk)
	c.write(0, want[:rigBlock])
	r.detached(a, b)
	done := make(chan error, 30)
	for i := range cap(done) {
		go func() {
			off := int64(i) * 4096
			got := make([]byte, rigSize-off)
			if i%10 > 0 {
				got = got[:rigBlock+1]
			}
			err := c.s.ReadAt(got, off)
			if err == nil && !bytes.Equal(got, want[off:][:len(got)]) {
				err = fmt.Errorf("%d bytes at %d are wrong", len(got), off)
			}
			done <- err
		}()
	}
	for range cap(done) {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(hangTime):
			t.Fatal("a read hangs")
		}
	}
	if err := c.s.ReadAt(make([]byte, 2), rigSize-1); !errors.Is(err, block.ErrOutOfRange) {
		t.Errorf("past the end: %v", err)
	}
}

// TestPartingWord: whoever ends a connection that was closed with a reason tells
// the peer that reason: it must not wait for a replica that has failed as if that
// were about to connect again.
func TestPartingWord(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	_, b, _ := r.pair()
	l := b.link("a")
	b.vol.mu.Lock()
	l.peer.closeLink(CodeFailed, "its disk failed")
	b.vol.mu.Unlock()
	if bye, ok := l.farewell(errAgain).(*Bye); !ok || bye.Code != CodeFailed {
		t.Errorf("the receiver, which finds the connection closed, says %+v", bye)
	}
}
