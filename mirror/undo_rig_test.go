package mirror

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
)

// resyncArea is the part of the volume that is written while the peer is away; the
// rest is for what is written live.
const resyncArea = 8 << 20

// An undoRig is a pair of which b was away for longer than a's journal reaches
// back: as soon as b starts, its first resyncArea bytes and more are resynced.
type undoRig struct {
	*rig
	a, b  *rigNode
	c     *client
	image []byte // of the volume when b went away
	base  LSN    // b's end then
	area  int64  // bytes that are written while b is away
}

// slowResync leaves the time to cut a resync short, slowerResync to look at it.
func slowResync(o *Options)   { o.ResyncRate = 16 << 20 }
func slowerResync(o *Options) { o.ResyncRate = 2 << 20 }

// fewHeld has the target of a resync write and acknowledge after less than a
// volume of the rig's size.
func fewHeld(t testing.TB) {
	old := resyncSyncBytes
	resyncSyncBytes = 1 << 20
	t.Cleanup(func() { resyncSyncBytes = old }) // the rig's own cleanup comes first
}

// newUndoRig: b is down.
func newUndoRig(t testing.TB, rng *rand.Rand, opts func(*Options)) *undoRig {
	t.Helper()
	return newUndoRigOf(t, rng, resyncArea, opts)
}

func newUndoRigOf(t testing.TB, rng *rand.Rand, area int64, opts func(*Options)) *undoRig {
	t.Helper()
	u := &undoRig{rig: newShortRig(t, opts, "a", "b"), area: area}
	u.a, u.b, u.c = u.pair()
	for off := int64(0); off < rigSize; off += 1 << 20 {
		if rng.IntN(4) > 0 { // some of it stays zeroes
			u.c.must(u.c.async(off+rng.Int64N(50)*rigBlock, randomly(rng, rigBlock*(1+rng.IntN(200)))))
		}
	}
	u.c.flush()
	u.leave(rng)
	return u
}

func randomly(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := 0; i < n; i += 8 {
		le.PutUint64(p[i:], rng.Uint64()|1)
	}
	return p
}

// leave has b go away, and a go on for longer than its journal reaches back.
func (u *undoRig) leave(rng *rand.Rand) {
	u.t.Helper()
	u.inSync("a", "b")
	u.image, u.base = storeOf(u.t, u.a.fake), u.b.vol.Status().End
	u.b.kill()
	u.dropped(u.a, u.b)
	u.overflow(u.c, rng)
}

// overflow writes to a until its journal does not reach back to b's end.
func (u *undoRig) overflow(c *client, rng *rand.Rand) {
	u.t.Helper()
	for i := 0; u.a.vol.Status().Journal.First <= u.base+1; i++ {
		if i > 400 {
			u.t.Fatalf("the journal does not overflow\n%s", u.describe())
		}
		c.write(int64(i)%(u.area>>20)<<20, randomly(rng, 1<<20))
	}
	c.flush()
}

// liveWrites writes to a until the returned function is called, all over the
// volume. Errors end it: its node was killed.
func (u *undoRig) liveWrites(c *client, rng *rand.Rand) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	rng = newRand(rng.Uint64()) // of its own goroutine
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			off := rng.Int64N(rigSize/512-64) * 512
			req := writeReq(off, randomly(rng, 512*(1+rng.IntN(64))))
			if rng.IntN(10) == 0 {
				req = &block.Request{Op: block.OpTrim, Off: off, Len: 512 * (1 + rng.Int64N(64))}
			}
			select {
			case err := <-c.submit(req):
				if err != nil {
					return
				}
			case <-quit:
				return
			}
		}
	})
	return func() { close(quit); wg.Wait() }
}

// resyncing waits until b has acknowledged some blocks, or has overwritten some.
func (u *undoRig) resyncing() {
	u.t.Helper()
	u.eventually("some of the resync is done", func() bool {
		s := u.b.vol.Status()
		return s.Undo != nil && s.Undo.Preserved > 1<<20
	})
}

func (n *rigNode) rollback() RollbackPlan {
	n.rig.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	plan, err := n.vol.Rollback(ctx)
	if err != nil {
		n.rig.t.Fatalf("roll %s back: %v\n%s", n.name, err, n.rig.describe())
	}
	return plan
}

// isImage: b was rolled back to the image, bit for bit, and says so.
func (u *undoRig) isImage() {
	u.t.Helper()
	mustEqualImage(u.t, storeOf(u.t, u.b.fake), u.image)
	s := u.b.vol.Status()
	if s.Disk != Outdated || s.End != u.base || s.Applied != u.base || s.Undo != nil {
		u.t.Fatalf("rolled back to LSN %d, it is %v at LSN %d, applied %d, undo %+v", u.base, s.Disk, s.End, s.Applied, s.Undo)
	}
}

func mustEqualImage(t testing.TB, got, want []byte) {
	t.Helper()
	for off := 0; off < len(want); off += rigBlock {
		if !bytes.Equal(got[off:off+rigBlock], want[off:off+rigBlock]) {
			t.Fatalf("block %d is not as it was before the resync", off/rigBlock)
		}
	}
}

// comesBack: a is Primary again, resyncs b, and both are equal.
func (u *undoRig) comesBack() {
	u.t.Helper()
	u.a.start()
	u.a.promote(true)
	u.c = u.a.attach()
	if err := u.b.vol.Connect("a"); err != nil {
		u.t.Fatal(err)
	}
	u.members()
	u.inSync("a", "b")
	u.undoGone()
}

// undoGone waits until nothing is left of the undo.
func (u *undoRig) undoGone() {
	u.t.Helper()
	u.eventually("the undo is gone", func() bool {
		f, err := u.b.fake.Open(undoName)
		if err == nil {
			f.Close()
		}
		return err != nil && u.b.vol.Status().Undo == nil
	})
}
