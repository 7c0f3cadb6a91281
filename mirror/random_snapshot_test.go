package mirror

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// Snapshots, and rollbacks to them, in the random fault test of two nodes.

// A volumeValues is a volume: the value of every block.
type volumeValues [rigBlocks]uint64

// A tossedSnapshot is one that a node has, and what it has to be.
type tossedSnapshot struct {
	on *rigNode
	is volumeValues
}

// values is what the volume holds; everything is settled.
func (m *registers) values() (v volumeValues) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.blocks {
		if len(m.blocks[i].values) != 1 {
			m.t.Fatalf("block %d is not settled", i)
		}
		v[i] = m.blocks[i].values[0]
	}
	return v
}

// valuesOf reads an image in which no block is torn.
func (x *tossed) valuesOf(what string, image []byte) (v volumeValues) {
	x.t.Helper()
	block := make([]byte, rigBlock)
	for i := range v {
		got := image[i*rigBlock:][:rigBlock]
		v[i] = binary.LittleEndian.Uint64(got)
		if fillValue(block, v[i]); !bytes.Equal(got, block) {
			x.t.Fatalf("%s: block %d is torn: it begins with value %d\n%s", what, i, v[i], x.describe())
		}
	}
	return v
}

// replace gives a node an empty disk, without its snapshots.
func (x *tossed) replace(n *rigNode) {
	n.createFake()
	maps.DeleteFunc(x.snaps, func(_ string, s *tossedSnapshot) bool { return s.on == n })
}

// snapshots has everything that was kept still be what it was, and makes or deletes
// one. All is settled.
func (x *tossed) snapshots(round int) {
	x.t.Helper()
	for _, n := range []*rigNode{x.p, x.s} {
		x.eventually("what was before a rollback is dropped", func() bool {
			return !slices.ContainsFunc(n.vol.Snapshots(), func(s SnapshotStatus) bool { return s.Before })
		})
		for _, s := range n.vol.Snapshots() {
			if x.snaps[s.Name] == nil || x.snaps[s.Name].on != n {
				x.t.Errorf("%s has snapshot %+v", n.name, s)
			}
		}
	}
	names := slices.Sorted(maps.Keys(x.snaps))
	looked := names
	if underRace && len(names) > 0 { // to read one takes its time
		i := x.rng.IntN(len(names))
		looked = names[i : i+1]
	}
	for _, name := range looked {
		s := x.snaps[name]
		if got := x.valuesOf("snapshot "+name, s.on.snapshotView(name)); got != s.is {
			x.t.Fatalf("snapshot %s of %s is not what it was\n%s", name, s.on.name, x.describe())
		}
	}
	if len(names) >= 2 {
		name := names[x.rng.IntN(len(names))]
		if err := x.snaps[name].on.vol.DeleteSnapshot(name); err != nil {
			x.t.Fatal(err)
		}
		delete(x.snaps, name)
	}
	n := x.p
	if x.rng.IntN(3) == 0 {
		n = x.s
	}
	name := fmt.Sprintf("s%d", round)
	n.snap(name)
	x.snaps[name] = &tossedSnapshot{on: n, is: x.m.values()}
}

// rollBack rolls the volume back to a snapshot of p, if it has any, while one thing
// happens to the two nodes. Nobody reads a mixture: it is what was before, or the
// snapshot, or nobody is served until somebody ends it, in one way or the other.
func (x *tossed) rollBack(round int) bool {
	x.t.Helper()
	to := ""
	for _, name := range slices.Sorted(maps.Keys(x.snaps)) {
		if x.snaps[name].on == x.p {
			to = name
		}
	}
	if to == "" {
		return false
	}
	ways := []string{"nothing else", "kill secondary", "isolate secondary", "kill primary, the other leads", "power off primary, the other leads",
		"kill primary, it comes back", "power off primary, it comes back", "both power off", "cancelled", "cancelled and handed over"}
	way := ways[x.rng.IntN(len(ways))]
	p, s, was, is := x.p, x.s, x.m.values(), x.snaps[to].is
	n, writes := x.rng.IntN(2), x.rng.IntN(80)
	slow := []*rigNode{p, s}[n]
	x.t.Logf("round %d: roll back to %s, and with write %d of %s: %s (primary %s)", round, to, writes, slow.name, way, p.name)
	var count atomic.Int64
	stalled := slow.stallAt(fakedisk.OpWrite, "*", func() bool { return count.Add(1) > int64(writes) })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := p.vol.RollbackToSnapshot(ctx, to)
		done <- err
	}()
	var err error
	over := false
	select {
	case err = <-done: // it came to less
		over = true
	case <-stalled.reached:
	}
	// end is how it ended, once whoever was held goes on.
	end := func() error {
		stalled.letGo()
		slow.fake.OnOp(nil)
		if over {
			return err
		}
		return <-done
	}
	powerLoss := func(n *rigNode) { n.powerLoss(fakedisk.KeepSome(x.rng.Uint64())) }
	switch way {
	case "nothing else":
		err = end()
	case "kill secondary":
		s.sigkill()
		s.start()
		err = end()
	case "isolate secondary":
		s.isolate()
		stalled.letGo()
		x.work()
		s.heal()
		err = end()
	case "kill primary, the other leads":
		p.sigkill()
		err = end()
		x.lead(s, p)
		p.start()
	case "power off primary, the other leads":
		powerLoss(p)
		err = end()
		x.lead(s, p)
		p.start()
	case "kill primary, it comes back":
		p.sigkill()
		err = end()
		p.start()
		x.either()
	case "power off primary, it comes back":
		powerLoss(p)
		err = end()
		p.start()
		x.either()
	case "both power off":
		x.hold()
		powerLoss(p)
		powerLoss(s)
		x.openGates()
		err = end()
		p.start()
		s.start()
		x.either()
	default:
		cancel()
		err = end()
		if way == "cancelled and handed over" {
			p.demote()
			x.meet()
			s.promote(false)
			x.p, x.s = s, p
		}
	}
	if err != nil && strings.HasPrefix(way, "isolate") || way == "nothing else" && err != nil {
		x.t.Errorf("%s: %v", way, err)
	}
	x.synced = false
	x.members()
	served := x.endRollback(to)
	got := x.valuesOf("what is served", served)
	switch {
	case got == is:
	case got != was:
		x.t.Fatalf("a mixture is served\n%s", x.describe())
	case err == nil:
		x.t.Errorf("the rollback was through, and is undone\n%s", x.describe())
	}
	x.m.mu.Lock()
	for i := range got {
		x.m.blocks[i] = register{values: []uint64{got[i]}}
	}
	x.m.mu.Unlock()
	return true
}

// endRollback ends the rollback if it is not through, in a way that the seed draws,
// and returns what the volume is then.
func (x *tossed) endRollback(to string) []byte {
	x.t.Helper()
	if half := x.p.vol.Status().Unfinished; half != "" {
		if _, err := x.p.vol.Attach(context.Background(), nil); err == nil || !strings.Contains(err.Error(), half) {
			x.t.Fatalf("a client is let in: %v\n%s", err, x.describe())
		}
		end := to
		if i := slices.IndexFunc(x.p.vol.Snapshots(), func(s SnapshotStatus) bool { return s.Before }); i >= 0 && (x.p != x.snaps[to].on || x.rng.IntN(2) == 0) {
			end = x.p.vol.Snapshots()[i].Name
		}
		if end == to && x.p != x.snaps[to].on {
			x.t.Fatalf("%s kept nothing of what it was before\n%s", x.p.name, x.describe())
		}
		x.t.Logf("it is not through: %s rolls back to %s", x.p.name, end)
		ctx, cancel := context.WithTimeout(context.Background(), hangTime)
		defer cancel()
		if _, err := x.p.vol.RollbackToSnapshot(ctx, end); err != nil {
			x.t.Fatalf("%v\n%s", err, x.describe())
		}
	}
	c := x.p.attach()
	defer c.s.Close()
	return c.read(0, rigSize)
}
