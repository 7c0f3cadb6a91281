package nbd

import (
	"sync"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// read serves a read at once if the device can without a disk, else it leaves
// it to a worker: a cold read must not stall the connection.
func (c *conn) read(q *request) {
	q.payload = block.Get(int(q.io.Len))
	done, err := c.session.TryReadAt(q.payload.Bytes(), q.io.Off)
	if done {
		c.done(q, err)
		return
	}
	c.reads.add(q)
}

// readWorkers carry out a connection's cold reads. They start when they are
// first needed, and stay. The queue is bounded by the requests in flight.
type readWorkers struct {
	c   *conn
	max int

	mu      sync.Mutex
	more    sync.Cond
	queue   queue
	running int
	idle    int
	over    bool
}

func (w *readWorkers) init(c *conn, n int) {
	w.c, w.max = c, n
	w.more.L = &w.mu
}

func (w *readWorkers) add(q *request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue.push(q)
	switch {
	case w.idle > 0:
		w.more.Signal()
	case w.running < w.max:
		w.running++
		w.c.goroutines.Go(w.work)
	}
}

func (w *readWorkers) work() {
	for q := w.next(); q != nil; q = w.next() {
		w.c.done(q, w.c.carryOut(q))
		w.c.writePending(false)
	}
}

// carryOut does what may have to wait for a disk.
func (c *conn) carryOut(q *request) error {
	if q.cmd == wire.CmdBlockStatus {
		return c.blockStatus(q)
	}
	return c.readCold(q)
}

// next waits for a read; nil means that there will be none.
func (w *readWorkers) next() *request {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle++
	for w.queue.head == nil && !w.over {
		w.more.Wait()
	}
	w.idle--
	return w.queue.pop()
}

// stop ends the workers, once the queue is empty.
func (w *readWorkers) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.more.Broadcast()
}
