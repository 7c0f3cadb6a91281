package scsi

import "sync/atomic"

// A Function is a task management function (SAM-5).
type Function uint8

const (
	// AbortTask ends the nexus's command with a tag.
	AbortTask Function = iota
	// AbortTaskSet ends all commands of the nexus.
	AbortTaskSet
	// ClearTaskSet ends all commands of the unit.
	ClearTaskSet
	// ResetUnit ends all commands of the unit (LOGICAL UNIT RESET), and its
	// RESERVE(6), and puts its mode pages back to their defaults. A target reset
	// is one for each unit.
	ResetUnit
)

// management is a task management function that waits for tasks to end.
type management struct {
	left atomic.Int64 // tasks that have not ended, and one for the function itself
	done func()
}

func (m *management) ended() {
	if m.left.Add(-1) == 0 {
		m.done()
	}
}

// abort marks tasks and takes those out of the queues that nobody has in hands:
// the caller finishes them after it has given the lock up. m waits for all of
// them, unless it is nil.
func (u *Unit) abort(which func(*task) bool, m *management) (cancelled []*task) {
	for t := u.tasks.first; t != nil; t = t.next {
		if !which(t) {
			continue
		}
		t.aborted.Store(true)
		if m != nil {
			m.left.Add(1)
			t.managed = append(t.managed, m)
		}
		switch t.state {
		case stateQueued:
			t.n.workers.drop(t)
			t.state = stateRunning
			cancelled = append(cancelled, t)
		case stateWaiting:
			u.tasks.waiting--
			t.state = stateRunning
			cancelled = append(cancelled, t)
		}
	}
	return cancelled
}

func finishAll(tasks []*task) {
	for _, t := range tasks {
		t.n.finish(t)
	}
}

// Manage carries out a task management function; tag is for AbortTask alone.
// What it names and nobody has begun is cancelled; done is called, from any
// goroutine, once the rest has ended as well: each with TaskAborted. It must not
// block. found says whether AbortTask found the command.
func (n *Nexus) Manage(f Function, tag uint64, done func(found bool)) {
	u := n.unit
	found := f != AbortTask
	m := &management{done: func() { done(found) }}
	m.left.Add(1)

	which := func(t *task) bool { return true }
	switch f {
	case AbortTask:
		which = func(t *task) bool {
			hit := t.n == n && t.c.Tag == tag
			found = found || hit
			return hit
		}
	case AbortTaskSet:
		which = func(t *task) bool { return t.n == n }
	}

	u.mu.Lock()
	others := u.tasksOfOthers(n)
	cancelled := u.abort(which, m)
	switch f {
	case ClearTaskSet:
		for o := range others {
			o.attentions.add(commandsCleared)
		}
	case ResetUnit:
		u.reset()
	}
	if f == ClearTaskSet || f == ResetUnit {
		for o := range u.nexuses {
			if o != n && o.events.Cleared != nil {
				go o.events.Cleared()
			}
		}
	}
	u.mu.Unlock()
	finishAll(cancelled)
	m.ended()
}

// tasksOfOthers are the nexuses other than n that have tasks.
func (u *Unit) tasksOfOthers(n *Nexus) map[*Nexus]struct{} {
	others := make(map[*Nexus]struct{})
	for t := u.tasks.first; t != nil; t = t.next {
		if t.n != n {
			others[t.n] = struct{}{}
		}
	}
	return others
}

// reset is what a LOGICAL UNIT RESET does beside ending commands.
func (u *Unit) reset() {
	u.reservations.reserved = nil
	u.setMode(defaultMode)
	for o := range u.nexuses {
		o.attentions.add(resetOccurred)
	}
}
