package scsi

import (
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/block"
)

// A plan is how a command goes on once its CDB has been judged.
type plan uint8

const (
	planEnded  plan = iota // nothing is left to do: Status says how it ended
	planNow                // opcode.now, under the unit's lock
	planRead               // task.io's range is read
	planSubmit             // task.io goes to the device
	planWork               // opcode.work, on a worker
)

// A state is where a command is.
type state uint8

const (
	stateWaiting state = iota + 1 // for other commands to end
	stateQueued                   // for a worker
	stateRunning                  // in somebody's hands
)

// task is a command's place in the unit's task set. All but io and the
// constants is guarded by the unit's mutex.
type task struct {
	c    *Command // whose task it is; constant, as are n and op
	n    *Nexus
	op   *opcode
	plan plan

	// What it touches: bytes [off, end) of the device. While alone is set nothing
	// else may touch them; a barrier keeps everything else out.
	off, end int64
	alone    bool
	barrier  bool

	state    state
	blockers int // earlier tasks that it waits for
	// aborted: it ends with TaskAborted, and need not go on.
	aborted atomic.Bool
	// managed are the task managements that wait for its end.
	managed []*management

	prev, next *task // the unit's task set, in order of arrival
	queued     *task // the queue of its nexus' workers

	// io is what planRead and planSubmit do.
	io block.Request
}

// conflicts reports whether the later of two tasks has to wait for the other.
func (t *task) conflicts(o *task) bool {
	return t.barrier || o.barrier || (t.alone || o.alone) && t.off < o.end && o.off < t.end
}

// A taskSet holds the tasks of a unit that have begun and not ended, in order of
// arrival. The unit's mutex guards it.
type taskSet struct {
	first, last *task
	// strict counts tasks that are alone or a barrier; without one nobody waits.
	strict  int
	waiting int
}

// add appends a task and counts whom it has to wait for.
func (s *taskSet) add(t *task) {
	t.blockers = 0
	if strict := t.alone || t.barrier; strict || s.strict > 0 {
		for o := s.first; o != nil; o = o.next {
			if t.conflicts(o) {
				t.blockers++
			}
		}
		if strict {
			s.strict++
		}
	}
	t.prev, t.next = s.last, nil
	if s.last == nil {
		s.first = t
	} else {
		s.last.next = t
	}
	s.last = t
	t.state = stateRunning
	if t.blockers > 0 {
		t.state = stateWaiting
		s.waiting++
	}
}

// remove takes a task out and has those begin that waited for it alone.
func (s *taskSet) remove(t *task) {
	if t.state == stateWaiting {
		s.waiting--
	}
	if t.alone || t.barrier {
		s.strict--
	}
	if s.waiting > 0 {
		for o := t.next; o != nil; o = o.next {
			if o.state != stateWaiting || !o.conflicts(t) {
				continue
			}
			if o.blockers--; o.blockers == 0 {
				s.waiting--
				o.n.workers.add(o)
			}
		}
	}
	if t.prev == nil {
		s.first = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		s.last = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
}

// Complete implements block.Completer: the device is done with task.io.
func (t *task) Complete(_ *block.Request, err error) {
	if err != nil {
		t.c.fail(err, writeError, t.lba())
	}
	t.n.finish(t)
}

// lba is the first block that the task touches.
func (t *task) lba() uint64 { return uint64(t.off) / uint64(t.n.geo.blockSize) }
