package memory

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-storage/lockstep/block"
)

// A gate holds requests back, until a test opens it or for a fixed time.
type gate struct {
	d     *Device
	isOn  atomic.Bool // held or delay; read without the mutex on the fast path
	mu    sync.Mutex
	moved sync.Cond // held changed, or the gate opened
	held  bool
	delay time.Duration
	kept  []*block.Request
	slow  int // requests that are delayed, or on their way out
}

func (g *gate) init(d *Device) {
	g.d = d
	g.moved.L = &g.mu
}

// Hold makes the device keep every request from now on, and block every
// ReadAt, until Release.
func (d *Device) Hold() {
	d.gate.mu.Lock()
	defer d.gate.mu.Unlock()
	d.gate.held = true
	d.gate.isOn.Store(true)
}

// Delay makes every request, other than a read, take that long from now on.
// Requests in flight overlap and may complete in any order.
func (d *Device) Delay(t time.Duration) {
	d.gate.mu.Lock()
	defer d.gate.mu.Unlock()
	d.gate.delay = t
	d.gate.isOn.Store(d.gate.held || t > 0)
}

// AwaitHeld blocks until n requests are held back.
func (d *Device) AwaitHeld(n int) {
	d.gate.mu.Lock()
	defer d.gate.mu.Unlock()
	for len(d.gate.kept) < n {
		d.gate.moved.Wait()
	}
}

// Release ends Hold and completes what was kept, in the order that arrange
// makes of it (nil: as it was submitted).
func (d *Device) Release(arrange func([]*block.Request)) { d.gate.Release(arrange) }

func (g *gate) Release(arrange func([]*block.Request)) {
	g.mu.Lock()
	g.held = false
	g.isOn.Store(g.delay > 0)
	kept := g.kept
	g.kept = nil
	g.slow += len(kept)
	g.moved.Broadcast()
	g.mu.Unlock()
	if arrange != nil {
		arrange(kept)
	}
	for _, r := range kept {
		g.d.finish(r)
	}
	g.mu.Lock()
	g.slow -= len(kept)
	g.moved.Broadcast()
	g.mu.Unlock()
}

// settled waits until nothing is held back.
func (g *gate) settled(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.moved.Broadcast()
	})
	defer stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.kept)+g.slow > 0 && ctx.Err() == nil {
		g.moved.Wait()
	}
	return ctx.Err()
}

func (g *gate) shut() bool {
	if !g.isOn.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

func (g *gate) waitOpen() {
	if !g.isOn.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.held {
		g.moved.Wait()
	}
}

// keep takes a request over if it is not to be carried out now.
func (g *gate) keep(r *block.Request) bool {
	if !g.isOn.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.held:
		g.kept = append(g.kept, r)
		g.moved.Broadcast()
	case g.delay > 0:
		g.slow++
		time.AfterFunc(g.delay, func() {
			g.d.finish(r)
			g.mu.Lock()
			g.slow--
			g.moved.Broadcast()
			g.mu.Unlock()
		})
	default:
		return false
	}
	return true
}

// drop completes the kept requests of a session that has been closed.
func (g *gate) drop(s *session) {
	g.mu.Lock()
	var dropped []*block.Request
	g.kept = slices.DeleteFunc(g.kept, func(r *block.Request) bool {
		if r.State.Aux != s {
			return false
		}
		dropped = append(dropped, r)
		return true
	})
	g.mu.Unlock()
	for _, r := range dropped {
		g.d.finish(r)
	}
	g.mu.Lock()
	g.moved.Broadcast()
	g.mu.Unlock()
}
