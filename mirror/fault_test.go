package mirror

import (
	"errors"
	"path"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// failFrom makes the operations of a kind on the files whose name matches fail,
// all of them from now on, and returns how many did.
func (n *rigNode) failFrom(kind fakedisk.Op, pattern string, err error) {
	n.fake.OnOp(func(op fakedisk.Op, file string) error {
		if match, _ := path.Match(pattern, file); op == kind && match {
			return err
		}
		return nil
	})
}

// TestInvariant9Alone: a volume whose disk fails and that has nobody else to go
// on with answers writes and flushes with the error from then on. Its reads go
// on; but once the backing store has failed only what is pending is read, for
// the store may have forgotten the rest (16a). It stays Failed.
func TestInvariant9Alone(t *testing.T) {
	for _, row := range []struct {
		op    fakedisk.Op
		files string
		fail  func(v *Volume, c *client)
		store bool // it is the store that fails
	}{
		{fakedisk.OpWrite, "*.seg", func(_ *Volume, c *client) { <-c.async(9*rigBlock, fill(9, rigBlock)) }, false},
		{fakedisk.OpDatasync, "*.seg", func(_ *Volume, c *client) { <-c.asyncFlush() }, false},
		{fakedisk.OpWrite, superblockName, func(v *Volume, _ *client) { _ = v.commitSuper(func(*Superblock) {}) }, false},
		{fakedisk.OpDatasync, superblockName, func(v *Volume, _ *client) { _ = v.commitSuper(func(*Superblock) {}) }, false},
		{fakedisk.OpWrite, intentName, func(v *Volume, _ *client) { v.intent.ClearIdle(); v.intent.ClearIdle(); _ = v.syncNow() }, false},
		{fakedisk.OpDatasync, intentName, func(v *Volume, _ *client) { v.intent.ClearIdle(); v.intent.ClearIdle(); _ = v.syncNow() }, false},
		{fakedisk.OpWrite, fakeData, func(_ *Volume, c *client) { <-c.asyncFlush() }, true},
		{fakedisk.OpDatasync, fakeData, func(v *Volume, _ *client) { _ = v.takeCheckpoint() }, true},
	} {
		t.Run(string(row.op)+"/"+row.files, func(t *testing.T) {
			r := newFakeRig(t, func(o *Options) { o.SyncInterval = time.Hour }, "a")
			a := r.node("a")
			r.eventually("it serves", func() bool { return a.vol.Status().Serving })
			c := a.attach()
			applied := func() {
				c.flush()
				a.vol.note()
				c.flush()
				_ = a.vol.syncNow()
				r.eventually("it is applied", func() bool { return a.vol.Status().Applied == a.vol.Status().End })
			}
			c.write(0, fill(1, rigBlock))
			applied()
			if err := a.vol.takeCheckpoint(); err != nil {
				t.Fatal(err)
			}
			c.write(rigBlock, fill(2, rigBlock))
			if row.files == fakeData && row.op == fakedisk.OpDatasync {
				applied()
				c.write(rigBlock, fill(2, rigBlock)) // pending again
			}

			a.failFrom(row.op, row.files, errDisk)
			row.fail(a.vol, c)
			if row.files == fakeData && row.op == fakedisk.OpWrite {
				a.vol.note()
				_ = a.vol.syncNow()
			}
			r.eventually("it is Failed", func() bool { return a.vol.Status().Disk == Failed })
			for _, w := range []waitDone{c.async(0, fill(3, rigBlock)), c.asyncFlush(), c.submit(&block.Request{Op: block.OpTrim, Len: rigBlock})} {
				if err := <-w; !errors.Is(err, ErrFailed) || !errors.Is(err, errDisk) {
					t.Errorf("a request is answered with %v", err)
				}
			}
			if got := c.read(rigBlock, 1); got[0] != 2 {
				t.Errorf("what is pending reads %d", got[0])
			}
			p := make([]byte, rigBlock)
			err := c.s.ReadAt(p, 0)
			done, tryErr := c.s.TryReadAt(make([]byte, rigBlock), 0)
			switch {
			case row.store && (!errors.Is(err, ErrFailed) || !done || !errors.Is(tryErr, ErrFailed)):
				t.Errorf("the store failed, and a read of it gives %v, without waiting %v", err, tryErr)
			case !row.store && (err != nil || tryErr != nil || p[0] != 1):
				t.Errorf("the store is well, and a read of it gives %d, %v, without waiting %v", p[0], err, tryErr)
			}
			if _, err := a.vol.Attach(t.Context(), nil); !errors.Is(err, block.ErrNotServing) {
				t.Errorf("a new client is let in: %v", err)
			}
			a.kill()
			a.fake.OnOp(nil)
			a.start()
			if s := a.vol.Status(); s.Disk != Failed || s.Serving {
				t.Errorf("after a restart it is %v, serving %v", s.Disk, s.Serving)
			}
		})
	}
}

// TestSuperblockFailsAtStart: a replica whose superblock cannot be written when
// it is opened does not open, and says why.
func TestSuperblockFailsAtStart(t *testing.T) {
	r := newFakeRig(t, nil, "a")
	a := r.node("a")
	r.eventually("it serves", func() bool { return a.vol.Status().Serving })
	a.kill()
	a.boot += "+" // which is to be recorded
	a.failFrom(fakedisk.OpWrite, superblockName, errDisk)
	if v, err := Open(a.options()); !errors.Is(err, errDisk) {
		t.Fatalf("opened: %v, %v", v, err)
	}
}
