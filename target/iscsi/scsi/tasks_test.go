package scsi

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// begin hands a command to a nexus whose device holds everything back, and does
// not wait for it.
func begin(n *Nexus, tag uint64, a Attribute, cdb string, out []byte) *Command {
	c := command(n, cdbOf(cdb), out)
	c.Tag, c.Attribute, c.Done = tag, a, make(signal, 2)
	n.Execute([]*Command{c})
	return c
}

func end(c *Command) result { return resultOf(<-c.Done.(signal)) }

func pending(c *Command) bool { return len(c.Done.(signal)) == 0 }

const (
	write0 = "2a 00 00000000 00 0001 00"
	write1 = "2a 00 00000001 00 0001 00"
	write2 = "2a 00 00000002 00 0001 00"
)

// Each function ends what it names: what waits at once, what the device has once
// that lets go of it. Everything else goes on.
func TestTaskManagement(t *testing.T) {
	for _, tc := range []struct {
		name           string
		f              Function
		found          bool
		tag            uint64
		mine, waiting  bool // of alice's: the write in flight, the one that waits for it
		other          bool // bob's write in flight
		told, attended string
	}{
		{name: "ABORT TASK of none", f: AbortTask, tag: 99},
		{name: "ABORT TASK of another's", f: AbortTask, tag: 3},
		{name: "ABORT TASK in flight", f: AbortTask, tag: 1, found: true, mine: true},
		{name: "ABORT TASK that waits", f: AbortTask, tag: 2, found: true, waiting: true},
		{name: "ABORT TASK SET", f: AbortTaskSet, found: true, mine: true, waiting: true},
		{name: "CLEAR TASK SET", f: ClearTaskSet, found: true, mine: true, waiting: true, other: true, attended: "6/2f00"},
		{name: "LOGICAL UNIT RESET", f: ResetUnit, found: true, mine: true, waiting: true, other: true, told: "6/2903", attended: "6/2903"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u, dev := newUnit(t, memory.Options{}, Config{})
			n, other := attach(t, u, alice), attach(t, u, bob)
			dev.Hold()
			others := begin(other, 3, Simple, write2, filled(3, 512))
			mine := begin(n, 1, Simple, write0, filled(1, 512))
			waiting := begin(n, 2, Ordered, write1, filled(2, 512))
			dev.AwaitHeld(2)

			done := make(chan bool, 2)
			n.Manage(tc.f, tc.tag, func(found bool) { done <- found })
			if tc.waiting {
				if r := end(waiting); r.status != TaskAborted {
					t.Errorf("what waited ended with %v", r)
				}
			}
			if early := !tc.mine && !tc.other; early != (len(done) > 0) {
				t.Errorf("done before the device let go: %v, want %v", !early, early)
			}
			if !pending(mine) || !pending(others) {
				t.Error("a command ended that the device still has")
			}
			dev.Release(nil)
			if found := <-done; found != tc.found {
				t.Errorf("found: %v, want %v", found, tc.found)
			}
			for _, c := range []struct {
				name    string
				c       *Command
				aborted bool
			}{{"mine", mine, tc.mine}, {"another's", others, tc.other}, {"what waited", waiting, tc.waiting}} {
				if c.name == "what waited" && c.aborted {
					continue // seen above
				}
				want := Good
				if c.aborted {
					want = TaskAborted
				}
				if r := end(c.c); r.status != want {
					t.Errorf("%s ended with %v, want status %02xh", c.name, r, uint8(want))
				}
				if !pending(c.c) {
					t.Errorf("%s ended twice", c.name)
				}
			}
			if got := dev.Snapshot(512, 1)[0] == 2; got == tc.waiting {
				t.Errorf("what waited has written: %v", got)
			}
			if s := run(n, "00 00 00 00 00 00").sense; s != tc.told {
				t.Errorf("its own unit attention is %q, want %q", s, tc.told)
			}
			if s := run(other, "00 00 00 00 00 00").sense; s != tc.attended {
				t.Errorf("the other's unit attention is %q, want %q", s, tc.attended)
			}
		})
	}
}

func TestResetPutsBack(t *testing.T) {
	u, _ := newUnit(t, memory.Options{}, Config{})
	cleared := make(chan struct{}, 1)
	n := attach(t, u, alice)
	other, err := u.Attach(t.Context(), bob, Port{RelativeID: 1}, Events{Cleared: func() { cleared <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	good(t, "protect", run(n, "15 10 00 00 10 00", hexBytes(t, "00000000"+swpPage)...))
	good(t, "RESERVE(6)", run(n, "16 00 00 00 00 00"))
	n.Manage(ResetUnit, 0, func(bool) {})
	<-cleared
	run(n, "03 00 00 00 ff 00")
	for range 3 {
		run(other, "03 00 00 00 ff 00")
	}
	good(t, "write", run(other, write0, filled(1, 512)...))
}

// Nothing that Close has seen takes effect after it, and every command ends.
func TestClose(t *testing.T) {
	u, dev := newUnit(t, memory.Options{}, Config{})
	n, other := attach(t, u, alice), attach(t, u, bob)
	good(t, "RESERVE(6)", run(n, "16 00 00 00 00 00"))
	dev.Hold()
	flying := begin(n, 1, Simple, write0, filled(1, 512))
	waiting := begin(n, 2, Ordered, write1, filled(2, 512))
	dev.AwaitHeld(1)
	n.Close()
	n.Close()
	n.Wait()
	late := begin(n, 3, Simple, write2, filled(3, 512))
	for _, c := range []*Command{flying, waiting, late} {
		if r := end(c); r.status != TaskAborted {
			t.Errorf("command %d ended with %v", c.Tag, r)
		}
	}
	dev.Release(nil)
	if !allZero(dev.Snapshot(0, testSize)) {
		t.Error("a write took effect after Close")
	}
	if dev.Sessions() != 1 {
		t.Errorf("%d sessions of the device are open, want the other's", dev.Sessions())
	}
	good(t, "what was reserved by who has gone", run(other, write0, filled(4, 512)...))
}

// An Ordered command begins after all before it, and before all after it.
func TestOrdered(t *testing.T) {
	u, dev := newUnit(t, memory.Options{}, Config{})
	n, other := attach(t, u, alice), attach(t, u, bob)
	dev.Hold()
	first := begin(n, 1, Simple, write0, filled(1, 512))
	ordered := begin(n, 2, Ordered, write0, filled(2, 512))
	last := begin(other, 3, Simple, write0, filled(3, 512))
	dev.AwaitHeld(1)
	u.mu.Lock()
	waiting := u.tasks.waiting
	u.mu.Unlock()
	if waiting != 2 || !pending(first) || !pending(ordered) || !pending(last) {
		t.Errorf("%d commands wait, want the ordered one and the one after it", waiting)
	}
	dev.Release(nil)
	for _, c := range []*Command{first, ordered, last} {
		good(t, "write", end(c))
	}
	if b := dev.Snapshot(0, 1)[0]; b != 3 {
		t.Errorf("the device has %d, not what was written last", b)
	}
}

// As many commands of a nexus wait for a disk at once as Workers says, however
// they come: here the reads end only once all are under way.
func TestWorkersReadAtOnce(t *testing.T) {
	const workers = 4
	var together sync.WaitGroup
	u, _ := newUnit(t, memory.Options{ColdReads: true, Fault: func(a memory.Access) error {
		if a.Off > 0 {
			together.Done()
			together.Wait()
		}
		return nil
	}}, Config{Limits: Limits{Workers: workers}})
	n := attach(t, u, alice)
	good(t, "one, so that a worker is idle", run(n, "28 00 00000000 00 0001 00"))
	together.Add(workers)
	done := make(signal, workers)
	var batch []*Command
	for range workers {
		c := command(n, cdbOf("28 00 00000001 00 0001 00"), nil)
		c.Done = done
		batch = append(batch, c)
	}
	n.Execute(batch)
	for range workers {
		good(t, "read", resultOf(<-done))
	}
}

// Counters that several nexuses count up with COMPARE AND WRITE lose nothing.
func TestCompareAndWriteCounts(t *testing.T) {
	const counters, rounds = 2, 40
	u, dev := newUnit(t, memory.Options{ColdReads: true}, Config{})
	dev.Delay(100 * time.Microsecond) // between comparing and having written
	var all sync.WaitGroup
	for i, name := range []string{alice, bob, carol} {
		n := attach(t, u, name)
		all.Go(func() {
			for k := range rounds {
				lba := byte((i + k) % counters)
				for !countUp(t, n, lba) {
				}
			}
		})
	}
	all.Wait()
	var sum uint64
	for i := range int64(counters) {
		sum += binary.BigEndian.Uint64(dev.Snapshot(512*i, 8))
	}
	if sum != 3*rounds {
		t.Errorf("the counters have %d, counted was to %d", sum, 3*rounds)
	}
}

// countUp tries once. Anything but a miscompare is an error, and the end.
func countUp(t *testing.T, n *Nexus, lba byte) bool {
	r := runCDB(n, [16]byte{0x28, 5: lba, 8: 1}, nil)
	if r.status != Good {
		t.Errorf("read: %v", r)
		return true
	}
	next := append([]byte(nil), r.in...)
	binary.BigEndian.PutUint64(next, binary.BigEndian.Uint64(next)+1)
	r = runCDB(n, [16]byte{0x89, 9: lba, 13: 1}, append(r.in, next...))
	if r.status == CheckCondition && r.sense[:6] == "e/1d00" {
		return false
	}
	if r.status != Good {
		t.Errorf("compare and write: %v", r)
	}
	return true
}

// PREEMPT AND ABORT is done once the commands of who was preempted have ended.
func TestPreemptAndAbort(t *testing.T) {
	u, dev := newUnit(t, memory.Options{}, Config{})
	n, victim := attach(t, u, alice), attach(t, u, bob)
	good(t, "register", reserve(n, actionRegister, 0, 0, 1, 0))
	good(t, "register", reserve(victim, actionRegister, 0, 0, 2, 0))
	good(t, "reserve", reserve(victim, actionReserve, writeExclusive, 2, 0, 0))
	dev.Hold()
	w := begin(victim, 1, Simple, write0, filled(1, 512))
	dev.AwaitHeld(1)
	list := make([]byte, 24)
	list[7], list[15] = 1, 2
	p := begin(n, 1, Simple, "5f 05 01 00 00 00 00 00 18 00", list)
	// Whoever is told of the preemption knows that the abort has begun.
	for senseText(run(victim, "03 00 00 00 ff 00").in) != "6/2a05" {
	}
	if !pending(p) {
		t.Error("done before the victim's write had ended")
	}
	dev.Release(nil)
	if r := end(w); r.status != TaskAborted {
		t.Errorf("the victim's write ended with %v", r)
	}
	good(t, "preempt and abort", end(p))
	want(t, "another write of the victim", run(victim, write0, filled(1, 512)...), ReservationConflict, "")
}

// In steady state READ and WRITE allocate nothing.
func TestReadAndWriteAllocNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random; the plain run of this test is the one that counts")
	}
	n, _ := plain(t)
	for _, cdb := range []string{"28 00 00000000 00 0008 00", "2a 00 00000000 00 0008 00"} {
		const depth = 8
		parsed := cdbOf(cdb)
		tr := n.unit.Describe(&parsed)
		done := make(signal, depth)
		batch := make([]*Command, depth)
		for i := range batch {
			batch[i] = new(Command)
		}
		round := func() {
			for _, c := range batch {
				c.CDB, c.Done, c.Expected = parsed, done, int64(tr.Length)
				if tr.Direction == DataOut {
					c.Out = block.Get(tr.Length)
				}
			}
			n.Execute(batch)
			for range batch {
				c := <-done
				if c.Status != Good {
					t.Fatalf("%s: %v", cdb, resultOf(c))
				}
				if c.In != nil {
					c.In.Unref()
					c.In = nil
				}
				c.Reset()
			}
		}
		for range 20 {
			round()
		}
		// A collection empties the pools once in a while; see package nbd.
		if a := testing.AllocsPerRun(500, round) / depth; a > 0.1 {
			t.Errorf("%s: %.2f allocations per command", cdb, a)
		}
	}
}
