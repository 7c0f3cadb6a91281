package mirror

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

// What the two sides of a split-brain say of themselves and of each other, held
// against what the test knows that it wrote.

// A splitWriter writes to one side and remembers what, and where.
type splitWriter struct {
	c      *client
	writes int
	bytes  int64
	blocks map[int64]bool // of rigBlock, by number
}

func newSplitWriter(n *rigNode) *splitWriter {
	return &splitWriter{c: n.attach(), blocks: map[int64]bool{}}
}

func (w *splitWriter) write(off int64, p []byte) {
	w.c.t.Helper()
	w.c.write(off, p)
	w.note(off, int64(len(p)))
}

// random does n things at random places: mostly it writes, sometimes it trims.
func (w *splitWriter) random(rng *rand.Rand, n int) {
	w.c.t.Helper()
	for range n {
		off, k := rng.Int64N(rigSize/rigBlock-8)*rigBlock, 1+rng.Int64N(8)
		if rng.IntN(8) == 0 {
			w.c.must(w.c.submit(&block.Request{Op: block.OpTrim, Off: off, Len: k * rigBlock}))
			w.note(off, k*rigBlock)
			continue
		}
		w.write(off, fill(byte(1+rng.IntN(255)), int(k*rigBlock)))
	}
}

func (w *splitWriter) note(off, n int64) {
	w.writes++
	w.bytes += n
	for b := off / rigBlock; b*rigBlock < off+n; b++ {
		w.blocks[b] = true
	}
}

// ranges are the blocks that were written.
func (w *splitWriter) ranges() []Range {
	s := rangeSet{limit: 1 << 20}
	for b := range w.blocks {
		s.add(b*rigBlock, rigBlock)
	}
	return s.ranges()
}

// parted makes two replicas that share what was written first, and are both
// Primary, cut off from each other.
func parted(t *testing.T, opts func(*Options)) (r *rig, a, b *rigNode) {
	t.Helper()
	r = newFakeRig(t, opts, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, 64*rigBlock))
	c.flush()
	r.inSync("a", "b")
	c.s.Close()
	a.isolate()
	r.eventually("a is alone", func() bool { return len(a.vol.Status().InSync) == 1 })
	b.promote(true)
	return r, a, b
}

// split is what a node says of its split-brain.
func (n *rigNode) split() SplitReport {
	n.rig.t.Helper()
	list, err := n.vol.SplitBrains()
	if err != nil || len(list) != 1 {
		n.rig.t.Fatalf("%s says %+v, %v\n%s", n.name, list, err, n.rig.describe())
	}
	return list[0]
}

// is fails if a side is not what its writer wrote, exactly.
func (s *SplitSide) is(t *testing.T, who string, w *splitWriter) {
	t.Helper()
	if s.Writes != uint64(w.writes) || s.Trimmed != 0 || s.Bytes != w.bytes || s.Accuracy != RangesExact || !slices.Equal(s.Ranges, w.ranges()) {
		t.Fatalf("%s: %d writes (%d trimmed), %d bytes, ranges %v %v; written were %d, %d bytes, %v",
			who, s.Writes, s.Trimmed, s.Bytes, s.Accuracy, s.Ranges, w.writes, w.bytes, w.ranges())
	}
}

// Each has told the other what it wrote, and the connection breaks before one of them
// has heard it: that one is met again, by a peer that is StandAlone by then.
func TestSplitBrainIsToldTwice(t *testing.T) {
	for _, to := range []string{"a", "b"} {
		t.Run("unheard by "+to, func(t *testing.T) {
			r, a, b := parted(t, nil)
			from := a
			if to == "a" {
				from = b
			}
			g := r.gate(from.name, to)
			g.holdAt(FrameSplit)
			a.heal()
			r.eventually(from.name+" is StandAlone", func() bool {
				p := from.peer(to)
				return p.Connection == StandAlone && p.SplitBrain != nil
			})
			if p := r.node(to).peer(from.name); p.Connection == StandAlone {
				t.Fatalf("%s heard of it: %+v", to, p)
			}
			g.drop()
			for _, pair := range [][2]*rigNode{{a, b}, {b, a}} {
				r.eventually(pair[0].name+" knows", func() bool {
					p := pair[0].peer(pair[1].name)
					return p.Connection == StandAlone && pair[0].split().Theirs.Accuracy == RangesExact
				})
			}
			v := from.vol // and it is left at that
			r.eventually("both know that both know", func() bool {
				v.mu.Lock()
				defer v.mu.Unlock()
				return !v.peers[to].untold
			})
		})
	}
}

// Both nodes say the same of both sides, exactly, and when and how they parted.
func TestSplitBrainIsMeasured(t *testing.T) {
	rng := seed(t)
	began := time.Now()
	r, a, b := parted(t, nil)
	wa, wb := newSplitWriter(a), newSplitWriter(b)
	wa.random(rng, 1+rng.IntN(40))
	wb.random(rng, 1+rng.IntN(40))
	wa.write(0, fill(2, rigBlock))
	wb.write(0, fill(3, 2*rigBlock))
	wa.c.flush()
	wb.c.flush()
	a.heal()
	r.splitBrain()
	x, y := a.split(), b.split()
	x.Ours.is(t, "a of itself", wa)
	x.Theirs.is(t, "a of b", wb)
	y.Ours.is(t, "b of itself", wb)
	y.Theirs.is(t, "b of a", wa)
	if x.Common != y.Common || x.Common.LSN == 0 {
		t.Fatalf("common are %v and %v", x.Common, y.Common)
	}
	if want := overlap(wa.ranges(), wb.ranges()); !slices.Equal(x.Both, want) || !slices.Equal(y.Both, want) || !x.BothExact || len(want) == 0 {
		t.Fatalf("both wrote %v and %v, exactly %v", x.Both, y.Both, want)
	}
	if x.Parted.Before(began) || x.Parted.After(time.Now()) || x.Parted.UnixNano() != y.Parted.UnixNano() || x.Met.Before(x.Parted) {
		t.Errorf("they parted at %v and %v, and met at %v", x.Parted, y.Parted, x.Met)
	}
	for _, s := range []SplitSide{x.Theirs, y.Ours} {
		g := s.Generations[0]
		if len(s.Generations) != 1 || !g.Promotion || g.Forced == nil || !*g.Forced || !slices.Equal(g.Without, []string{"a"}) || g.First != x.Common.LSN+1 || g.Last != s.End {
			t.Errorf("b went through %+v", s.Generations)
		}
	}
	for _, s := range []SplitSide{x.Ours, y.Theirs} {
		g := s.Generations[0]
		if len(s.Generations) != 1 || g.Promotion || g.Forced != nil || !slices.Equal(g.Without, []string{"b"}) {
			t.Errorf("a went through %+v", s.Generations)
		}
	}
	// It goes on being measured on this side, and stays as it was on the other.
	wa.write(100*rigBlock, fill(9, 3*rigBlock))
	x = a.split()
	x.Ours.is(t, "a of itself, later", wa)
	x.Theirs.is(t, "a of b, later", wb)
}

// What left the journal is counted all the same, and its blocks are those of the
// bitmap.
func TestSplitBrainPastTheJournal(t *testing.T) {
	r, a, b := parted(t, nil)
	wa, wb := newSplitWriter(a), newSplitWriter(b)
	mib := int64(1 << 20)
	for i := range int64(70) { // the journal has 64
		wa.write(i%8*mib, fill(byte(i+1), int(mib)))
		wa.c.flush()
	}
	wb.write(15*mib, fill(7, rigBlock))
	wb.c.flush()
	r.eventually("a has trimmed its journal", func() bool {
		kick(a.vol.checkpointKick)
		return a.vol.Status().Journal.First > 30
	})
	a.heal()
	r.splitBrain()
	for _, s := range []SplitSide{a.split().Ours, b.split().Theirs} {
		if s.Writes != 70 || s.Trimmed == 0 || s.Bytes != int64(70-s.Trimmed)*mib || s.Accuracy != RangesBlocks ||
			!slices.Equal(s.Ranges, []Range{{0, 8 * mib}}) {
			t.Errorf("a has %d writes, %d of them trimmed, %d bytes, ranges %v %v", s.Writes, s.Trimmed, s.Bytes, s.Accuracy, s.Ranges)
		}
	}
	x := a.split()
	x.Theirs.is(t, "a of b", wb)
	if len(x.Both) > 0 || x.BothExact {
		t.Errorf("both wrote %v, exactly %v", x.Both, x.BothExact)
	}
	// A bitmap that is relative to a later record says nothing of the time before.
	v := a.vol
	p := v.peers["b"]
	v.mu.Lock()
	p.bits.SetBase(v.position(x.Common.LSN + 2))
	v.mu.Unlock()
	if s := a.split().Ours; s.Accuracy != RangesUnknown || s.Writes != 70 {
		t.Errorf("with a bitmap of a later base: %d writes, ranges %v", s.Writes, s.Accuracy)
	}
}

// More ranges than are listed are covered all the same.
func TestSplitBrainInManyPlaces(t *testing.T) {
	r, a, b := parted(t, nil)
	wa, wb := newSplitWriter(a), newSplitWriter(b)
	for i := range int64(1500) {
		wa.write(2*i*rigBlock, fill(5, rigBlock))
	}
	wa.c.flush()
	wb.write(rigBlock, fill(7, rigBlock))
	wb.c.flush()
	a.heal()
	r.splitBrain()
	for _, s := range []SplitSide{a.split().Ours, b.split().Theirs} {
		if s.Writes != 1500 || s.Bytes != 1500*rigBlock || s.Accuracy != RangesFilled || len(s.Ranges) > maxSplitRanges {
			t.Errorf("a has %d writes, %d bytes, %d ranges %v", s.Writes, s.Bytes, len(s.Ranges), s.Accuracy)
		}
		if got := overlap(s.Ranges, wa.ranges()); lengthOf(got) != 1500*rigBlock {
			t.Errorf("of %d bytes %d are covered", 1500*rigBlock, lengthOf(got))
		}
	}
}

// What a peer said outlives the connection, and a restart on either side while
// they do not reach each other; and is forgotten once they are one again.
func TestSplitBrainIsRemembered(t *testing.T) {
	r, a, b := parted(t, nil)
	wa, wb := newSplitWriter(a), newSplitWriter(b)
	wa.write(0, fill(2, 3*rigBlock))
	wa.c.flush()
	wb.write(rigBlock, fill(3, rigBlock))
	wb.c.flush()
	a.heal()
	r.splitBrain()
	met := a.split().Met
	a.isolate()
	b.isolate()
	for _, n := range []*rigNode{a, b} {
		n.restart()
	}
	x, y := a.split(), b.split()
	x.Ours.is(t, "a of itself", wa)
	x.Theirs.is(t, "a of b", wb)
	y.Ours.is(t, "b of itself", wb)
	y.Theirs.is(t, "b of a", wa)
	if x.Met.UnixNano() != met.UnixNano() {
		t.Errorf("they met at %v, and now they say %v", met, x.Met)
	}
	if g := x.Ours.Generations[0]; !g.Began.IsZero() || g.Forced != nil {
		t.Errorf("a remembers, over a restart, %+v", g)
	}
	if g := x.Theirs.Generations[0]; g.Began.IsZero() || g.Forced == nil {
		t.Errorf("a forgot, over a restart, what b said: %+v", g)
	}
	if s := a.peer("b").SplitBrain; s == nil || s.Ours != 1 || s.Theirs != 1 {
		t.Errorf("a's status is %+v", s)
	}
	if err := a.vol.Promote(t.Context(), PromoteOptions{}); err == nil || !strings.Contains(err.Error(), "split-brain") {
		t.Errorf("promoted without force: %v", err)
	}
	b.replaceFake()
	a.heal()
	b.heal()
	a.promote(true)
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	if list, err := a.vol.SplitBrains(); err != nil || len(list) > 0 {
		t.Errorf("a still says %+v, %v", list, err)
	}
	names, err := a.fake.List()
	if err != nil || slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, splitPrefix) }) {
		t.Errorf("a keeps %v, %v", names, err)
	}
	r.inSync("a", "b")
}

// replaceFake gives the node an empty replica, as after the loss of its disk.
func (n *rigNode) replaceFake() {
	n.kill()
	n.createFake()
	n.start()
}

// A peer that is lost in the middle of telling leaves the counts, and says so of
// the ranges.
func TestSplitBrainHalfTold(t *testing.T) {
	r, a, b := parted(t, slowToDrop)
	wa, wb := newSplitWriter(a), newSplitWriter(b)
	wa.write(0, fill(2, rigBlock))
	wa.c.flush()
	wb.write(0, fill(3, rigBlock))
	wb.write(0, fill(3, rigBlock))
	wb.c.flush()
	measures := b.stallAt(fakedisk.OpRead, "*.seg", nil)
	a.heal()
	measures.wait(t)
	r.eventually("a has met b", func() bool { return a.peer("b").Verdict == "SplitBrain" })
	a.isolate()
	r.eventually("a knows of the split-brain", func() bool { return a.peer("b").SplitBrain != nil })
	measures.letGo()
	x := a.split()
	if x.Theirs.Writes != 2 || x.Theirs.Accuracy != RangesUnknown || len(x.Theirs.Ranges) > 0 || x.BothExact {
		t.Fatalf("a says of b %+v", x.Theirs)
	}
	x.Ours.is(t, "a of itself", wa)
}

// sampleSplit has every field of the file set.
func sampleSplit() *metSplit {
	m := &metSplit{at: time.Unix(0, 1_700_000_000_123_456_789)}
	for _, s := range sampleMessages() {
		switch s := s.(type) {
		case *Hello:
			m.hello = *s
		case *SplitFrame:
			m.told = *s
		}
	}
	return m
}

func TestSplitFile(t *testing.T) {
	b := golden(t, "split-brain-v1", sampleSplit().encode())
	m, err := decodeSplit(b)
	if err != nil || !bytes.Equal(m.encode(), b) || !m.at.Equal(sampleSplit().at) {
		t.Fatalf("%+v, %v", m, err)
	}
	for at := range b {
		bad := bytes.Clone(b)
		bad[at] ^= 1
		if _, err := decodeSplit(bad); err == nil {
			t.Fatalf("byte %d flipped: taken", at)
		}
	}
	for n := range b {
		if _, err := decodeSplit(b[:n]); err == nil {
			t.Fatalf("cut to %d bytes: taken", n)
		}
	}
}

// FuzzSplitFile: what is on the disk makes nothing panic, and what is taken
// encodes to the same bytes.
func FuzzSplitFile(f *testing.F) {
	f.Add(sampleSplit().encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= splitHeader {
			b = bytes.Clone(b)
			mendCRCs(b[splitHeader:])
			mendSplitCRC(b)
		}
		m, err := decodeSplit(b)
		if err == nil && !bytes.Equal(m.encode(), b) {
			t.Fatalf("%x\n%x", m.encode(), b)
		}
	})
}

func mendSplitCRC(b []byte) { le.PutUint32(b[12:], crc32.Checksum(b[16:], journal.Castagnoli)) }
