package nbd

import (
	"context"
	"errors"
	"math/bits"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

var errHungUp = errors.New("nbd: the connection is closed")

// footprint is the memory that a payload of n bytes takes: block.Get's classes
// are powers of two, from 4 KiB.
func footprint(n uint64) int64 {
	if n == 0 {
		return 0
	}
	return 1 << max(12, bits.Len64(n-1))
}

// admit gives the reader a request within the connection's and the server's
// bounds, or waits until there is room: then nothing is read from the client
// meanwhile. It hands the batch over before it waits, for the room may have to
// come from there. It fails when the connection is ending.
//
// The reply of an admitted request is corked until the reader's next push.
func (c *conn) admit(ctx context.Context, h wire.Request, charge int64) (*request, error) {
	if charge > 0 && !c.srv.memory.TryAcquire(charge) {
		c.push()
		if err := c.srv.memory.Acquire(ctx, charge); err != nil {
			return nil, errHungUp
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for pushed := false; ; pushed = true {
		// What lies in the buffers of a connection that ends is not begun: it
		// may be ten thousand requests.
		if err := c.ending(); err != nil {
			c.srv.memory.Release(charge)
			return nil, err
		}
		if !c.full(charge) {
			break
		}
		if pushed {
			c.room.Wait()
			continue
		}
		c.mu.Unlock()
		c.push()
		c.mu.Lock()
	}
	c.inFlight++
	c.bytes += charge
	if c.corked == 0 {
		c.batchNo++
		c.corked = c.batchNo
	}
	q := c.free
	if q == nil {
		q = &request{conn: c}
		q.report = q.addRun
	} else {
		c.free, q.next = q.next, nil
	}
	q.cookie, q.off, q.cmd, q.charge, q.batch = h.Cookie, h.Off, h.Type, charge, c.corked
	return q, nil
}

// ending says why no request is to be begun any more. The mutex is held.
func (c *conn) ending() error {
	switch {
	case c.hungUp:
		return errHungUp
	case c.stopping != nil:
		return errStopped
	}
	return nil
}

func (c *conn) full(charge int64) bool {
	return c.inFlight >= c.srv.opt.MaxRequests || c.bytes+charge > c.srv.opt.MaxBytes
}

// retire takes answered requests back. The mutex is held.
func (c *conn) retire(list *request) {
	var charge int64
	for q := list; q != nil; {
		next := q.next
		charge += q.charge
		q.reset()
		q.next, c.free = c.free, q
		c.inFlight--
		q = next
	}
	if charge > 0 {
		c.bytes -= charge
		c.srv.memory.Release(charge)
	}
	c.room.Broadcast()
}

// settle waits until every request has been answered, or would have been if the
// client were there. It tells how many there were.
func (c *conn) settle() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.inFlight
	for c.inFlight > 0 {
		c.room.Wait()
	}
	return n
}
