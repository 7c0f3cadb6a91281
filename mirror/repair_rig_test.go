package mirror

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// rigRegion is the region size of a rig with small regions, so that its 16 MiB
// are more than one.
const rigRegion = 256 << 10

// newRegionRig is a rig on fake disks with write-intent bitmaps of small regions.
func newRegionRig(t testing.TB, opts func(*Options)) *rig {
	t.Helper()
	r := newFakeRig(t, opts, "a", "b")
	for _, n := range r.nodes {
		n.kill()
		n.newIntent(t)
		n.start()
	}
	return r
}

func (n *rigNode) newIntent(t testing.TB) {
	t.Helper()
	if err := n.fake.Remove(intentName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	in, err := bitmap.CreateIntent(n.fake, intentName, rigSize, rigRegion)
	if err == nil {
		err = in.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// journalOf is the directory of the journal on a fake disk, and its segments.
func journalOf(t testing.TB, d *fakedisk.FS) (disk.FS, []string) {
	t.Helper()
	dir, err := d.Sub(journalDir)
	if err != nil {
		t.Fatal(err)
	}
	names, err := dir.List()
	if err != nil {
		t.Fatal(err)
	}
	return dir, slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".seg") })
}

// loseJournal empties the journal's directory of a node that is down.
func (n *rigNode) loseJournal() {
	t := n.rig.t
	t.Helper()
	dir, names := journalOf(t, n.fake)
	for _, name := range names {
		if err := dir.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := dir.SyncDir(); err != nil {
		t.Fatal(err)
	}
	n.mustBeLost()
}

// damageJournal makes the journal of a node that is down unreadable.
func (n *rigNode) damageJournal() {
	t := n.rig.t
	t.Helper()
	dir, names := journalOf(t, n.fake)
	for _, name := range names {
		for _, header := range []int64{0, 4096} { // its magic: a flipped version would be a newer program's
			if err := dir.(*fakedisk.FS).Flip(name, header, 8, 8); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.mustBeLost()
}

// mustBeLost: the replica does not open, and says that its journal is why.
func (n *rigNode) mustBeLost() {
	t := n.rig.t
	t.Helper()
	if v, err := Open(n.options()); !errors.Is(err, ErrJournalLost) {
		if err == nil {
			v.stop()
			v.wg.Wait()
			v.closeFiles()
		}
		t.Fatalf("open %s without its journal: %v", n.name, err)
	}
}

func (n *rigNode) repair(force bool) RepairPlan {
	t := n.rig.t
	t.Helper()
	plan, err := Repair(n.options(), RepairOptions{Force: force, JournalSize: 64 << 20})
	if err != nil {
		t.Fatalf("repair %s: %v", n.name, err)
	}
	return plan
}

// mustRefuseRepair: nothing is repaired, and nothing is changed.
func (n *rigNode) mustRefuseRepair(force bool, why string) {
	t := n.rig.t
	t.Helper()
	_, before, err := OpenSuperblock(n.fake)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Repair(n.options(), RepairOptions{Force: force})
	var refused *RepairRefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), why) {
		t.Fatalf("repair of %s: %v, and it was to be refused because %q", n.name, err, why)
	}
	_, after, err := OpenSuperblock(n.fake)
	if err != nil || after.Seq != before.Seq {
		t.Fatalf("the superblock of %s was changed from %d to %d by a repair that was refused (%v)", n.name, before.Seq, after.Seq, err)
	}
}

// powerLossIn ends a node that is stalled, as a power loss would.
func (n *rigNode) powerLossIn(s *stall, keep fakedisk.Policy) {
	n.fake = n.fake.Crash(keep)
	s.letGo()
	n.kill()
	n.boot += "+"
}

// atRest waits until no region of either node is in doubt.
func (r *rig) atRest() {
	r.t.Helper()
	r.eventually("no region is marked", func() bool {
		for _, n := range r.nodes {
			if n.vol.Status().InDoubt != 0 {
				return false
			}
		}
		return true
	})
}

// region is where a region begins.
func region(i int64) int64 { return i * rigRegion }

// whole writes every region of the volume and waits until none is in doubt.
func (r *rig) whole(c *client) {
	r.t.Helper()
	for i := range int64(rigSize / rigRegion) {
		c.must(c.async(region(i), fill(byte(i+1), rigRegion)))
	}
	c.flush()
	r.inSync("a", "b")
	r.atRest()
}

// dropped waits until a goes on without b.
func (r *rig) dropped(primary, peer *rigNode) {
	r.t.Helper()
	r.eventually("the peer is dropped", func() bool { return !primary.peer(peer.name).Member })
}

// refill gives the node an empty replica, and has the other connect to it again.
func (n *rigNode) refill(primary *rigNode) {
	n.rig.t.Helper()
	n.createAgain()
	if err := primary.vol.Connect(n.name); err != nil {
		n.rig.t.Fatal(err)
	}
	n.rig.members()
}
