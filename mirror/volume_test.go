package mirror

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/store"
)

func TestSingleCopySurvivesKill(t *testing.T) {
	r := newRig(t, nil, "a")
	a := r.node("a")
	r.eventually("a serves", func() bool { return a.vol.Status().Serving })
	c := a.attach()
	c.write(0, fill(1, 8192))
	c.write(4096, fill(2, 4096))
	c.write(1<<20, fill(3, 3<<20)) // several records
	c.must(c.submit(&block.Request{Op: block.OpTrim, Off: 1<<20 + 4096, Len: 4096}))
	check := func(c *client) {
		t.Helper()
		want := append(fill(1, 4096), fill(2, 4096)...)
		if got := c.read(0, 8192); !bytes.Equal(got, want) {
			t.Fatalf("first blocks read %d %d", got[0], got[4096])
		}
		if got := c.read(1<<20, 12288); got[0] != 3 || got[4096] != 0 || got[8191] != 0 || got[8192] != 3 {
			t.Fatalf("trimmed range reads %d %d %d", got[0], got[4096], got[8192])
		}
	}
	check(c)
	c.flush()
	a.restart()
	r.eventually("a serves again", func() bool { return a.vol.Status().Serving })
	check(a.attach())
	r.eventually("everything is applied", func() bool { s := a.vol.Status(); return s.Applied == s.End })
	check(a.attach())
}

func TestMirrorAndFailover(t *testing.T) {
	r := newRig(t, nil, "a", "b")
	a, b := r.node("a"), r.node("b")
	r.eventually("they meet", func() bool { return a.peer("b").Verdict != "" && b.peer("a").Verdict != "" })
	a.promote(false)
	r.eventually("b is a member", func() bool { return a.peer("b").Member && len(b.vol.Status().InSync) == 2 })
	c := a.attach()
	for i := range int64(64) {
		c.write(i*rigBlock, fill(byte(i+1), rigBlock))
	}
	c.flush()
	r.inSync("a", "b")

	c.write(0, fill(99, rigBlock))
	c.flush()
	a.kill()
	r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
	if err := b.vol.Promote(t.Context(), PromoteOptions{}); err == nil {
		t.Fatal("b was promoted without force although a may have gone on alone")
	}
	b.promote(true)
	d := b.attach()
	if got := d.read(0, rigBlock); got[0] != 99 {
		t.Fatalf("flushed write lost: reads %d", got[0])
	}
	d.write(rigBlock, fill(77, rigBlock))
	d.flush()

	a.start()
	r.eventually("a is a member again", func() bool { return b.peer("a").Member })
	r.inSync("b", "a")
	if p := b.peer("a"); p.Resyncs != 0 || p.CatchUps != 1 {
		t.Fatalf("came back by %d catch-ups and %d resyncs", p.CatchUps, p.Resyncs)
	}
}

// TestResyncWhenTheJournalDoesNotReach: the peer is away for longer than the
// journal keeps; what it lacks went into its bitmap.
func TestResyncWhenTheJournalDoesNotReach(t *testing.T) {
	r := newRig(t, nil, "a", "b")
	a, b := r.node("a"), r.node("b")
	r.eventually("they meet", func() bool { return a.peer("b").Verdict != "" && b.peer("a").Verdict != "" })
	a.promote(false)
	r.eventually("b is a member", func() bool { return a.peer("b").Member })
	c := a.attach()
	c.write(0, fill(1, 1<<20))
	c.flush()
	r.inSync("a", "b")
	b.kill()
	r.eventually("b is dropped", func() bool { return !a.peer("b").Member })
	for i := range 160 { // more than the journal holds
		c.write(int64(i%8)<<20, fill(byte(i+2), 1<<20))
	}
	c.flush()
	if oos := a.peer("b").OutOfSync; oos == 0 || oos > 8<<20 {
		t.Fatalf("%d bytes out of sync, up to 8 MiB were written", oos)
	}
	b.start()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // writers do not stop for a resync
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				c.write(int64(i%4096)*rigBlock, fill(byte(i), rigBlock))
			}
		}
	}()
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	close(stop)
	<-done
	c.flush()
	r.inSync("a", "b")
	r.eventually("a knows that b lacks nothing", func() bool { return a.peer("b").OutOfSync == 0 })
	if p := a.peer("b"); p.Resyncs != 1 {
		t.Fatalf("came back by %d resyncs", p.Resyncs)
	}
}

// A peer that joins has its bitmap cleared, and nothing is set in it by a trim that
// began before: its bits would stay, for records that the peer has.
func TestJoinWaitsForATrim(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	b.kill()
	r.dropped(a, b)
	c.write(0, fill(1, rigBlock))
	p := a.vol.peers["b"]
	cleared := func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		return p.bitsThrough == a.vol.end
	}
	a.vol.tail.Lock() // as a trim does, which holds b for away
	b.start()
	r.eventually("b is a member", func() bool { return a.peer("b").Member })
	for began := time.Now(); time.Since(began) < 100*time.Millisecond && !cleared(); {
		time.Sleep(time.Millisecond) // it may not be, so there is nothing to wait for
	}
	p.mark(0, rigBlock)
	a.vol.tail.Unlock()
	r.eventually("b lacks nothing", func() bool { return cleared() && a.peer("b").OutOfSync == 0 })
}

// TestLostDiskIsFilled: a peer whose disk was replaced is filled from nothing.
func TestLostDiskIsFilled(t *testing.T) {
	r := newRig(t, nil, "a", "b")
	a, b := r.node("a"), r.node("b")
	r.eventually("they meet", func() bool { return a.peer("b").Verdict != "" && b.peer("a").Verdict != "" })
	b.promote(false)
	r.eventually("a is a member", func() bool { return b.peer("a").Member })
	c := b.attach()
	for i := range 100 {
		c.write(int64(i%8)<<20, fill(byte(i+2), 1<<20))
	}
	c.flush()
	r.inSync("b", "a")
	a.replace()
	r.eventually("a is a member again", func() bool { return b.peer("a").Member })
	r.inSync("b", "a")
}

// TestKillLoop kills one of two nodes at random under load and checks, after
// each round, that what was flushed is there and that both replicas are equal.
func TestKillLoop(t *testing.T) {
	rng := seed(t)
	r := newRig(t, nil, "a", "b")
	nodes := []*rigNode{r.node("a"), r.node("b")}
	r.eventually("they meet", func() bool {
		return nodes[0].peer("b").Verdict != "" && nodes[1].peer("a").Verdict != ""
	})
	nodes[0].promote(false)
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	flushed := make([]byte, rigSize/rigBlock) // the value of each block at the last flush
	written := make([]byte, rigSize/rigBlock)
	for round := range rounds {
		p, s := nodes[0], nodes[1]
		r.eventually("both are members", func() bool { return len(p.vol.Status().InSync) == 2 && len(s.vol.Status().InSync) == 2 })
		c := p.attach()
		kill := 50 + rng.IntN(400)
		victim := rng.IntN(2)
		for i := range kill {
			block := rng.IntN(len(written))
			written[block] = byte(1 + (round*31+i)%255)
			c.write(int64(block)*rigBlock, fill(written[block], rigBlock))
			if rng.IntN(20) == 0 {
				c.flush()
				copy(flushed, written)
			}
		}
		if victim == 1 {
			s.kill()
			c.write(0, fill(byte(round+1), rigBlock))
			written[0] = byte(round + 1)
			c.flush()
			copy(flushed, written)
			s.start()
		} else {
			p.kill()
			switch rng.IntN(2) {
			case 0: // the other takes over
				s.promote(true)
				nodes[0], nodes[1] = s, p
				p.start()
			case 1: // it comes back
				p.start()
				r.eventually("they meet again", func() bool { return p.peer(s.name).Verdict != "" && s.peer(p.name).Verdict != "" })
				p.promote(false)
			}
		}
		p = nodes[0]
		c = p.attach()
		for b := range flushed {
			got := c.read(int64(b)*rigBlock, rigBlock)
			// Every write was acknowledged, and no memory was lost.
			if !bytes.Equal(got, fill(written[b], rigBlock)) {
				t.Fatalf("round %d: block %d reads %d, written %d, flushed %d", round, b, got[0], written[b], flushed[b])
			}
		}
		r.inSync(nodes[0].name, nodes[1].name)
	}
}

// TestLongTrim: the length of a trim is no payload, and asks for no room in the
// journal.
func TestLongTrim(t *testing.T) {
	r := newRig(t, nil, "a")
	a := r.node("a")
	r.eventually("a serves", func() bool { return a.vol.Status().Serving })
	c := a.attach()
	v := a.vol
	v.mu.Lock()
	v.super.Size = 4 << 30 // as if the volume were longer than its journal
	v.mu.Unlock()
	done := c.submit(&block.Request{Op: block.OpTrim, Off: 0, Len: 1 << 30})
	select {
	case <-done: // its application fails past the store's end, which is no matter here
	case <-time.After(hangTime):
		t.Fatal("a trim longer than the journal hangs")
	}
}

// TestLongestWrites: the smallest journal takes the longest request that a
// client may send, again and again, also while a peer is away.
func TestLongestWrites(t *testing.T) {
	const size = 64 << 20
	dir, err := disk.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(dir, CreateOptions{Node: "a", Volume: "v", Size: size, JournalSize: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	v, err := Open(Options{Node: "a", Volume: "v", FS: dir, Store: store.NewMemory(size), Peers: []string{"b"}, Dialer: nowhere{},
		SyncInterval: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close(t.Context())
	if err := v.Promote(t.Context(), PromoteOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	s, err := v.Attach(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t, s}
	for i := range 8 {
		c.write(int64(i%2)*block.MaxBuffer, fill(byte(i+1), block.MaxBuffer))
	}
	if p := c.read(0, 1); p[0] != 7 {
		t.Errorf("reads %d", p[0])
	}
}

// nowhere dials nobody.
type nowhere struct{}

func (nowhere) Dial(context.Context, string) (net.Conn, error) { return nil, errors.New("nowhere") }

// TestFUAIsSyncedAtOnce: a write with FUA to a pair is durable on both without
// waiting for the background sync, which is an hour away here.
func TestFUAIsSyncedAtOnce(t *testing.T) {
	r := newRig(t, func(o *Options) { o.SyncInterval = time.Hour }, "a", "b")
	a, b := r.node("a"), r.node("b")
	r.eventually("they meet", func() bool { return a.peer("b").Verdict != "" && b.peer("a").Verdict != "" })
	a.promote(false)
	r.eventually("b is a member", func() bool { return a.peer("b").Member })
	c := a.attach()
	for i := range 20 {
		w := writeReq(int64(i)*rigBlock, fill(byte(i+1), rigBlock))
		w.FUA = true
		c.must(c.submit(w))
		if s := b.vol.Status(); s.Durable != a.vol.Status().End {
			t.Fatalf("write %d is answered, and the peer is durable through LSN %d of %d", i, s.Durable, a.vol.Status().End)
		}
	}
}
