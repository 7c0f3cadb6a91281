package scsi

import "sync"

// workers carry out what may have to wait for a disk. They start when they are
// first needed, and end with the nexus. The unit's mutex guards all of it. The
// queue is bounded by what the transport lets one nexus have in flight.
type workers struct {
	n   *Nexus
	max int

	more        sync.Cond
	first, last *task
	queued      int // tasks between first and last
	running     int // goroutines
	busy        int // those of them that have a task in hands
	over        bool
	goroutines  sync.WaitGroup
}

func (w *workers) init(n *Nexus, max int) {
	w.n, w.max = n, max
	w.more.L = &n.unit.mu
}

func (w *workers) add(t *task) {
	t.state = stateQueued
	t.queued = nil
	if w.first == nil {
		w.first = t
	} else {
		w.last.queued = t
	}
	w.last = t
	w.queued++
	switch {
	case w.queued <= w.running-w.busy:
		w.more.Signal()
	case w.running < w.max:
		w.running++
		w.goroutines.Go(w.work)
	}
}

// drop takes a task out of the queue.
func (w *workers) drop(t *task) {
	var prev *task
	for o := w.first; o != t; o = o.queued {
		prev = o
	}
	if prev == nil {
		w.first = t.queued
	} else {
		prev.queued = t.queued
	}
	if w.last == t {
		w.last = prev
	}
	t.queued = nil
	w.queued--
}

func (w *workers) work() {
	for t := w.next(); t != nil; t = w.next() {
		w.n.run(t)
		w.free()
	}
}

func (w *workers) free() {
	mu := &w.n.unit.mu
	mu.Lock()
	defer mu.Unlock()
	w.busy--
}

// next waits for a task; nil means that there will be none.
func (w *workers) next() *task {
	mu := &w.n.unit.mu
	mu.Lock()
	defer mu.Unlock()
	for w.first == nil && !w.over {
		w.more.Wait()
	}
	t := w.first
	if t == nil {
		w.running--
		return nil
	}
	if w.first = t.queued; w.first == nil {
		w.last = nil
	}
	t.queued = nil
	w.queued--
	w.busy++
	t.state = stateRunning
	return t
}

// stop ends the workers once the queue is empty.
func (w *workers) stop() {
	w.over = true
	w.more.Broadcast()
}
