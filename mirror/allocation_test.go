package mirror

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
)

// An idleStore is not written to while it is locked. It counts who looks for
// holes.
type idleStore struct {
	Store
	sync.RWMutex
	looks atomic.Int64
	fails atomic.Bool
}

func (s *idleStore) WriteAt(p []byte, off int64) (int, error) {
	s.RLock()
	defer s.RUnlock()
	return s.Store.WriteAt(p, off)
}

func (s *idleStore) WritevAt(bufs [][]byte, off int64) error {
	s.RLock()
	defer s.RUnlock()
	return s.Store.WritevAt(bufs, off)
}

func (s *idleStore) Zero(off, n int64, punch bool) error {
	s.RLock()
	defer s.RUnlock()
	return s.Store.Zero(off, n, punch)
}

func (s *idleStore) Extents(off, n int64, report func(off, n int64, data bool) error) error {
	s.looks.Add(1)
	if s.fails.Load() {
		return errors.New("no look for holes today")
	}
	return s.Store.Extents(off, n, report)
}

// extentMap is what a session says of every block of a range.
func extentMap(t *testing.T, c *client, off, n int64) []block.Allocation {
	t.Helper()
	var m []block.Allocation
	at := off
	err := c.s.(block.Sparse).Extents(off, n, func(o, k int64, a block.Allocation) bool {
		if o != at || k <= 0 || k%rigBlock != 0 {
			t.Fatalf("%d bytes at %d are reported, at %d", k, o, at)
		}
		for ; k > 0; k -= rigBlock {
			m = append(m, a)
		}
		at = off + int64(len(m))*rigBlock
		return true
	})
	if err != nil || at != off+n {
		t.Fatalf("the report of %d bytes at %d ends at %d: %v", n, off, at, err)
	}
	return m
}

// Where a session's extents come from: the journal's records as long as they are
// pending, the backing store's holes after that.
func TestExtentsOfAVolume(t *testing.T) {
	var st *idleStore
	r := newRig(t, func(o *Options) {
		st = &idleStore{Store: o.Store}
		o.Store = st
	}, "a")
	a := r.node("a")
	r.eventually("a serves", func() bool { return a.vol.Status().Serving })
	c := a.attach()
	const hole = block.Hole | block.Zero
	want := make([]block.Allocation, rigSize/rigBlock)
	check := func(when string) {
		t.Helper()
		got := extentMap(t, c, 0, rigSize)
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: block %d is %d, want %d", when, i, got[i], want[i])
				return
			}
		}
	}
	paint := func(first, n int, as block.Allocation) {
		for i := range n {
			want[first+i] = as
		}
	}
	applied := func() {
		t.Helper()
		c.flush()
		r.eventually("all is applied", func() bool {
			a.vol.applyAll()
			s := a.vol.Status()
			return s.Applied == s.End
		})
	}

	paint(0, len(want), hole)
	check("a new volume")

	st.Lock()
	c.write(0, fill(1, 8*rigBlock))
	c.write(1<<20, fill(2, rigBlock))
	paint(0, 8, 0)
	paint(1<<20/rigBlock, 1, 0)
	check("what is written is pending")
	c.must(c.submit(&block.Request{Op: block.OpTrim, Off: 2 * rigBlock, Len: 2 * rigBlock}))
	c.must(c.submit(&block.Request{Op: block.OpWriteZeroes, Off: 4 * rigBlock, Len: rigBlock, NoHole: true}))
	c.must(c.submit(&block.Request{Op: block.OpWriteZeroes, Off: 2 << 20, Len: 8 << 20, NoHole: true})) // wide
	paint(2, 2, hole)
	paint(4, 1, block.Zero)
	paint(2<<20/rigBlock, 8<<20/rigBlock, block.Zero)
	check("zeroes are pending")
	for i := range int64(200) { // more than one look takes in
		c.write(12<<20+2*i*rigBlock, fill(3, rigBlock))
		paint(int(12<<20/rigBlock+2*i), 1, 0)
	}
	check("many pieces are pending")
	st.Unlock()

	applied()
	paint(0, 2, 0)
	paint(4, 1, 0) // preallocated, so data to the file system, or written
	got := extentMap(t, c, 0, rigSize)
	for i, w := range want {
		if w == 0 && got[i] != 0 {
			t.Errorf("applied: block %d holds data, and is called %d", i, got[i])
		}
	}
	if got[3<<19/rigBlock] != hole || got[len(got)-1] != hole {
		t.Error("applied: what was never written is no hole")
	}

	// What the file system cannot tell is an error, of that request alone.
	st.fails.Store(true)
	nobody := func(_, _ int64, _ block.Allocation) bool { t.Error("a report nevertheless"); return true }
	if err := c.s.(block.Sparse).Extents(0, rigSize, nobody); err == nil || errors.Is(err, block.ErrNotServing) {
		t.Errorf("the look for holes failed, and the answer is %v", err)
	}
	c.read(0, rigBlock)

	// Without its store the volume knows nothing.
	looks := st.looks.Load()
	a.vol.readFrom.Store(fromPending)
	for i, a := range extentMap(t, c, 0, rigSize) {
		if a != 0 {
			t.Fatalf("without a store block %d is called %d", i, a)
		}
	}
	if st.looks.Load() != looks {
		t.Error("the store was asked")
	}
	a.vol.readFrom.Store(fromStore)

	c.s.Close()
	if err := c.s.(block.Sparse).Extents(0, rigSize, nobody); !errors.Is(err, block.ErrNotServing) {
		t.Errorf("on a closed session: %v", err)
	}
}

// What is said to read as zeroes does, whatever else happens: each client
// changes a part of its own, and asks for it against an array, while the journal
// is applied and another client reads everything.
func TestExtentsSayOnlyWhatIsTrue(t *testing.T) {
	r := newRig(t, nil, "a")
	a := r.node("a")
	r.eventually("a serves", func() bool { return a.vol.Status().Serving })
	rng := seed(t)
	const clients, part, rounds = 3, 2 << 20, 150
	var all sync.WaitGroup
	var zeroes, asked atomic.Int64
	for i := range int64(clients) {
		c, rng := a.attach(), rand.New(rand.NewPCG(rng.Uint64(), 0))
		all.Go(func() {
			base, model := i*part, make([]byte, part)
			for range rounds {
				off := rng.Int64N(part)
				n := 1 + rng.Int64N(min(part-off, 1<<rng.IntN(20)))
				if rng.IntN(2) == 0 { // whole blocks become holes
					off -= off % rigBlock
					n = min(part-off, (n+rigBlock-1)/rigBlock*rigBlock)
				}
				q := &block.Request{Op: block.OpTrim, Off: base + off, Len: n}
				switch rng.IntN(4) {
				case 0, 1:
					p := fill(byte(1+rng.IntN(255)), int(n))
					copy(model[off:], p)
					q = writeReq(base+off, p)
				case 2:
					q.Op, q.NoHole = block.OpWriteZeroes, rng.IntN(2) == 0
					clear(model[off : off+n])
				default:
					clear(model[off : off+n])
				}
				if err := <-c.submit(q); err != nil {
					t.Error(err)
					return
				}
				if rng.IntN(8) == 0 {
					a.vol.applyAll()
				}
				from := rng.Int64N(part)
				to := from + 1 + rng.Int64N(part-from)
				at := base + from
				err := c.s.(block.Sparse).Extents(at, to-from, func(o, n int64, as block.Allocation) bool {
					here := model[o-base : o-base+n]
					if o != at || as&block.Zero != 0 && !bytes.Equal(here, make([]byte, n)) {
						t.Errorf("%d bytes at %d are called %d, asked from %d", n, o, as, at)
						return false
					}
					if as != 0 {
						zeroes.Add(n)
					}
					asked.Add(n)
					at = o + n
					return true
				})
				if err != nil || at != base+to {
					t.Errorf("extents up to %d end at %d: %v", base+to, at, err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	other := a.attach()
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			err := other.s.(block.Sparse).Extents(0, rigSize, func(_, _ int64, _ block.Allocation) bool { return true })
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	all.Wait()
	close(done)
	watch.Wait()
	if zeroes.Load() == 0 || zeroes.Load() == asked.Load() {
		t.Errorf("of %d bytes asked for %d were called zeroes: that shows nothing", asked.Load(), zeroes.Load())
	}
}
