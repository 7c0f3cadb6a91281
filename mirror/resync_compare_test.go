package mirror

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// A compareRig is a pair of which b was away for longer than a's journal reaches
// back, while clients wrote to all of area: mostly what stood there before.
type compareRig struct {
	*rig
	a, b  *rigNode
	c     *client
	image []byte // of the area
}

const compareArea = 8 << 20

func newCompareRig(t *testing.T, rng *rand.Rand, opts func(*Options)) *compareRig {
	t.Helper()
	u := &compareRig{rig: newRig(t, opts, "a", "b")}
	u.a, u.b, u.c = u.pair()
	u.image = randomly(rng, compareArea)
	clear(u.image[1<<20:][:256<<10]) // some of it is zeroes
	u.rewrite()
	u.inSync("a", "b")
	base := u.b.vol.Status().End
	u.b.kill()
	u.dropped(u.a, u.b)
	for i := 0; u.a.vol.Status().Journal.First <= base+1; i++ {
		if i > 50 {
			t.Fatalf("the journal does not overflow\n%s", u.describe())
		}
		u.rewrite()
	}
	return u
}

// rewrite writes the image, again.
func (u *compareRig) rewrite() {
	for off := 0; off < len(u.image); off += 1 << 20 {
		u.c.write(int64(off), u.image[off:off+1<<20])
	}
	u.c.flush()
}

// Only the blocks cross that differ, whatever the bitmap says: a bit of them is
// enough.
func TestResyncSendsWhatDiffers(t *testing.T) {
	rng := seed(t)
	u := newCompareRig(t, rng, nil)
	const changed = 25
	for i := range changed { // no two of them neighbours
		at := i*(compareArea/changed/rigBlock)*rigBlock + rng.IntN(rigBlock)
		u.image[at] ^= 1 << rng.IntN(8)
		u.c.write(int64(at), u.image[at:at+1])
	}
	u.c.flush()
	sent := u.gate("a", "b").sent.Load()
	u.b.start()
	u.members()
	sent = u.gate("a", "b").sent.Load() - sent
	last := u.a.peer("b").LastResync
	if last == nil || last.Equal != compareArea-changed*rigBlock || last.Copied != changed*rigBlock || last.Compared != compareArea {
		t.Fatalf("%+v", last)
	}
	if last.Done != last.Total || last.Left != 0 {
		t.Errorf("not all of it is done: %+v", last)
	}
	if sent < changed*rigBlock || sent > changed*rigBlock*5/4 {
		t.Errorf("%d bytes crossed for %d blocks", sent, changed)
	}
	u.inSync("a", "b")
}

// Without checksums, and with a peer that knows none, everything crosses.
func TestResyncWithoutChecksums(t *testing.T) {
	for _, row := range []struct {
		name    string
		opts    func(*Options)
		version uint16
	}{
		{"by the options", func(o *Options) { o.NoResyncChecksums = true }, 0},
		{"protocol version 1", nil, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			u := newCompareRig(t, seed(t), row.opts)
			u.version.Store(uint32(row.version))
			sent := u.gate("a", "b").sent.Load()
			u.b.start()
			u.members()
			sent = u.gate("a", "b").sent.Load() - sent
			if last := u.a.peer("b").LastResync; last == nil || last.Compared != 0 || last.Copied != compareArea || sent < compareArea*3/4 {
				t.Errorf("%d bytes crossed: %+v", sent, last)
			}
			u.inSync("a", "b")
		})
	}
}

// Where everything differs little is compared, and all of it arrives.
func TestResyncOfWhatAllDiffers(t *testing.T) {
	rng := seed(t)
	u := newCompareRig(t, rng, nil)
	copy(u.image, randomly(rng, compareArea))
	u.rewrite()
	u.b.start()
	u.members()
	last := u.a.peer("b").LastResync
	if last == nil || last.Equal != 0 || last.Copied != compareArea || last.Compared > compareArea/2 || last.Compared < blindLeast {
		t.Errorf("%+v", last)
	}
	u.inSync("a", "b")
}

// Where a stretch that differs ends, no more is sent in vain than was sent before, and
// the first look at something equal ends that.
func TestUnlike(t *testing.T) {
	const piece = MaxCompare
	rng := seed(t)
	for range 1000 {
		var u unlike
		differs := int64(1+rng.IntN(1000)) * piece
		for range differs / piece {
			if !u.sends(piece) {
				u.judged(piece, 0)
			}
		}
		inVain := int64(0)
		for u.sends(piece) {
			inVain += piece
		}
		if inVain > min(differs, blindMost) {
			t.Fatalf("%d bytes sent in vain, %d differed: %+v", inVain, differs, u)
		}
		u.judged(piece, 1)
		if u.sends(piece) {
			t.Fatal("something is equal, and more is sent without a look")
		}
	}
	var u unlike
	compared := int64(0)
	for range (1 << 30) / piece {
		if !u.sends(piece) {
			compared += piece
			u.judged(piece, 0)
		}
	}
	if compared > 16<<20 {
		t.Errorf("%d bytes of 1 GiB that differs are compared", compared)
	}
}

// Writes that arrive while blocks are compared are on both sides in the end,
// whichever of them either side had when it looked.
func TestResyncComparesUnderWrites(t *testing.T) {
	rng := seed(t)
	u := newCompareRig(t, rng, func(o *Options) { o.ResyncRate, o.SyncInterval = 4<<20, time.Millisecond })
	u.b.start()
	u.eventually("blocks are compared", func() bool {
		p := u.a.peer("b").Progress
		return p != nil && p.Equal > 0
	})
	for i := 0; u.a.peer("b").Resyncs == 0; i++ {
		off := rng.IntN(compareArea/512-16) * 512
		n := 512 * (1 + rng.IntN(16))
		p := u.image[off : off+n]
		if rng.IntN(2) == 0 { // then and now: what is equal differs, and is equal again
			u.c.write(int64(off), randomly(rng, n))
		}
		u.c.write(int64(off), p)
		if rng.IntN(8) == 0 {
			copy(p, randomly(rng, n))
			u.c.write(int64(off), p)
		}
		if i == 300 {
			u.a.setRate(ResyncUnlimited)
		}
	}
	u.members()
	u.inSync("a", "b")
	if got := u.c.read(0, compareArea); !bytes.Equal(got, u.image) {
		t.Error("and they are not what was written")
	}
}

// A cachedStore shows, in place of some of its blocks, what a page cache holds
// whose sync failed: it is not on the disk.
type cachedStore struct {
	Store
	cached  []byte // from offset 0 on; nothing once it was dropped
	dropped atomic.Bool
	synced  atomic.Bool
}

func (s *cachedStore) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Store.ReadAt(p, off)
	if !s.dropped.Load() && off < int64(len(s.cached)) {
		copy(p, s.cached[off:])
	}
	return n, err
}

func (s *cachedStore) Sync() error { s.synced.Store(true); return s.Store.Sync() }

func (s *cachedStore) DropCache() error {
	s.dropped.Store(s.synced.Load())
	return nil
}

// A resync that goes on after the target came back does not take for equal what
// the target's page cache alone has.
func TestInvariant9ComparesTheDisk(t *testing.T) {
	rng := seed(t)
	var cached []byte
	u := newCompareRig(t, rng, func(o *Options) {
		if o.Node == "b" && cached != nil {
			o.Store = &cachedStore{Store: o.Store, cached: cached}
		}
		o.ResyncRate = 4 << 20
	})
	copy(u.image, randomly(rng, 1<<20))
	u.rewrite()
	u.b.start()
	u.eventually("b is in the middle of a resync", func() bool {
		p := u.a.peer("b").Progress
		return p != nil && p.Compared > 0 && p.Compared < p.Total
	})
	u.b.kill()
	cached = u.image
	u.a.restart() // it forgets what b has
	u.a.promote(false)
	u.c = u.a.attach()
	u.b.start()
	u.members()
	u.b.kill()
	u.b.start()
	cached = nil
	got := make([]byte, compareArea)
	if _, err := u.b.store.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, u.image) {
		t.Error("b's disk has not what a's has")
	}
}

// A checksum tells any bit, the key, and the length.
func TestHasher(t *testing.T) {
	rng := seed(t)
	h := newHasher(ID{1})
	p := randomly(rng, rigBlock)
	seen := map[checksum]int{h.sum(p): -1}
	for bit := range rigBlock * 8 {
		p[bit/8] ^= 1 << (bit % 8)
		s := h.sum(p)
		if other, ok := seen[s]; ok {
			t.Fatalf("bits %d and %d have the same checksum", bit, other)
		}
		seen[s] = bit
		p[bit/8] ^= 1 << (bit % 8)
	}
	if newHasher(ID{2}).sum(p) == h.sum(p) {
		t.Error("the key makes no difference")
	}
	if h.sum(make([]byte, 512)) == h.sum(make([]byte, 1024)) {
		t.Error("the length makes no difference")
	}
	long := randomly(rng, 3*rigBlock+512)
	if got := h.sums(nil, long); len(got) != 4 || got[1] != h.sum(long[rigBlock:2*rigBlock]) || got[3] != h.sum(long[3*rigBlock:]) {
		t.Error("the checksums are not those of the blocks")
	}
	sums := make([]checksum, 0, 4)
	if n := testing.AllocsPerRun(100, func() { h.sums(sums, long) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A peer that answers what it was not asked, or asks for more than it may, ends
// the session.
func TestResyncPeerThatLies(t *testing.T) {
	r := newRig(t, nil, "a", "b")
	v := r.node("a").vol
	l := &link{v: v, peer: v.peers["b"], version: 2, kick: make(chan struct{}, 1)}
	body := func(m Message) []byte { return m.Encode(nil) }
	ask := func(off, n int64) []byte { return body(&ChecksumRequest{Key: ID{1}, Offset: off, Length: n}) }
	answer := body(&Checksums{Sums: make([]checksum, 1)})
	bad := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", what, err)
		}
	}
	bad("asked without a resync", l.compare(ask(0, 4096)))
	bad("answered without a resync", l.checksums(answer))
	l.target.resync, l.target.compares = &resyncTarget{}, make(chan ChecksumRequest, maxCompares)
	bad("asked past the end", l.compare(ask(rigSize-4096, 8192)))
	bad("asked in the middle of a block", l.compare(ask(512, 4096)))
	bad("asked for nothing", l.compare(ask(0, 0)))
	bad("asked for too much", l.compare(ask(0, MaxCompare+4096)))
	for range maxCompares {
		if err := l.compare(ask(0, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	bad("asked once too often", l.compare(ask(0, 4096)))

	rs := &resyncSource{sums: make(chan *Checksums, maxCompares), feedKick: make(chan struct{}, 1)}
	l.source.resync = rs
	f := &feeder{l: l, r: rs, hash: newHasher(ID{1})}
	bad("answered without being asked", f.judge(&Checksums{Sums: make([]checksum, 1)}))
	f.asked = []ChecksumRequest{{Offset: 8192, Length: 8192}}
	bad("answered something else", f.judge(&Checksums{Offset: 4096, Sums: make([]checksum, 2)}))
	bad("answered too little", f.judge(&Checksums{Offset: 8192, Sums: make([]checksum, 1)}))
	for range maxCompares {
		if err := l.checksums(answer); err != nil {
			t.Fatal(err)
		}
	}
	bad("answered too often", l.checksums(answer))
	for _, m := range []Message{&Checksums{}, &Checksums{Sums: make([]checksum, maxCompareBlocks+1)}} {
		bad("checksums of no or too many blocks", new(Checksums).Decode(body(m)))
	}
}

// setRate changes the rate of the resyncs that are under way.
func (n *rigNode) setRate(rate int64) {
	n.vol.mu.Lock()
	defer n.vol.mu.Unlock()
	n.vol.pace.fixed = rate
}
