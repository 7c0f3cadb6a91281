package mirror

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/crashtest"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

const (
	crashSize = 8 << 20
	// crashCell is the unit of the changes, less than a disk's sector.
	crashCell  = 128
	crashCells = crashSize / crashCell
)

// A numbered is the n-th change of a volume: n is written into every word of it,
// so an image tells which change each cell of it is of.
type numbered struct {
	n       uint32
	op      block.Op
	off, ln int64
}

// cellsOf is an image, by the number that each cell carries; 0 is zeroes.
type cellsOf [crashCells]uint32

func (s *cellsOf) do(c numbered) {
	n := c.n
	if c.op != block.OpWrite {
		n = 0
	}
	for i := c.off / crashCell; i < (c.off+c.ln)/crashCell; i++ {
		s[i] = n
	}
}

func (c numbered) request() *block.Request {
	r := &block.Request{Op: c.op, Off: c.off, Len: c.ln}
	if c.op == block.OpWrite {
		r.Buf = block.Get(int(c.ln))
		for p, i := r.Buf.Bytes(), c.off/crashCell; len(p) > 0; p, i = p[crashCell:], i+1 {
			for w := range crashCell / 8 {
				binary.LittleEndian.PutUint64(p[8*w:], wordOf(c.n, i, w))
			}
		}
	}
	return r
}

func wordOf(n uint32, cell int64, word int) uint64 {
	return uint64(n)<<32 | uint64(cell)<<8 | uint64(word)
}

// numbersIn reads an image. A cell that is not of one change fails.
func numbersIn(t testing.TB, image []byte) *cellsOf {
	t.Helper()
	var s cellsOf
	for i := range s {
		n, whole := numberOf(image[i*crashCell:][:crashCell], int64(i))
		if !whole {
			t.Fatalf("cell %d is torn: it begins with change %d", i, n)
		}
		s[i] = n
	}
	return &s
}

// numberOf is which change a cell is of, and whether all of it is.
func numberOf(p []byte, cell int64) (n uint32, whole bool) {
	n = uint32(binary.LittleEndian.Uint64(p) >> 32)
	for w := range crashCell / 8 {
		want := uint64(0)
		if n != 0 {
			want = wordOf(n, cell, w)
		}
		if binary.LittleEndian.Uint64(p[8*w:]) != want {
			return n, false
		}
	}
	return n, true
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// A remains is what a crash left, and what was promised of it then.
type remains struct {
	disk      *fakedisk.FS
	killed    bool // only the process
	op        fakedisk.Op
	name      string
	atLeast   int // changes that must be there
	flushed   int // of which another crash can take none
	submitted int // more cannot be
}

// crasher drives one volume without peers through changes and crashes.
type crasher struct {
	t       testing.TB
	rng     *rand.Rand
	disk    *fakedisk.FS
	keep    func() fakedisk.Policy // what power losses leave; nil: anything, kills too
	when    func(op fakedisk.Op, name string) bool
	apart   bool // the journal has a directory of its own
	all     []numbered
	image   cellsOf // of the first done changes, which nothing takes back
	done    int
	checked int

	submitted, acked, flushed atomic.Int64

	mu   sync.Mutex
	left []remains
}

// TestP1P2SingleCopyCrash is TestP1P2CrashStates with all of the volume's own
// goroutines, and with writes of several records: whatever a power loss, or a kill of the process, at
// whatever operation of the disk leaves, the volume comes back as after exactly
// the first k changes, in the order of their submission; k is no less than what
// was flushed (after a kill: acknowledged).
func TestP1P2SingleCopyCrash(t *testing.T) {
	t.Parallel()
	states := 150
	if underRace {
		states = 10
	}
	// One costs as much as twenty of TestP1P2CrashStates.
	states = max(states, crashtest.Share(t, 0.003))
	c := &crasher{t: t, rng: seed(t)}
	c.run(states)
}

// run checks so many crashes.
func (c *crasher) run(states int) {
	c.disk = fakedisk.New(c.rng.Uint64())
	c.apart = c.rng.IntN(2) == 0
	createFakeApart(c.t, c.disk, c.journalOf(c.disk), "a", crashSize)
	rounds := 0
	for ; c.checked < states; rounds++ {
		c.round()
	}
	c.t.Logf("%d crashes in %d rounds, %d changes", c.checked, rounds, len(c.all))
}

// round opens the volume, works, and crashes, over and over beside it and once
// for good.
func (c *crasher) round() {
	c.acked.Store(int64(len(c.all)))
	c.flushed.Store(int64(c.done))
	c.submitted.Store(int64(len(c.all)))
	rare := 1 + c.rng.IntN(30)
	hookRng := newRand(c.rng.Uint64())
	d := c.disk
	d.OnOp(func(op fakedisk.Op, name string) error {
		if op == fakedisk.OpRead || op == fakedisk.OpSize || op == fakedisk.OpOpen || c.when != nil && !c.when(op, name) {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.left) < 12 && hookRng.IntN(rare) == 0 {
			c.left = append(c.left, c.crash(d, hookRng, op, name))
		}
		return nil
	})
	v := c.open(d)
	c.work(v)
	d.OnOp(nil)
	last := c.crash(d, c.rng, "end", "")
	v.stop()
	v.wg.Wait()
	v.closeFiles()
	for _, r := range c.left {
		c.check(r, true)
	}
	c.left = nil
	c.disk = last.disk
	last.disk = c.disk.KillClone()
	k := c.check(last, false)
	if last.killed { // what was not flushed can be lost yet
		c.all, k = c.all[:k], last.flushed
	} else {
		c.all = c.all[:k]
	}
	for _, n := range c.all[c.done:k] {
		c.image.do(n)
	}
	c.done = k
}

// crash is what is left now. What is promised is read first, what may be last.
func (c *crasher) crash(d *fakedisk.FS, rng *rand.Rand, op fakedisk.Op, name string) remains {
	r := remains{op: op, name: name, flushed: int(c.flushed.Load())}
	r.atLeast = r.flushed
	switch k := rng.IntN(5); {
	case c.keep != nil:
		r.disk = d.CrashClone(c.keep())
	case k == 0:
		r.disk = d.CrashClone(fakedisk.LoseAll)
	case k == 1:
		r.killed, r.atLeast = true, int(c.acked.Load())
		r.disk = d.KillClone()
	default:
		r.disk = d.CrashClone(fakedisk.KeepSome(rng.Uint64()))
	}
	r.submitted = int(c.submitted.Load())
	return r
}

// journalOf is the directory of a journal that has one of its own. It is on the
// same disk, so that a crash takes both at one moment.
func (c *crasher) journalOf(d *fakedisk.FS) disk.FS {
	if !c.apart {
		return nil
	}
	return subNamed(c.t, d, "elsewhere")
}

func (c *crasher) open(d *fakedisk.FS) *Volume {
	c.t.Helper()
	v, err := Open(Options{
		Node: "a", Volume: rigVolume, FS: d, Journal: c.journalOf(d), Store: openFake(c.t, d), BootID: strconv.FormatUint(c.rng.Uint64(), 16),
		PendingLimit: 4 << 20, SyncInterval: time.Duration(1+c.rng.IntN(30)) * time.Millisecond,
	})
	if err != nil {
		c.t.Fatalf("open: %v", err)
	}
	return v
}

func (c *crasher) attach(v *Volume) block.Session {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	if err := v.awaitPromoted(ctx); err != nil {
		c.t.Fatal(err)
	}
	s, err := v.Attach(ctx, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// awaitPromoted waits until a volume without peers serves.
func (v *Volume) awaitPromoted(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.await(ctx, func() (bool, error) { return v.serving, v.failure })
}

// work submits batches of changes and flushes.
func (c *crasher) work(v *Volume) {
	s := c.attach(v)
	cl := &client{c.t, s}
	large := c.rng.IntN(4) == 0
	for range 5 + c.rng.IntN(40) {
		var reqs []*block.Request
		var waits []waitDone
		for range 1 + c.rng.IntN(6) {
			n := c.next(large)
			r, w := n.request(), make(waitDone, 1)
			r.Done = w
			r.FUA = c.rng.IntN(30) == 0
			c.all = append(c.all, n)
			reqs, waits = append(reqs, r), append(waits, w)
		}
		c.submitted.Store(int64(len(c.all)))
		s.Submit(reqs)
		for i, w := range waits {
			cl.must(w)
			c.acked.Store(int64(len(c.all) - len(waits) + i + 1))
		}
		if c.rng.IntN(4) == 0 {
			cl.flush()
			c.flushed.Store(c.acked.Load())
		}
	}
}

// next is a change of a random kind, size and place.
func (c *crasher) next(large bool) numbered {
	n := numbered{n: uint32(len(c.all) + 1), op: block.OpWrite}
	cells := 1 + c.rng.Int64N(256)
	switch k := c.rng.IntN(40); {
	case k == 0 || large && k < 10: // several records
		cells = 8192 + c.rng.Int64N(16384)
	case k < 3:
		n.op, cells = block.OpTrim, 1+c.rng.Int64N(16384)
	case k < 5:
		n.op, cells = block.OpWriteZeroes, 1+c.rng.Int64N(2048)
	}
	n.ln = cells * crashCell
	n.off = c.rng.Int64N(crashCells-cells+1) * crashCell
	return n
}

// check recovers what a crash left, perhaps with another crash in the middle of
// that, and returns after how many changes the image is.
func (c *crasher) check(r remains, deeper bool) int {
	t := c.t
	t.Helper()
	c.checked++
	var again *remains
	if deeper && c.rng.IntN(3) == 0 {
		at, n, rng := c.rng.IntN(40), 0, newRand(c.rng.Uint64())
		var mu sync.Mutex
		r.disk.OnOp(func(op fakedisk.Op, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == at {
				again = &remains{disk: r.disk.CrashClone(fakedisk.KeepSome(rng.Uint64())), op: op, name: name, atLeast: r.flushed, submitted: r.submitted}
			}
			return nil
		})
	}
	mustBeSound(t, r.disk, CheckOptions{Journal: c.journalOf(r.disk), StoreSize: crashSize})
	v := c.open(r.disk)
	s := c.attach(v)
	p := make([]byte, crashSize)
	if err := s.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	v.stop()
	v.wg.Wait()
	v.closeFiles()
	r.disk.OnOp(nil)
	k := c.prefix(r, numbersIn(t, p))
	if again != nil {
		c.check(*again, false)
	}
	return k
}

// prefix is after how many changes the image is.
func (c *crasher) prefix(r remains, got *cellsOf) int {
	c.t.Helper()
	image := c.image
	for k := c.done; k <= r.submitted; k++ {
		if k > c.done {
			image.do(c.all[k-1])
		}
		if k >= r.atLeast && image == *got {
			return k
		}
	}
	image = c.image
	for _, n := range c.all[c.done:r.atLeast] {
		image.do(n)
	}
	for i := range image {
		if image[i] != got[i] {
			c.t.Errorf("cell %d is of change %d; after the first %d changes it is of %d", i, got[i], r.atLeast, image[i])
			break
		}
	}
	c.t.Fatalf("crash at %v of %q: the image is none of those after the first %d to %d changes; the newest in it is %d",
		r.op, r.name, r.atLeast, r.submitted, slices.Max(got[:]))
	return 0
}
