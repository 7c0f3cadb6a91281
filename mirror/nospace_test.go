package mirror

import (
	"errors"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// TestStoreFull: a backing store without space is no failure (replication.md
// 12). New writes are refused with just that, what was acknowledged is there,
// after a restart too, flushes and reads go on; and so does the volume, by
// itself, once there is space.
func TestStoreFull(t *testing.T) {
	full := func(r *rig, n *rigNode, c *client) {
		c.write(0, fill(1, rigBlock))
		c.flush()
		n.failFrom(fakedisk.OpWrite, fakeData, syscall.ENOSPC)
		c.write(rigBlock, fill(2, rigBlock)) // into the journal
		c.flush()
		r.eventually("the store is full", func() bool { return n.vol.Status().Waiting == "the backing store is full" })
	}
	check := func(c *client) {
		for i, want := range []byte{1, 2, 0} {
			if got := c.read(int64(i)*rigBlock, 1); got[0] != want {
				t.Errorf("block %d reads %d, written %d", i, got[0], want)
			}
		}
		if err := <-c.async(2*rigBlock, fill(3, rigBlock)); !errors.Is(err, block.ErrNoSpace) {
			t.Errorf("a write is answered with %v", err)
		}
		c.flush()
	}
	again := func(r *rig, n *rigNode, c *client) {
		n.fake.OnOp(nil)
		r.eventually("it takes writes again", func() bool { return <-c.async(2*rigBlock, fill(3, rigBlock)) == nil })
		c.flush()
		if s := n.vol.Status(); s.Disk != UpToDate || s.Waiting != "" {
			t.Errorf("with space it is %v, waiting %q", s.Disk, s.Waiting)
		}
	}
	t.Run("alone", func(t *testing.T) {
		r := newFakeRig(t, nil, "a")
		a := r.node("a")
		serves := func() bool { return a.vol.Status().Serving }
		r.eventually("it serves", serves)
		full(r, a, a.attach())
		check(a.attach())
		a.restart()
		r.eventually("it serves", serves)
		r.eventually("the store is full again", func() bool { return a.vol.Status().Waiting != "" })
		c := a.attach()
		check(c)
		again(r, a, c)
	})
	t.Run("Primary", func(t *testing.T) {
		r := newFakeRig(t, nil, "a", "b")
		a, _, c := r.pair()
		full(r, a, c)
		check(c)
		if s := a.vol.Status(); s.Disk != UpToDate || len(s.InSync) != 2 {
			t.Errorf("it is no failure, and\n%s", r.describe())
		}
		again(r, a, c)
		r.inSync("a", "b")
	})
}

// TestJournalFull: a journal whose disk has no space is a failure of the
// replica, not of the volume: the Primary goes on through its peer.
func TestJournalFull(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	failed := a.failAfter(fakedisk.OpWrite, "*.seg*", 2, syscall.ENOSPC)
	load := workload{client: c}
	load.until(a, func() bool { return failed.Load() && a.vol.Status().Disk == Diskless })
	r.detached(a, b)
	load.check(c)
}
