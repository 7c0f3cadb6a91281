package mirror

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// snap makes a snapshot.
func (n *rigNode) snap(name string) SnapshotStatus {
	n.rig.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := n.vol.CreateSnapshot(ctx, name)
	if err != nil {
		n.rig.t.Fatalf("%v\n%s", err, n.rig.describe())
	}
	return s
}

// snapshot is what a node says of one.
func (n *rigNode) snapshot(name string) SnapshotStatus {
	n.rig.t.Helper()
	for _, s := range n.vol.Snapshots() {
		if s.Name == name {
			return s
		}
	}
	n.rig.t.Fatalf("%s has no snapshot %q: %+v", n.name, name, n.vol.Snapshots())
	return SnapshotStatus{}
}

// snapshotView reads all of one.
func (n *rigNode) snapshotView(name string) []byte {
	n.rig.t.Helper()
	return snapshotOf(n.rig.t, n.vol, name)
}

func snapshotOf(t testing.TB, v *Volume, name string) []byte {
	t.Helper()
	i, err := v.OpenSnapshot(name)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	s, err := i.Attach(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := make([]byte, v.Info().Size)
	if err := s.ReadAt(p, 0); err != nil {
		t.Fatalf("read snapshot %q: %v", name, err)
	}
	return p
}

// mustBe fails if two images differ.
func mustBe(t testing.TB, what string, got, want []byte) {
	t.Helper()
	for off := 0; off < len(want); off += rigBlock {
		if !bytes.Equal(got[off:off+rigBlock], want[off:off+rigBlock]) {
			t.Fatalf("%s: block %d begins with %x instead of %x", what, off/rigBlock, got[off:off+16], want[off:off+16])
		}
	}
}

// A modelOp is one record: what it makes of a volume.
type modelOp struct {
	lsn LSN
	off int64
	n   int64
	p   []byte // nil: zeroes
}

// A snapModel is a volume of one replica, and what its order says that it is at
// every record since base.
type snapModel struct {
	t    *testing.T
	rng  *rand.Rand
	n    *rigNode
	c    *client
	base []byte // before ops
	ops  []modelOp
	wait []waitDone
	next LSN
	want map[string][]byte // by snapshot
}

func newSnapModel(t *testing.T, rng *rand.Rand, opts func(*Options)) *snapModel {
	m := &snapModel{t: t, rng: rng, base: make([]byte, rigSize), want: map[string][]byte{}}
	m.n = newFakeRig(t, opts, "a").node("a")
	m.begin()
	return m
}

// begin attaches to a replica that was started, and drops what it lost.
func (m *snapModel) begin() {
	m.t.Helper()
	m.n.promote(false)
	m.c = m.n.attach()
	m.n.vol.mu.Lock()
	generation := m.n.vol.super.History.Last().First
	m.n.vol.mu.Unlock()
	for len(m.ops) > 0 && m.ops[len(m.ops)-1].lsn >= generation {
		m.ops = m.ops[:len(m.ops)-1]
	}
	m.next, m.wait = generation+1, nil
}

// at is the volume at a record.
func (m *snapModel) at(lsn LSN) []byte {
	image := bytes.Clone(m.base)
	for _, o := range m.ops {
		if o.lsn > lsn {
			break
		}
		if p := image[o.off : o.off+o.n]; o.p == nil {
			clear(p)
		} else {
			copy(p, o.p)
		}
	}
	return image
}

// write begins a random write, trim or write of zeroes, in a part of the volume that
// is small enough for them to overlap.
func (m *snapModel) write() {
	off := m.rng.Int64N(3<<20/512) * 512
	o := modelOp{lsn: m.next, off: off, n: 512 * (1 + m.rng.Int64N(100))}
	var req *block.Request
	switch m.rng.IntN(8) {
	case 0:
		req = &block.Request{Op: block.OpTrim, Off: o.off, Len: o.n}
	case 1:
		req = &block.Request{Op: block.OpWriteZeroes, Off: o.off, Len: o.n, NoHole: true}
	default:
		o.p = randomly(m.rng, int(o.n))
		req = writeReq(o.off, o.p)
	}
	m.next++
	m.ops = append(m.ops, o)
	m.wait = append(m.wait, m.c.submit(req))
}

func (m *snapModel) settle() {
	m.t.Helper()
	for _, w := range m.wait {
		m.c.must(w)
	}
	m.wait = nil
}

// snap makes a snapshot while others write, and notes what it has to be.
func (m *snapModel) snap(name string) {
	m.t.Helper()
	before := m.next - 1
	if m.rng.IntN(2) == 0 {
		m.c.flush()
	}
	done := make(chan SnapshotStatus, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		s, err := m.n.vol.CreateSnapshot(ctx, name)
		if err != nil {
			m.t.Errorf("%v\n%s", err, m.n.rig.describe())
		}
		done <- s
	}()
	for {
		select {
		case s := <-done:
			if s.At.LSN < before {
				m.t.Fatalf("the snapshot is of LSN %d, and LSN %d was written before it", s.At.LSN, before)
			}
			m.want[name] = m.at(s.At.LSN)
			return
		default:
			m.write()
			if len(m.wait) > 50 {
				m.settle()
			}
		}
	}
}

// check compares every snapshot, and the volume.
func (m *snapModel) check(when string) {
	m.t.Helper()
	m.settle()
	if n := len(m.n.vol.Snapshots()); n != len(m.want) {
		m.t.Fatalf("%s: there are %d snapshots instead of %d: %+v", when, n, len(m.want), m.n.vol.Snapshots())
	}
	for name, want := range m.want {
		mustBe(m.t, fmt.Sprintf("%s: snapshot %s", when, name), m.n.snapshotView(name), want)
	}
	mustBe(m.t, when+": the volume", m.c.read(0, rigSize), m.at(m.next))
}

// crash ends the replica, and starts what is left of it.
func (m *snapModel) crash() {
	m.t.Helper()
	switch m.rng.IntN(3) {
	case 0:
		m.n.sigkill()
	case 1:
		m.n.powerLoss(fakedisk.KeepSome(m.rng.Uint64()))
	default:
		m.n.powerLoss(fakedisk.LoseAll)
	}
	m.n.start()
	m.begin()
}

// rollback goes back to any of the snapshots.
func (m *snapModel) rollback() {
	m.t.Helper()
	m.settle()
	m.c.s.Close()
	for name, want := range m.want {
		if _, err := m.n.vol.RollbackToSnapshot(m.t.Context(), name); err != nil {
			m.t.Fatal(err)
		}
		m.ops = append(m.ops, modelOp{lsn: m.next, n: rigSize, p: want})
		break
	}
	m.next = m.n.vol.Status().End + 1
	m.c = m.n.attach()
}
