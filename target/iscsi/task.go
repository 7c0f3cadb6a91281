package iscsi

import (
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
	"github.com/lockstep-storage/lockstep/target/iscsi/scsi"
)

// A taskState is where a command is.
type taskState uint8

const (
	waiting    taskState = iota // for memory, or for the starter
	collecting                  // its data
	receiving                   // a PDU of it is being read
	executing                   // in the unit's hands, or about to be
	answered                    // its reply is pending
)

// A task is one SCSI command, from its PDU to its written reply. A connection
// uses its tasks again.
type task struct {
	cmd   scsi.Command
	conn  *conn
	itt   uint32
	lun   uint64
	flags byte
	edtl  int // bytes that the initiator expects to transfer
	// immediate commands have no place in the command window.
	immediate bool
	state     taskState
	aborted   bool  // its reply is not sent
	charge    int64 // bytes of memory that it counts for, beyond its slot
	charged   bool  // they are taken; guarded by the server's memory, and kept then
	transfer  scsi.Transfer
	batch     uint64 // number of the reader's batch that it came with

	// Of a write. The data that the unit wants is buf; what comes beyond it is
	// dropped.
	buf         *block.Buffer
	want        int    // bytes that the unit gets
	got         int    // bytes that came, in order; also those beyond want
	seen        int    // got + 1 at the connection's last tick
	unsolicited bool   // more comes unasked
	dataSN      uint32 // of the next PDU of the present burst
	burstEnd    int    // where it ends
	asked       int    // R2Ts are sent for all before it
	r2tSN       uint32 // how many R2Ts were sent
	served      uint32 // how many are fulfilled
	ttts        [maxOutstanding]uint32

	// sense is what a protocol error ends the command with; nil: none.
	fault *fault

	reply reply
	next  *task // in the table or the free list
}

// A fault is a protocol error that ends a command (11.4.7.2).
type fault struct {
	asc, ascq byte
	why       string
}

var (
	unexpectedData = &fault{0x0c, 0x0c, "more unsolicited data than was agreed on"}
	incorrectData  = &fault{0x0c, 0x0d, "less or more data than was asked for"}
	outOfOrder     = &fault{0x4b, 0x00, "data out of order"}
	damagedData    = &fault{0x47, 0x05, "data with a wrong digest"}
)

// sense is fixed format, ABORTED COMMAND.
func (f *fault) sense() [18]byte {
	return [18]byte{0: 0x70, 2: 0x0b, 7: 10, 12: f.asc, 13: f.ascq}
}

// CommandDone implements scsi.Completer.
func (t *task) CommandDone(*scsi.Command) {
	c := t.conn
	c.mu.Lock()
	if t.cmd.Status == scsi.TaskAborted {
		t.aborted = true
	}
	c.answer(t)
	c.mu.Unlock()
}

// taskTable finds tasks by their initiator task tag.
type taskTable struct {
	slots [256]*task
}

func (tt *taskTable) slot(itt uint32) **task { return &tt.slots[(itt^itt>>8^itt>>16)&255] }

func (tt *taskTable) find(itt uint32) *task {
	for t := *tt.slot(itt); t != nil; t = t.next {
		if t.itt == itt {
			return t
		}
	}
	return nil
}

func (tt *taskTable) add(t *task) {
	p := tt.slot(t.itt)
	t.next, *p = *p, t
}

func (tt *taskTable) remove(t *task) {
	for p := tt.slot(t.itt); *p != nil; p = &(*p).next {
		if *p == t {
			*p, t.next = t.next, nil
			return
		}
	}
}

func (tt *taskTable) each(f func(*task)) {
	for _, t := range tt.slots {
		for t != nil {
			next := t.next // f may remove t
			f(t)
			t = next
		}
	}
}

// newTask is an empty task. The mutex is held.
func (c *conn) newTask() *task {
	t := c.free
	if t == nil {
		t = &task{}
	} else {
		c.free = t.next
	}
	*t = task{conn: c}
	t.cmd.Done = t
	return t
}

// answer queues a task's reply. The mutex is held.
func (c *conn) answer(t *task) {
	t.state = answered
	c.tasks.remove(t) // its tag is free with the reply, and nothing is to be aborted
	t.reply = reply{task: t, status: !t.aborted}
	c.pending.push(&t.reply)
	if !c.writing && (c.corked == 0 || t.batch != c.corked) {
		c.wakeWriter()
	}
}

// fail ends a task whose data is wrong. The mutex is held.
func (c *conn) fail(t *task, f *fault) {
	t.fault = f
	c.letGo(t)
}

// letGo ends a task that the unit has not seen. The mutex is held.
func (c *conn) letGo(t *task) {
	if t.buf != nil {
		t.buf.Unref()
		t.buf = nil
	}
	c.answer(t)
}

// retire takes answered tasks, and other replies, back. The mutex is not held.
func (c *conn) retire(list *reply) {
	var charge int64
	c.mu.Lock()
	for r := list; r != nil; {
		next := r.next
		t := r.task
		switch {
		case t != nil:
			if t.charged {
				charge += t.charge
			}
			if t.cmd.In != nil {
				t.cmd.In.Unref()
				t.cmd.In = nil
			}
			if t.immediate {
				c.immediate--
			}
			c.inFlight--
			t.next, c.free = c.free, t
		default:
			if r.buf != nil {
				r.buf.Unref()
				r.buf = nil
			}
			c.control--
			r.next, c.spare = c.spare, r
		}
		r = next
	}
	c.room.Broadcast()
	c.mu.Unlock()
	if charge > 0 {
		c.srv.memory.release(c, charge, charge)
	}
}

// granted: a task got the memory that it waited for. It is called with no lock
// held.
func (c *conn) granted(t *task) {
	c.mu.Lock()
	c.ready = append(c.ready, t)
	c.mu.Unlock()
	select {
	case c.begin <- struct{}{}:
	default:
	}
}

// starter begins the tasks that had to wait for memory.
func (c *conn) starter() {
	var batch []*scsi.Command
	for range c.begin {
		c.executing.Lock()
		c.mu.Lock()
		for _, t := range c.ready {
			if t.aborted {
				c.letGo(t)
				continue
			}
			if c.advance(t) {
				batch = append(batch, &t.cmd)
			}
		}
		clear(c.ready)
		c.ready = c.ready[:0]
		over := c.over
		c.mu.Unlock()
		if len(batch) > 0 {
			c.nexus.Execute(batch)
			batch = batch[:0]
		}
		c.executing.Unlock()
		c.wakeWriter() // R2Ts
		if over {
			return
		}
	}
}

// advance takes a task that has its memory one step further: it asks for data,
// or reports that the unit can have it. The mutex is held.
func (c *conn) advance(t *task) bool {
	if t.want > 0 && (t.buf == nil || len(t.buf.Bytes()) < t.want) {
		whole := block.Get(t.want)
		if t.buf != nil {
			copy(whole.Bytes(), t.buf.Bytes()[:min(t.got, len(t.buf.Bytes()))])
			t.buf.Unref()
		}
		t.buf = whole
	}
	if t.unsolicited {
		t.state = collecting
		return false
	}
	if t.got >= t.want {
		t.state = executing
		t.cmd.Out, t.buf = t.buf, nil
		return true
	}
	t.state = collecting
	c.ask(t)
	return false
}

// ask queues as many R2Ts as may be outstanding. The mutex is held; the caller
// sees to the writing.
func (c *conn) ask(t *task) {
	t.asked = max(t.asked, t.got)
	if t.r2tSN == t.served { // none is outstanding: the next burst begins here
		t.burstEnd, t.dataSN = min(t.asked+c.terms.maxBurst, t.want), 0
	}
	for t.asked < t.want && int(t.r2tSN-t.served) < c.terms.outstandingR2T {
		n := min(c.terms.maxBurst, t.want-t.asked)
		r := c.newReply()
		ttt := c.takeTTT()
		t.ttts[t.r2tSN%maxOutstanding] = ttt
		r.h.SetOpcode(wire.OpR2T)
		r.h[1] = wire.Final
		r.h.Put64(wire.LUN, t.lun)
		r.h.Put32(wire.ITT, t.itt)
		r.h.Put32(wire.TTT, ttt)
		r.h.Put32(wire.DataSN, t.r2tSN)
		r.h.Put32(wire.Offset, uint32(t.asked))
		r.h.Put32(wire.Desired, uint32(n))
		t.asked += n
		t.r2tSN++
		c.pending.push(r)
	}
}
