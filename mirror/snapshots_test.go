package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

// Whatever is written, trimmed and zeroed, whenever snapshots are made and deleted,
// and whatever crashes: each is the volume at one record, which is none before those
// that were there when it was asked for.
func TestSnapshotModel(t *testing.T) {
	rng := seed(t)
	m := newSnapModel(t, rng, nil)
	rounds, crashes := 12, 0
	if underRace {
		rounds = 5
	}
	for i := range rounds {
		for range rng.IntN(60) {
			m.write()
		}
		name := fmt.Sprintf("s%d", i)
		m.snap(name)
		if rng.IntN(3) == 0 {
			for old := range m.want {
				if err := m.n.vol.DeleteSnapshot(old); err != nil { // while the applier copies
					t.Fatal(err)
				}
				delete(m.want, old)
				break
			}
		}
		for range rng.IntN(60) {
			m.write()
		}
		if len(m.want) > 0 && rng.IntN(4) == 0 {
			m.rollback()
		}
		if rng.IntN(2) == 0 {
			m.c.flush()
		}
		if i%2 == 1 {
			crashes++
			m.crash()
		}
		m.check(fmt.Sprintf("round %d", i))
	}
	preserved := int64(0)
	for _, s := range m.n.vol.Snapshots() {
		preserved += s.Preserved
	}
	if preserved == 0 || crashes == 0 {
		t.Errorf("%d bytes are preserved, after %d crashes", preserved, crashes)
	}
	// A clean stop, and a start.
	if err := m.n.vol.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.n.vol = nil
	m.n.start()
	m.begin()
	m.check("after a clean stop")
	for name := range m.want {
		if err := m.n.vol.DeleteSnapshot(name); err != nil {
			t.Fatal(err)
		}
	}
	names, err := m.n.fake.List()
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, snapshotPrefix) }) {
		t.Errorf("files are left: %q, %v", names, err)
	}
}

// TestSnapshotCrashStates: the power is lost at any operation of the disk while a
// snapshot is made, written over, and deleted. It is there, whole, or it is not.
func TestSnapshotCrashStates(t *testing.T) {
	rng := seed(t)
	m := newSnapModel(t, rng, nil)
	for range 40 {
		m.write()
	}
	m.settle()
	m.c.flush()
	m.snap("old")
	m.settle()
	m.c.flush()
	var want []byte
	crashes := crashesDuring(m.n, func() {
		want = m.at(m.n.snap("new").At.LSN)
		for range 5 {
			m.write()
		}
		m.settle()
		m.c.flush()
		m.n.snapAppliesAll()
		if err := m.n.vol.DeleteSnapshot("new"); err != nil {
			t.Fatal(err)
		}
	})
	states := 40
	if underRace {
		states = 10
	}
	with, without := 0, 0
	for i := 0; i < len(crashes); i += max(1, len(crashes)/states) {
		d := crashes[i]
		mustBeSound(t, d, CheckOptions{StoreSize: rigSize})
		v, err := Open(Options{Node: "a", Volume: rigVolume, FS: d, Store: openFake(t, d), BootID: "look"})
		if err != nil {
			t.Fatalf("open what crash %d left: %v", i, err)
		}
		without++
		for _, s := range v.Snapshots() {
			if s.Lost != "" {
				t.Fatalf("crash %d: %s is lost: %s", i, s.Name, s.Lost)
			}
			if s.Name == "new" {
				with, without = with+1, without-1
				mustBe(t, fmt.Sprintf("crash %d: new", i), snapshotOf(t, v, "new"), want)
			}
		}
		mustBe(t, fmt.Sprintf("crash %d: old", i), snapshotOf(t, v, "old"), m.want["old"])
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("crashes looked at: %d with the snapshot, %d without", with, without)
	if with == 0 || without == 0 {
		t.Errorf("of %d states", len(crashes))
	}
}

// A follower makes its own, of what its Primary wrote before; and one that follows
// nobody of all that it has, though it may not apply it.
func TestSnapshotOfASecondary(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, 8*rigBlock))
	c.flush()
	b.snap("one")
	c.write(rigBlock, fill(2, rigBlock))
	c.flush()
	r.inSync("a", "b")
	want := make([]byte, rigSize)
	copy(want, fill(1, 8*rigBlock))
	mustBe(t, "the follower's", b.snapshotView("one"), want)
	if len(a.vol.Snapshots()) > 0 {
		t.Error("it is a's too")
	}
	// b holds what it must not apply.
	stalled := b.stallAt(fakedisk.OpWrite, fakeData, nil)
	c.write(3*rigBlock, fill(3, rigBlock))
	c.must(c.submit(writeReq(4*rigBlock, fill(4, 2*rigBlock))))
	c.flush()
	stalled.wait(t)
	end := b.vol.Status().End
	a.kill()
	b.powerLossIn(stalled, fakedisk.KeepAll)
	b.fake.OnOp(nil)
	b.start()
	b.vol.mu.Lock()
	applied := b.vol.applied
	b.vol.mu.Unlock()
	s := b.snap("two")
	if s.At.LSN != end {
		t.Errorf("it is of LSN %d, b ends at %d, and had applied %d", s.At.LSN, end, applied)
	}
	copy(want[rigBlock:], fill(2, rigBlock))
	copy(want[3*rigBlock:], fill(3, rigBlock))
	copy(want[4*rigBlock:], fill(4, 2*rigBlock))
	mustBe(t, "of all that b has", b.snapshotView("two"), want)
	b.promote(true)
	c = b.attach()
	c.write(0, fill(9, 20*rigBlock))
	c.flush()
	r.eventually("it is applied", func() bool { s := b.vol.Status(); return s.Applied == s.End })
	mustBe(t, "after b was promoted", b.snapshotView("two"), want)
}

// TestSnapshotAfterAResync: blocks of a resync are newer than what is applied when
// it is through. What the snapshot is of has all of them.
func TestSnapshotAfterAResync(t *testing.T) {
	rng := seed(t)
	lazy := false
	u := newUndoRig(t, rng, func(o *Options) {
		if lazy && o.Node == "b" { // it applies nothing unless it has to
			o.SyncInterval = time.Hour
		}
	})
	lazy = true
	u.b.start()
	stop := u.liveWrites(u.c, rng)
	u.eventually("b is UpToDate", func() bool { return u.b.vol.Status().Disk == UpToDate })
	u.a.vol.tail.Lock() // its journal keeps what is written from now on
	defer u.a.vol.tail.Unlock()
	u.b.vol.mu.Lock()
	joined := u.b.vol.super.History.Last().First
	u.b.vol.mu.Unlock()
	s := u.b.snap("after")
	if s.At.LSN < joined {
		t.Fatalf("it is of LSN %d, and the blocks are of any record before LSN %d", s.At.LSN, joined)
	}
	stop()
	u.c.flush()
	u.eventually("both have applied everything", func() bool {
		u.b.vol.applyAll()
		return u.b.vol.Status().Applied == u.a.vol.Status().End && u.a.vol.Status().Applied == u.a.vol.Status().End
	})
	got := u.b.snapshotView("after")
	// The same, from the other side: what a has, less what it wrote since.
	var since []Range
	err := u.a.vol.scanHeaders(s.At.LSN+1, u.a.vol.Status().End, func(r *journal.Record) {
		since = append(since, Range{r.Offset, r.Length})
	})
	if err != nil {
		t.Fatal(err)
	}
	want := storeOf(t, u.a.fake)
	for _, r := range since {
		copy(want[r.Offset:r.end()], got[r.Offset:r.end()])
	}
	mustBe(t, "outside of what was written since", got, want)
}

// A snapshot is kept through a resync of its replica, and through the rollback of one.
func TestSnapshotThroughAResync(t *testing.T) {
	rng := seed(t)
	slowly := slowerResync // a resync that is to be cut short; not the one after it
	u := &undoRig{rig: newFakeRig(t, func(o *Options) { slowly(o) }, "a", "b"), area: 4 << 20}
	u.a, u.b, u.c = u.pair()
	u.c.write(0, randomly(rng, 2<<20))
	u.c.flush()
	u.inSync("a", "b")
	u.b.snap("before")
	want := storeOf(t, u.a.fake)
	u.leave(rng)
	u.b.start()
	u.resyncing()
	u.a.kill()
	slowly = func(*Options) {}
	if _, err := u.b.vol.CreateSnapshot(t.Context(), "half"); err == nil || !strings.Contains(err.Error(), "Inconsistent") {
		t.Fatalf("of a replica in the middle of a resync: %v", err)
	}
	mustBe(t, "in the middle of a resync", u.b.snapshotView("before"), want)
	u.b.rollback()
	u.isImage()
	mustBe(t, "rolled back", u.b.snapshotView("before"), want)
	u.comesBack()
	mustBe(t, "resynced", u.b.snapshotView("before"), want)
	u.b.restart()
	mustBe(t, "and started again", u.b.snapshotView("before"), want)
}

// A snapshot that cannot be kept, for there is no room or for its disk fails, is
// lost, and says so; the volume and the other snapshots go on.
func TestSnapshotLost(t *testing.T) {
	for name, fault := range map[string]func(n *rigNode, file string){
		"its limit": func(*rigNode, string) {},
		"no space": func(n *rigNode, file string) {
			n.fake.OnOp(func(op fakedisk.Op, name string) error {
				if strings.HasPrefix(name, file) && (op == fakedisk.OpReserve || op == fakedisk.OpWrite) {
					return syscall.ENOSPC
				}
				return nil
			})
		},
		"a failed sync": func(n *rigNode, file string) {
			n.fake.OnOp(func(op fakedisk.Op, name string) error {
				if strings.HasPrefix(name, file) && op == fakedisk.OpDatasync {
					return errDisk
				}
				return nil
			})
		},
		"a failed write": func(n *rigNode, file string) {
			n.fake.OnOp(func(op fakedisk.Op, name string) error {
				if strings.HasPrefix(name, file) && op == fakedisk.OpWrite {
					return errDisk
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newSnapModel(t, seed(t), func(o *Options) {
				if name == "its limit" {
					o.SnapshotLimit = 200 << 10
				}
			})
			m.n.snap("empty")
			m.want["empty"] = m.at(m.next)
			s := m.n.snap("lost")
			if name == "its limit" { // of both
				delete(m.want, "empty")
			}
			i, err := m.n.vol.OpenSnapshot("lost")
			if err != nil {
				t.Fatal(err)
			}
			revoked := make(chan error, 1)
			reader, err := i.Attach(t.Context(), func(err error) { revoked <- err })
			if err != nil {
				t.Fatal(err)
			}
			fault(m.n, snapshotFile(s.ID))
			m.c.write(0, fill(9, 1<<20))
			m.ops = append(m.ops, modelOp{lsn: m.next, n: 1 << 20, p: fill(9, 1<<20)})
			m.next++
			m.c.flush()
			m.c.write(0, fill(8, 1<<20))
			m.ops = append(m.ops, modelOp{lsn: m.next, n: 1 << 20, p: fill(8, 1<<20)})
			m.next++
			m.c.flush()
			m.n.snapAppliesAll()
			if name == "its limit" { // holes take no room
				if s := m.n.snapshot("lost"); s.Lost != "" {
					t.Fatalf("lost by what was empty: %+v", s)
				}
				if err := m.n.vol.DeleteSnapshot("lost"); err != nil {
					t.Fatal(err)
				}
				if err := m.n.vol.DeleteSnapshot("empty"); err != nil {
					t.Fatal(err)
				}
				m.n.snap("lost")
				i, reader = nil, nil
				m.c.write(0, fill(7, 1<<20))
				m.ops = append(m.ops, modelOp{lsn: m.next, n: 1 << 20, p: fill(7, 1<<20)})
				m.next++
				m.c.flush()
				m.n.snapAppliesAll()
			}
			if s := m.n.snapshot("lost"); s.Lost == "" || s.Used != 0 {
				t.Fatalf("it is not lost: %+v", s)
			}
			if reader != nil {
				revokedWith(t, revoked, "lost")
				if err := reader.ReadAt(make([]byte, rigBlock), 0); err == nil {
					t.Fatal("it is read all the same")
				}
				<-i.Ended()
			}
			if _, err := m.n.vol.OpenSnapshot("lost"); !errors.Is(err, ErrSnapshotLost) {
				t.Fatalf("it is opened: %v", err)
			}
			m.n.fake.OnOp(nil)
			for range 2 { // and after a start
				if s := m.n.snapshot("lost"); s.Lost == "" {
					t.Fatalf("it is not lost: %+v", s)
				}
				for name, want := range m.want {
					mustBe(t, name, m.n.snapshotView(name), want)
				}
				if s := m.n.vol.Status(); s.Disk != UpToDate || s.Failure != "" {
					t.Fatalf("the volume is %v: %s", s.Disk, s.Failure)
				}
				mustBe(t, "the volume", m.c.read(0, rigSize), m.at(m.next))
				m.n.restart()
				m.begin()
			}
			if err := m.n.vol.DeleteSnapshot("lost"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// snapAppliesAll waits until everything is in the store.
func (n *rigNode) snapAppliesAll() {
	n.rig.t.Helper()
	n.rig.eventually("everything is applied", func() bool {
		n.vol.applyAll()
		s := n.vol.Status()
		return s.Applied == s.End
	})
}

// A snapshot whose file is damaged or gone is lost at the next start, which goes on.
func TestSnapshotDamaged(t *testing.T) {
	for _, how := range []string{"gone", "damaged"} {
		m := newSnapModel(t, seed(t), nil)
		for range 30 {
			m.write()
		}
		m.settle()
		m.c.flush()
		s := m.n.snap("s")
		for range 30 {
			m.write()
		}
		m.settle()
		m.c.flush()
		m.n.snapAppliesAll()
		m.n.kill()
		file := snapshotFile(s.ID)
		if how == "gone" {
			if err := errors.Join(m.n.fake.Remove(file), m.n.fake.SyncDir()); err != nil {
				t.Fatal(err)
			}
		} else {
			flip(t, m.n.fake, file, 100)
			flip(t, m.n.fake, file, 4096+100)
		}
		rep, err := Check(m.n.fake, CheckOptions{StoreSize: rigSize})
		if err != nil || len(rep.Problems) == 0 || !strings.Contains(rep.Problems[0].Text, "snapshot") {
			t.Errorf("%s: the check says %+v, %v", how, rep.Problems, err)
		}
		m.n.startUnsound()
		m.begin()
		if s := m.n.snapshot("s"); s.Lost == "" {
			t.Errorf("%s: %+v", how, s)
		}
		m.want = map[string][]byte{}
		mustBe(t, "the volume", m.c.read(0, rigSize), m.at(m.next))
	}
}

// startUnsound starts a replica of which Check has something to say.
func (n *rigNode) startUnsound() {
	n.rig.t.Helper()
	v, err := Open(n.options())
	if err != nil {
		n.rig.t.Fatal(err)
	}
	n.mu.Lock()
	n.vol = v
	n.mu.Unlock()
}

// What is asked for is refused with a reason.
func TestSnapshotRefusals(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	b := r.node("b")
	if _, err := b.vol.CreateSnapshot(t.Context(), "s"); err == nil || !strings.Contains(err.Error(), "nothing of the volume") {
		t.Errorf("of an empty replica: %v", err)
	}
	a, _, _ := r.pair()
	for _, name := range []string{"", ".x", "-x", "a b", "a/b", "a@b", strings.Repeat("x", 65)} {
		if _, err := a.vol.CreateSnapshot(t.Context(), name); err == nil || !strings.Contains(err.Error(), "can't name a snapshot") {
			t.Errorf("named %q: %v", name, err)
		}
	}
	a.snap("s")
	if _, err := a.vol.CreateSnapshot(t.Context(), "s"); !errors.Is(err, ErrSnapshotExists) {
		t.Errorf("twice: %v", err)
	}
	i, err := a.vol.OpenSnapshot("s")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.vol.OpenSnapshot("s"); err == nil || !strings.Contains(err.Error(), "exported already") {
		t.Errorf("opened twice: %v", err)
	}
	if err := a.vol.DeleteSnapshot("s"); err != nil {
		t.Fatal(err)
	}
	<-i.Ended()
	i.Close()
	for _, err := range []error{a.vol.DeleteSnapshot("s"), func() error { _, err := a.vol.OpenSnapshot("s"); return err }()} {
		if !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("deleted: %v", err)
		}
	}
	for k := range MaxSnapshots {
		a.snap(fmt.Sprint(k))
	}
	if _, err := a.vol.CreateSnapshot(t.Context(), "more"); err == nil || !strings.Contains(err.Error(), "lockstep snapshot delete data NAME") {
		t.Errorf("one too many: %v", err)
	}
	a.restart()
	if n := len(a.vol.Snapshots()); n != MaxSnapshots {
		t.Errorf("%d are there after a start", n)
	}
}

// A store that is full takes the space of the snapshots, if they lie on its disk: the
// largest first, and no more of them than it needs. Clients notice nothing.
func TestSnapshotsYieldSpace(t *testing.T) {
	for _, shared := range []bool{true, false} {
		rng := seed(t)
		n := newFakeRig(t, func(o *Options) { o.SharedDisk = shared }, "a").node("a")
		n.promote(false)
		c := n.attach()
		write := func(bytes int) {
			c.must(c.async(0, randomly(rng, bytes)))
			c.flush()
		}
		write(1 << 20)
		large := n.snap("large")
		write(1 << 20)
		n.snapAppliesAll()
		n.snap("small")
		small := c.read(0, rigSize)
		full := func() bool {
			f, err := n.fake.Open(snapshotFile(large.ID))
			if err == nil {
				f.Close()
			}
			return err == nil
		}
		n.fake.OnOp(func(op fakedisk.Op, name string) error {
			if op == fakedisk.OpWrite && name == fakeData && full() {
				return syscall.ENOSPC
			}
			return nil
		})
		write(64 << 10)
		want := c.read(0, rigSize)
		if !shared {
			n.rig.eventually("the store is full", func() bool {
				n.vol.applyAll()
				return strings.Contains(n.vol.Status().Waiting, "full")
			})
			if s := n.snapshot("large"); s.Lost != "" {
				t.Errorf("a snapshot on another disk was given up: %+v", s)
			}
			n.fake.OnOp(nil)
			continue
		}
		n.snapAppliesAll()
		n.fake.OnOp(nil)
		if s := n.snapshot("large"); !strings.Contains(s.Lost, "its space was needed") {
			t.Errorf("%+v", s)
		}
		mustBe(t, "small", n.snapshotView("small"), small)
		mustBe(t, "the volume", storeOf(t, n.fake), want)
	}
}

// A snapshot is deleted while it is about to keep something: the write that waits for
// that goes on.
func TestSnapshotDeletedWhileItCopies(t *testing.T) {
	n := newFakeRig(t, nil, "a").node("a")
	n.promote(false)
	c := n.attach()
	c.write(0, fill(1, 64*rigBlock))
	c.flush()
	n.snap("s")
	n.snap("next") // the applier comes to it when it is gone
	n.snap("other")
	copies := n.stallAt(fakedisk.OpDatasync, snapshotPrefix+"*", nil)
	c.write(0, fill(2, 64*rigBlock))
	c.flush()
	copies.wait(t)
	deleted := make(chan error, 1)
	if err := n.vol.DeleteSnapshot("next"); err != nil {
		t.Fatal(err)
	}
	go func() { deleted <- n.vol.DeleteSnapshot("s") }()
	n.rig.eventually("the superblock has forgotten it", func() bool { return len(n.vol.Snapshots()) == 1 })
	copies.letGo()
	if err := <-deleted; err != nil {
		t.Fatal(err)
	}
	n.snapAppliesAll()
	want := make([]byte, rigSize)
	copy(want, fill(1, 64*rigBlock))
	mustBe(t, "the other", n.snapshotView("other"), want)
	copy(want, fill(2, 64*rigBlock))
	mustBe(t, "the volume", storeOf(t, n.fake), want)
	if s := n.snapshot("other"); s.Lost != "" || n.vol.Status().Disk != UpToDate {
		t.Errorf("%+v", s)
	}
}

// A losing side that was kept, and then not given up after all, is a snapshot like any
// other: with no room it is lost, and does not stop the volume.
func TestLosingSideThatWasNotGivenUp(t *testing.T) {
	r, _, b := parted(t, func(o *Options) { o.SnapshotLimit = 256 << 10 })
	c := b.attach()
	c.write(0, fill(3, 256*rigBlock))
	c.flush()
	c.s.Close()
	b.demote()
	b.snapAppliesAll()
	e := SnapshotEntry{Name: "split-9", Peer: "a", Settling: true}
	if _, err := b.vol.takeSnapshot(e, func() (LSN, error) { return b.vol.applied, nil }); err != nil {
		t.Fatal(err)
	}
	b.restart() // before the resync
	b.promote(true)
	c = b.attach()
	c.write(0, fill(4, 256*rigBlock))
	c.flush()
	r.eventually("it is applied", func() bool {
		b.vol.applyAll()
		s := b.vol.Status()
		return s.Applied == s.End
	})
	if s := b.snapshot("split-9"); s.Lost == "" {
		t.Errorf("%+v", s)
	}
}
