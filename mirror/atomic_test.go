package mirror

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/crashtest"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

const (
	atomicOff  = 4096 + 512 // on no border of a block
	atomicSize = atomicWrite + 64<<10
)

// A tornWatch crashes a disk at its operations while a write of the advertised
// atomic size goes over one of that size, and looks whether either is there in
// whole. Where the crash happens the disk waits meanwhile.
type tornWatch struct {
	t       testing.TB
	node    string
	peers   []string
	every   int  // how many operations there is a crash
	allWays bool // of crashing then, not one of them by chance
	flushed atomic.Bool

	mu       sync.Mutex
	rng      *rand.Rand
	ops      int
	old, new int // states found
}

func (w *tornWatch) watch(d *fakedisk.FS) {
	d.OnOp(func(op fakedisk.Op, name string) error {
		if !op.Changes() {
			return nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.ops++; w.ops%w.every == 0 {
			w.crash(d, fmt.Sprintf("crash at %v of %q", op, name))
		}
		return nil
	})
}

// crashed is a crash between two operations of the disk, however many there were:
// it finds the old write before the new one begins, and the new one once that was
// flushed.
func (w *tornWatch) crashed(d *fakedisk.FS, when string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.crash(d, "crash "+when)
}

func (w *tornWatch) crash(d *fakedisk.FS, when string) {
	promised := w.flushed.Load()
	ways := []fakedisk.Policy{fakedisk.KeepSome(w.rng.Uint64()), fakedisk.LoseAll, fakedisk.KeepAll}
	if !w.allWays {
		k := w.rng.IntN(len(ways))
		ways = ways[k : k+1]
	}
	for _, keep := range ways {
		w.check(d.CrashClone(keep), promised, when)
	}
}

// check opens what a crash left, alone, and reads the range.
func (w *tornWatch) check(left *fakedisk.FS, promised bool, when string) {
	t := w.t
	v, err := Open(Options{Node: w.node, Volume: rigVolume, FS: left, Store: openFake(t, left), Peers: w.peers, Dialer: nobody{},
		BootID: "after", PeerTimeout: 200 * time.Millisecond})
	if err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	defer func() {
		v.stop()
		v.wg.Wait()
		v.closeFiles()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	if len(w.peers) > 0 {
		err = v.Promote(ctx, PromoteOptions{Force: true})
	}
	if err == nil {
		err = v.awaitPromoted(ctx)
	}
	if err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	s, err := v.Attach(ctx, nil)
	if err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	p := make([]byte, atomicWrite)
	if err := s.ReadAt(p, atomicOff); err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	switch old, new := bytes.Count(p, []byte{1}), bytes.Count(p, []byte{2}); {
	case new == len(p):
		w.new++
	case old == len(p) && !promised:
		w.old++
	default:
		t.Errorf("%s: of a write of %d bytes over another %d bytes are new and %d old; flushed: %v", when, len(p), new, old, promised)
	}
}

func (w *tornWatch) done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Logf("%d operations; %d crashes left the old write, %d the new one", w.ops, w.old, w.new)
	if w.old == 0 || w.new == 0 || w.ops < w.every {
		w.t.Error("one of the two was never found, or no crash came at an operation: nothing is shown")
	}
}

// TestP2AtomicWrite: of a write as large as Info advertises, through the
// smallest journal, every crash leaves all or nothing, whatever operation of the
// disk it comes at, and all once it was flushed (P1, P2).
func TestP2AtomicWrite(t *testing.T) {
	rng := seed(t)
	d := fakedisk.New(rng.Uint64())
	createFake(t, d, "a", atomicSize)
	v, err := Open(Options{Node: "a", Volume: rigVolume, FS: d, Store: openFake(t, d), BootID: "boot", SyncInterval: 20 * time.Millisecond})
	must(t, err)
	defer func() {
		d.OnOp(nil)
		v.stop()
		v.wg.Wait()
		v.closeFiles()
	}()
	if info, status := v.Info().AtomicWrite, v.Status().AtomicWrite; info != atomicWrite || status != atomicWrite {
		t.Fatalf("Info advertises %d bytes, Status %d", info, status)
	}
	if got := v.journal.Size(); got != 64<<20 {
		t.Fatalf("the journal has %d bytes, and the smallest is wanted", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	must(t, v.awaitPromoted(ctx))
	s, err := v.Attach(ctx, nil)
	must(t, err)
	c := &client{t, s}
	c.write(atomicOff, fill(1, atomicWrite))
	c.flush()
	w := &tornWatch{t: t, node: "a", every: 1, rng: rng, allWays: crashtest.Share(t, 0.001) > 1000}
	if underRace {
		w.every = 13
	}
	w.crashed(d, "before the write")
	w.watch(d)
	c.write(atomicOff, fill(2, atomicWrite))
	c.flush()
	w.flushed.Store(true)
	w.crashed(d, "after the flush")
	ctx, cancel = context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	v.mu.Lock()
	err = v.await(ctx, func() (bool, error) { return v.checkpoint == v.end, v.failure }) // the store's operations too
	v.mu.Unlock()
	must(t, err)
	w.done()
}

// TestP2AtomicWriteOnAPeer: the same on a peer, whose journal takes the write in
// pieces as they come, when it crashes and then leads.
func TestP2AtomicWriteOnAPeer(t *testing.T) {
	rng := seed(t)
	r := newRigOf(t, atomicSize, true, func(o *Options) {
		slowToDrop(o)
		o.PendingLimit = 4 << 20 // the least: b holds most of the write in its journal alone
	}, "a", "b")
	a, b, c := r.pair()
	c.write(atomicOff, fill(1, atomicWrite))
	c.flush()
	w := &tornWatch{t: t, node: "b", peers: []string{"a"}, every: 4, rng: rng}
	if underRace {
		w.every = 17 // the write waits for each look
	}
	w.crashed(b.fake, "before the write")
	w.watch(b.fake)
	c.write(atomicOff, fill(2, atomicWrite))
	c.flush()
	w.flushed.Store(true)
	w.crashed(b.fake, "after the flush")
	r.eventually("b has it in its store", func() bool {
		s := b.vol.Status()
		return s.End == a.vol.Status().End && s.Checkpoint == s.End
	})
	b.fake.OnOp(nil)
	w.done()
}
