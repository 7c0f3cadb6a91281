package world

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// An operator sees to it that somebody serves. He is careful: he forces a promotion
// only where he may (mayForce), so that no two histories come of it, and whatever does
// then is a violation.
type operator struct {
	w        *World
	rng      *rand.Rand
	handOver string // a node that is to lead next, once; "": none
}

func (o *operator) run() {
	for !o.w.over {
		time.Sleep(between(o.rng, 10*time.Millisecond, 200*time.Millisecond))
		o.w.observe()
		o.look()
	}
}

// look does at most one thing.
func (o *operator) look() {
	w := o.w
	to := o.handOver
	o.handOver = ""
	if p := w.primary(); p != nil {
		if to != "" && to != p.node.name && w.nodes[to].up() {
			o.swap(p, w.nodes[to].proc)
		}
		return
	}
	var up []*node
	for _, name := range w.names {
		if n := w.nodes[name]; n.up() {
			up = append(up, n)
		}
	}
	if len(up) == 0 {
		return
	}
	n := up[o.rng.IntN(len(up))]
	if o.promote(n.proc, false) != nil && w.mayForce(n) && o.rng.IntN(2) == 0 {
		_ = o.promote(n.proc, true) // he looks again
	}
}

// swap demotes one and promotes the other.
func (o *operator) swap(from, to *process) {
	o.w.note("op", "hands over from %s to %s", from.node.name, to.node.name)
	err := o.call(from, "demote", func(ctx context.Context) error { return from.vol.Demote(ctx) })
	if err == nil && !to.dead {
		_ = o.promote(to, false)
	}
}

func (o *operator) promote(p *process, force bool) error {
	what := "promote"
	if force {
		what = "promote --force"
	}
	return o.call(p, what, func(ctx context.Context) error {
		return p.vol.Promote(ctx, mirror.PromoteOptions{Force: force})
	})
}

// call runs a command at a node, for some seconds at most.
func (o *operator) call(p *process, what string, f func(context.Context) error) error {
	w := o.w
	ctx, cancel := context.WithTimeout(context.Background(), between(o.rng, 50*time.Millisecond, 5*time.Second))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			w.note("op", "%s %s: %v", what, p.node.name, err)
		} else {
			w.note("op", "%s %s: done", what, p.node.name)
		}
		w.cover(what + outcomeOf(err))
		return err
	case <-p.gone:
		return errors.New("it died")
	}
}

func outcomeOf(err error) string {
	var unsafe *mirror.UnsafePromotionError
	switch {
	case err == nil:
		return ": done"
	case errors.As(err, &unsafe):
		return ": unsafe"
	}
	return ": failed"
}

// primary is a process that is Primary, nil if there is none.
func (w *World) primary() *process {
	for _, name := range w.names {
		if n := w.nodes[name]; n.up() && n.status().Role == mirror.Primary {
			return n.proc
		}
	}
	return nil
}

// What the world knows, and nobody in it: who has everything that was acknowledged.

// beforeDeath notes what a death costs: the process of a node is about to end.
func (w *World) beforeDeath(n *node, power bool) {
	w.observe()
	p := w.primary()
	lost := power || w.plan.Protocol == mirror.ProtocolB && (p == nil || p.node != n)
	w.note(n.name, "%s", map[bool]string{true: "loses its power", false: "is killed"}[power])
	if !lost {
		return
	}
	for _, m := range w.set {
		if m.Node == n.name {
			w.forgotten[m] = true
		}
	}
	if len(w.set) > 0 && len(w.holders()) == 0 && !w.plan.NoWriteCache && !w.loss {
		w.loss, w.lost = true, true
		w.note("sim", "nobody is left who remembers what no flush covers")
	}
}

// observe keeps up with who is in the in-sync set, as the newest superblock of a node
// that is up says: a Primary may have made it smaller just before it stepped down. One
// that dies is asked before it does.
func (w *World) observe() {
	for _, name := range w.names {
		n := w.nodes[name]
		if !n.up() {
			continue
		}
		s := n.status()
		if s.Epoch > w.setEpoch || s.Epoch == w.setEpoch && s.SetVersion >= w.setVersion {
			w.set, w.setEpoch, w.setVersion = append(w.set[:0], s.InSync...), s.Epoch, s.SetVersion
		}
		w.coverStatus(s)
	}
}

// holders are the nodes that have all that was acknowledged, in memory at least.
func (w *World) holders() (names []string) {
	for _, m := range w.set {
		if !w.forgotten[m] {
			names = append(names, m.Node)
		}
	}
	return names
}

// mayForce reports whether n has all that was acknowledged, and nobody leads. A volume
// that nobody ever led is never forced: it could become two that cannot be joined.
func (w *World) mayForce(n *node) bool {
	w.observe()
	return n.up() && w.primary() == nil && slices.Contains(w.holders(), n.name)
}
