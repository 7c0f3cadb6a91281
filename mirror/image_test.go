package mirror

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// image opens an image of a node, and attaches to it; what revokes the session
// comes over the channel.
func (n *rigNode) image() (*Image, *client, chan error) {
	n.rig.t.Helper()
	i, err := n.vol.OpenImage(n.rig.t.Context())
	if err != nil {
		n.rig.t.Fatalf("%v\n%s", err, n.rig.describe())
	}
	revoked := make(chan error, 1)
	s, err := i.Attach(n.rig.t.Context(), func(err error) { revoked <- err })
	if err != nil {
		n.rig.t.Fatal(err)
	}
	return i, &client{n.rig.t, s}, revoked
}

// revokedWith waits until a session is ended.
func revokedWith(t *testing.T, revoked chan error, want string) {
	t.Helper()
	select {
	case err := <-revoked:
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("revoked with %v", err)
		}
	case <-time.After(hangTime):
		t.Fatal("the session is not revoked")
	}
}

// Both sides of a split-brain are read at the same time, and neither changes the
// other.
func TestImageBesideAPrimary(t *testing.T) {
	r, a, b := parted(t, nil)
	c, d := a.attach(), b.attach()
	c.write(0, fill(2, rigBlock))
	d.write(0, fill(3, rigBlock))
	d.write(5, fill(4, 7))
	d.s.Close()
	b.demote()
	a.heal()
	r.splitBrain()
	_, img, _ := b.image()
	if x, y, z := c.read(0, 1)[0], img.read(0, 1)[0], img.read(6, 1)[0]; x != 2 || y != 3 || z != 4 {
		t.Fatalf("a reads %d, b's image %d and %d", x, y, z)
	}
	c.write(0, fill(9, rigBlock))
	if y := img.read(0, 1)[0]; y != 3 {
		t.Fatalf("b's image reads %d", y)
	}
	if err := <-img.submit(writeReq(0, fill(7, rigBlock))); !errors.Is(err, block.ErrReadOnly) {
		t.Fatalf("a write to an image: %v", err)
	}
	img.flush()
	if st := b.vol.Status(); st.Image == nil || st.Image.Sessions != 1 || st.Image.UpTo != st.End {
		t.Fatalf("status is %+v", st.Image)
	}
	img.s.Close()
	img.s.Close()
	if st := b.vol.Status(); st.Image.Sessions != 0 {
		t.Fatalf("status is %+v", st.Image)
	}
}

// An image has what the journal holds and the store does not: what a promotion
// would commit. Ending it leaves the replica as it was.
func TestImageHasTheJournal(t *testing.T) {
	r := newFakeRig(t, patient, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, 4*rigBlock))
	c.flush()
	c.write(rigBlock, fill(2, rigBlock))
	c.must(c.submit(&block.Request{Op: block.OpTrim, Off: 2 * rigBlock, Len: rigBlock}))
	r.eventually("b has it", func() bool { return b.vol.Status().End == a.vol.Status().End })
	end := b.vol.Status().End
	a.kill()
	b.restart()
	i, img, revoked := b.image()
	if got := img.read(0, 4*rigBlock); got[0] != 1 || got[rigBlock] != 2 || got[2*rigBlock] != 0 || got[3*rigBlock] != 1 {
		t.Fatalf("the image reads %d %d %d %d", got[0], got[rigBlock], got[2*rigBlock], got[3*rigBlock])
	}
	if got := storeOf(t, b.fake); got[rigBlock] == 2 {
		t.Fatal("what was not stable is in the store")
	}
	if i.status().UpTo != end || !i.Info().ReadOnly {
		t.Fatalf("%+v, %+v", i.status(), i.Info())
	}
	i.Close()
	i.Close()
	revokedWith(t, revoked, "was ended")
	if err := img.s.ReadAt(make([]byte, 1), 0); !errors.Is(err, block.ErrNotServing) {
		t.Fatalf("a read after its end: %v", err)
	}
	if _, err := i.Attach(t.Context(), nil); !errors.Is(err, block.ErrNotServing) {
		t.Fatalf("attached after its end: %v", err)
	}
	if n := b.vol.pending.n.Load(); n != 0 {
		t.Fatalf("%d extents are still pending", n)
	}
	// The next one is as good, until the replica is promoted.
	_, img, revoked = b.image()
	if got := img.read(rigBlock, 1); got[0] != 2 {
		t.Fatalf("the image reads %d", got[0])
	}
	b.promote(true)
	revokedWith(t, revoked, "is being promoted")
	if got := b.attach().read(rigBlock, 1); got[0] != 2 {
		t.Fatalf("promoted it reads %d", got[0])
	}
}

// An image never shows what a Primary brings: it ends first, and says so.
func TestImageEndsBeforeItChanges(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, 64*rigBlock))
	c.flush()
	r.inSync("a", "b")
	if err := b.vol.Disconnect(""); err != nil {
		t.Fatal(err)
	}
	i, img, revoked := b.image()
	for k := range int64(64) {
		c.write(k*rigBlock, fill(2, rigBlock))
	}
	c.flush()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := make([]byte, 64*rigBlock)
			for img.s.ReadAt(p, 0) == nil {
				for k := 0; k < len(p); k += rigBlock {
					if p[k] != 1 {
						t.Errorf("block %d reads %d", k/rigBlock, p[k])
						return
					}
				}
			}
		})
	}
	r.connect()
	revokedWith(t, revoked, `follows node "a" from now on`)
	wg.Wait()
	<-i.Ended()
	r.eventually("b is a member again", func() bool { return a.peer("b").Member })
	if _, err := b.vol.OpenImage(t.Context()); err == nil || !strings.Contains(err.Error(), "lockstep disconnect data a") {
		t.Fatalf("an image of one that follows: %v", err)
	}
	r.inSync("a", "b")
}

func TestImageIsRefused(t *testing.T) {
	refused := func(n *rigNode, want string) {
		t.Helper()
		if _, err := n.vol.OpenImage(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want something about %q", n.name, err, want)
		}
	}
	r := newFakeRig(t, nil, "a", "b")
	refused(r.node("b"), "nothing of the volume")
	a, b, _ := r.pair()
	refused(a, "it is Primary")
	refused(b, "it follows node")
	a.kill()
	r.eventually("b is cut off", func() bool { return b.peer("a").Connection != Connected })
	i, _, _ := b.image()
	refused(b, "it is already")
	i.Close()
	if err := b.vol.commitSuper(func(sb *Superblock) { sb.Disk, sb.Resync = Inconsistent, &ResyncMark{Source: "a"} }); err != nil {
		t.Fatal(err)
	}
	refused(b, "half old, half new")
	if err := b.vol.commitSuper(func(sb *Superblock) { sb.Disk, sb.Resync = Outdated, nil }); err != nil {
		t.Fatal(err)
	}
	_, img, revoked := b.image()
	b.fake.OnOp(func(op fakedisk.Op, _ string) error {
		if op == fakedisk.OpDatasync {
			return errDisk
		}
		return nil
	})
	b.vol.fault(errDisk)
	revokedWith(t, revoked, errDisk.Error())
	if err := img.s.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("an image of a failed replica is read")
	}
	refused(b, "failed")
	// One that is closed ends its image.
	ctx, cancel := context.WithTimeout(t.Context(), hangTime)
	defer cancel()
	a.start()
	_, _, revoked = a.image()
	v := a.vol
	a.mu.Lock()
	a.vol = nil
	a.mu.Unlock()
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	revokedWith(t, revoked, "closed")
}
