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
	switch q.cmd {
	case wire.CmdBlockStatus:
		return c.blockStatus(q)
	case wire.CmdCache:
		return c.cache(q)
	}
	return c.readCold(q)
}

const (
	// maxCache is how much one NBD_CMD_CACHE reads at most, bytes: what is asked
	// for beyond is left where it is.
	maxCache = wire.MaxPayload
	// cachePiece is how much of it is in memory at once.
	cachePiece = 1 << 20
)

// cache reads, so that the page cache has it.
func (c *conn) cache(q *request) error {
	buf := block.Get(int(min(q.io.Len, cachePiece)))
	defer buf.Unref()
	end := q.io.Off + min(q.io.Len, maxCache)
	for off := q.io.Off; off < end; off += cachePiece {
		if err := c.session.ReadAt(buf.Bytes()[:min(end-off, cachePiece)], off); err != nil {
			return err
		}
	}
	return nil
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
