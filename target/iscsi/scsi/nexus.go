package scsi

import (
	"sync"

	"github.com/lockstep-storage/lockstep/block"
)

// A Nexus is one initiator port's use of a unit through one target port.
type Nexus struct {
	unit    *Unit
	session block.Session
	id      nexusID
	port    Port
	events  Events
	geo     *geometry

	// batch is Execute's.
	batch []*block.Request
	// submitting is held around session.Submit, which one goroutine at a time may
	// call: Execute's or a worker's.
	submitting sync.Mutex

	// Guarded by the unit's mutex.

	closed     bool
	attentions attentions
	workers    workers
	active     int // tasks in the task set
	idle       sync.Cond

	closing sync.Once
}

// Execute carries commands out. It may block while the device is out of credit,
// as block.Session.Submit does. The caller keeps the slice, not the commands.
func (n *Nexus) Execute(cmds []*Command) {
	for _, c := range cmds {
		n.start(c)
	}
	if len(n.batch) > 0 {
		n.submit(n.batch)
		clear(n.batch)
		n.batch = n.batch[:0]
	}
}

func (n *Nexus) submit(batch []*block.Request) {
	n.submitting.Lock()
	defer n.submitting.Unlock()
	n.session.Submit(batch)
}

// start judges a command and has it begin, unless it has to wait.
func (n *Nexus) start(c *Command) {
	u := n.unit
	t := &c.task
	t.c, t.n = c, n
	t.barrier = c.Attribute == Ordered
	c.Status = Good
	t.plan = n.judge(c)

	u.mu.Lock()
	if !n.admit(c) {
		t.plan = planEnded
	}
	switch t.plan {
	case planEnded:
		u.mu.Unlock()
		c.end()
		return
	case planNow:
		t.op.now(n, c)
		u.mu.Unlock()
		c.end()
		return
	}
	n.active++
	u.tasks.add(t)
	switch {
	case t.state == stateWaiting:
		u.mu.Unlock()
		return
	case t.plan == planWork:
		n.workers.add(t)
		u.mu.Unlock()
		return
	}
	u.mu.Unlock()

	if t.plan == planRead {
		n.read(t)
		return
	}
	n.batch = append(n.batch, t.request())
}

// request hands task.io out to be submitted. The data of a write becomes the
// device's as it came, unless there is more of it than the command takes.
func (t *task) request() *block.Request {
	if t.io.Op != block.OpWrite {
		return &t.io
	}
	if out := t.c.Out; int64(len(out.Bytes())) == t.io.Len {
		t.io.Buf, t.c.Out = out, nil
	} else {
		t.io.Buf = copyOf(out.Bytes()[:t.io.Len])
	}
	return &t.io
}

// judge looks at the command alone.
func (n *Nexus) judge(c *Command) plan {
	op, known := lookup(&c.CDB)
	if op == nil || op.offered != nil && !op.offered(n.unit, n.geo) {
		if known && op == nil {
			return c.badCDB(1, 4)
		}
		return c.check(invalidOpcode)
	}
	c.task.op = op
	if control := int(op.length) - 1; c.CDB[control]&0x04 != 0 { // NACA
		return c.badCDB(control, 2)
	}
	return op.judge(n, c)
}

// admit looks at what the unit and the nexus are going through. The unit's mutex
// is held.
func (n *Nexus) admit(c *Command) bool {
	u := n.unit
	op := c.task.op
	if n.closed {
		c.Status = TaskAborted
		return false
	}
	if op == nil { // whatever it was
		op = &unknownOpcode
	}
	if !op.has(duringAttention) {
		if code, ok := n.attentions.take(); ok {
			c.check(cause{keyUnitAttention, code})
			return false
		}
	}
	if why, ok := u.accessible(n.port.Group); !ok && !op.has(anyAccessState) {
		c.check(why)
		return false
	}
	if u.reservations.conflict(n.id, op) {
		c.Status = ReservationConflict
		return false
	}
	if op.has(writes) && c.Status == Good {
		switch {
		case n.geo.info.ReadOnly:
			c.check(writeProtected)
			return false
		case u.mode.writeProtect:
			c.check(softwareWriteProtected)
			return false
		}
	}
	return true
}

// read serves a read at once if the device can without a disk, else it leaves it
// to a worker.
func (n *Nexus) read(t *task) {
	t.c.In = block.Get(int(t.io.Len))
	done, err := n.session.TryReadAt(t.c.In.Bytes(), t.io.Off)
	if !done {
		n.unit.mu.Lock()
		n.workers.add(t)
		n.unit.mu.Unlock()
		return
	}
	n.readDone(t, err)
}

func (n *Nexus) readDone(t *task, err error) {
	if err != nil {
		t.c.fail(err, readError, t.lba())
	}
	n.finish(t)
}

// run carries a task out on a worker.
func (n *Nexus) run(t *task) {
	switch t.plan {
	case planRead:
		if t.c.In == nil {
			t.c.In = block.Get(int(t.io.Len))
		}
		n.readDone(t, n.session.ReadAt(t.c.In.Bytes(), t.io.Off))
	case planSubmit:
		n.submit([]*block.Request{t.request()})
	case planWork:
		t.op.work(n, t.c)
		n.finish(t)
	}
}

// finish takes a task out of the set and ends its command.
func (n *Nexus) finish(t *task) {
	u := n.unit
	u.mu.Lock()
	u.tasks.remove(t)
	managed := t.managed
	t.managed = nil
	if t.aborted.Load() {
		t.c.Status = TaskAborted
	}
	u.mu.Unlock()

	t.c.end() // the command is the transport's again
	for _, m := range managed {
		m.ended()
	}
	n.left()
}

// left notes that a task's command has ended.
func (n *Nexus) left() {
	mu := &n.unit.mu
	mu.Lock()
	defer mu.Unlock()
	if n.active--; n.active == 0 && n.closed {
		n.idle.Broadcast()
	}
}

// end tells the transport. Data goes to the initiator only with a good status.
func (c *Command) end() {
	if c.Out != nil {
		c.Out.Unref()
		c.Out = nil
	}
	if c.In != nil && c.Status != Good {
		c.In.Unref()
		c.In = nil
	}
	if c.Status == CheckCondition {
		c.sense.encode(c.task.n != nil && c.task.n.unit.descriptorSense.Load())
	}
	c.Done.CommandDone(c)
}

// Close ends the nexus. When it returns nothing that the device had not ordered
// will take effect; what it had ordered still ends (Wait). A RESERVE(6) of the
// nexus is released. It is safe to call twice.
func (n *Nexus) Close() {
	n.closing.Do(func() {
		u := n.unit
		u.mu.Lock()
		n.closed = true
		delete(u.nexuses, n)
		u.reservations.nexusLost(n.id)
		cancelled := u.abort(func(t *task) bool { return t.n == n }, nil)
		n.workers.stop()
		u.mu.Unlock()
		finishAll(cancelled)
		n.session.Close()
	})
}

// Wait blocks until every command of a closed nexus has ended, and its
// goroutines.
func (n *Nexus) Wait() {
	mu := &n.unit.mu
	mu.Lock()
	for n.active > 0 {
		n.idle.Wait()
	}
	mu.Unlock()
	n.workers.goroutines.Wait()
}
