package world

import (
	"math/rand/v2"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// The faults that the nemesis makes, and what the design must survive of each. Any
// number of them at once, in any order, at any moment: what is acknowledged stays, and
// once they are over the replicas converge by themselves. That holds because each of
// them is repaired in the end and no disk is lost: what also loses disks, or has an
// operator who forces his way past a node that lives, promises less (doc.go).
type faultKind struct {
	name string
	// begin makes the fault, and returns what ends it; nil: nothing does.
	begin func(w *World, f fault) (end func())
}

var faultKinds = []faultKind{
	// Process: it ends between two of its steps; what it wrote is in the page cache.
	{"kill", func(w *World, f fault) func() {
		n := w.nodes[f.A]
		n.die(false, nil)
		return n.start
	}},
	// Disk and process: what was not synced is lost, kept or torn, sector by sector.
	{"power loss", func(w *World, f fault) func() {
		n := w.nodes[f.A]
		n.die(true, keep(f.Seed))
		return n.start
	}},
	{"power loss everywhere", func(w *World, f fault) func() {
		for i, name := range w.names {
			w.nodes[name].die(true, keep(f.Seed+uint64(i)))
		}
		return func() {
			rng := rand.New(rand.NewPCG(f.Seed, 1))
			for _, i := range rng.Perm(len(w.names)) {
				time.Sleep(time.Duration(rng.Int64N(int64(100 * time.Millisecond))))
				w.nodes[w.names[i]].start()
			}
		}
	}},
	// Process: it stands still, longer than its peers may wait for it, or not; its clock
	// goes on.
	{"pause", func(w *World, f fault) func() {
		if p := w.nodes[f.A].proc; p != nil {
			p.heldUntil = time.Now().Add(f.For)
		}
		return nil
	}},
	// Network.
	{"partition", func(w *World, f fault) func() { return w.block([2]string{f.A, f.B}, [2]string{f.B, f.A}) }},
	{"one-way partition", func(w *World, f fault) func() { return w.block([2]string{f.A, f.B}) }},
	{"isolate", func(w *World, f fault) func() {
		var ways [][2]string
		for _, name := range w.names {
			if name != f.A {
				ways = append(ways, [2]string{f.A, name}, [2]string{name, f.A})
			}
		}
		return w.block(ways...)
	}},
	{"cut", func(w *World, f fault) func() {
		w.net.cut(f.A, f.B)
		return nil
	}},
	{"slow network", func(w *World, f fault) func() {
		w.net.slowDown(f.A, f.B, 1+time.Duration(f.Seed%uint64(2*w.plan.PeerTimeout)))
		return func() { w.net.slowDown(f.A, f.B, 0) }
	}},
	{"corruption", func(w *World, f fault) func() {
		w.net.corrupt(f.A, f.B)
		return nil
	}},
	// Disk: every operation takes longer.
	{"slow disk", func(w *World, f fault) func() {
		n := w.nodes[f.A]
		n.slow = 1 + time.Duration(f.Seed%uint64(w.plan.PeerTimeout/2))
		return func() { n.slow = 0 }
	}},
	// Operators.
	{"hand over", func(w *World, f fault) func() {
		w.operator.handOver = f.A
		return nil
	}},
	{"disconnect", func(w *World, f fault) func() {
		n := w.nodes[f.A]
		if n.up() {
			if err := n.proc.vol.Disconnect(f.B); err != nil {
				w.note(f.A, "does not disconnect: %v", err)
			}
		}
		return func() {
			if n.up() {
				_ = n.proc.vol.Connect(f.B) // it is a peer
			}
		}
	}},
	{"pause resync", func(w *World, f fault) func() {
		n := w.nodes[f.A]
		if n.up() {
			n.proc.vol.PauseResync()
		}
		return func() {
			if n.up() {
				n.proc.vol.ResumeResync()
			}
		}
	}},
}

// keep is what a power loss keeps of what was not synced.
func keep(seed uint64) fakedisk.Policy {
	switch seed % 4 {
	case 0:
		return fakedisk.LoseAll
	case 1:
		return fakedisk.KeepAll
	}
	return fakedisk.KeepSome(seed)
}

func (w *World) block(ways ...[2]string) func() {
	for _, y := range ways {
		w.net.block(y[0], y[1], true)
	}
	return func() {
		for _, y := range ways {
			w.net.block(y[0], y[1], false)
		}
	}
}

// nemesis makes the faults of the plan, each at its time, and ends every one.
func (w *World) nemesis(skip map[int]bool) {
	var pending []func()
	for i, f := range w.plan.Faults {
		if skip[i] {
			continue
		}
		time.Sleep(w.loaded + f.At - w.since())
		for _, k := range faultKinds {
			if k.name != f.Kind {
				continue
			}
			w.note("nem", "fault %d: %v", i, f)
			w.cover("fault " + f.Kind)
			end := k.begin(w, f)
			if end == nil {
				continue
			}
			over := false
			pending = append(pending, func() {
				if !over {
					over = true
					w.note("nem", "fault %d ends", i)
					end()
				}
			})
			go func(once func()) {
				time.Sleep(f.For)
				once()
			}(pending[len(pending)-1])
		}
	}
	time.Sleep(w.loaded + w.plan.Load - w.since())
	for _, once := range pending {
		once()
	}
}
