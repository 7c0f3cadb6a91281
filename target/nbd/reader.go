package nbd

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

var (
	errDisconnect = errors.New("nbd: the client disconnected")
	errStopped    = errors.New("nbd: the server ends the connection")
)

// transmit reads requests until the connection ends, and says why it ended.
func (c *conn) transmit(ctx context.Context) error {
	for {
		if err := c.fill(); err != nil {
			return err
		}
		err := c.parse(ctx)
		for err == nil && c.gather() {
			err = c.parse(ctx)
		}
		c.push()
		if err != nil {
			return err
		}
	}
}

// gather hands the batch over and reports whether more requests are there, or
// come within a moment, whose replies can share a system call with those of the
// batch. Only a client that keeps many requests in flight is waited for, and
// for half of them at most, so that it has as many left to go on with.
func (c *conn) gather() bool {
	if c.depth < deep || c.taken >= min(maxCorked, int(c.depth/2)) {
		return false
	}
	c.submit()
	for i := 0; i < gatherTries; i++ {
		if c.fillNow() {
			return true
		}
		if !c.repliesWait() {
			break
		}
	}
	return false
}

// fill reads whatever has arrived, at least a byte. The rest of a header that
// began earlier must come in time; a new one may take for ever.
func (c *conn) fill() error {
	partial := c.w > c.r
	c.makeRoom()
	n, err := c.sock.Read(c.in[c.w:], partial)
	c.w += n
	if n == 0 && err != nil {
		return fmt.Errorf("nbd: read a request after %d bytes of its header: %w", c.w, err)
	}
	return nil
}

// fillNow is fill without waiting. It reports whether anything was there; the
// next fill meets the errors.
func (c *conn) fillNow() bool {
	c.makeRoom()
	n := c.sock.TryRead(c.in[c.w:])
	c.w += n
	return n > 0
}

func (c *conn) makeRoom() {
	c.w = copy(c.in, c.in[c.r:c.w])
	c.r = 0
}

// parse takes the requests out of the buffer, up to the first that is not there
// in whole. Writes, trims and flushes gather in the batch.
func (c *conn) parse(ctx context.Context) error {
	size, decode := wire.RequestSize, wire.ParseRequest
	if c.rules.extended {
		size, decode = wire.ExtRequestSize, wire.ParseExtRequest
	}
	for c.w-c.r >= size {
		h, ok := decode(c.in[c.r:])
		if !ok {
			return fmt.Errorf("nbd: request with magic % x", c.in[c.r:c.r+4])
		}
		c.r += size
		if h.Type == wire.CmdDisc {
			return errDisconnect
		}
		if err := c.take(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// take begins one request.
func (c *conn) take(ctx context.Context, h wire.Request) error {
	c.taken++
	no := c.rules.judge(h)
	if no == nil && c.rules.filtered(h) {
		payload, err := c.receiveFew(filterSize)
		if err != nil {
			return err
		}
		h, no = c.rules.applyFilter(h, payload)
	}
	if no != nil {
		return c.turnDown(ctx, h, no)
	}
	q, err := c.admit(ctx, h, footprint(c.rules.memory(h)))
	if err != nil {
		return err
	}
	q.prepare(h)
	q.sparse = c.sparse != nil && c.rules.leavesHoles(h)
	if (q.io.FUA || q.io.Op == block.OpFlush) && c.repliesWait() {
		c.push() // Submit may sync a disk, and what is done does not wait for that
	}
	switch h.Type {
	case wire.CmdRead:
		c.read(q)
		return nil
	case wire.CmdBlockStatus, wire.CmdCache:
		c.reads.add(q)
		return nil
	case wire.CmdWrite:
		if err := c.receive(q); err != nil {
			q.abandoned = true
			c.done(q, nil)
			return err
		}
	}
	c.batch = append(c.batch, &q.io)
	return nil
}

// turnDown answers an unsound request. Its payload comes all the same.
func (c *conn) turnDown(ctx context.Context, h wire.Request, no *refusal) error {
	if no.hangUp {
		return fmt.Errorf("nbd: %s", no.why)
	}
	if err := c.skip(int(c.rules.payload(h))); err != nil {
		return err
	}
	q, err := c.admit(ctx, h, 0)
	if err != nil {
		return err
	}
	q.refusal = no
	c.done(q, nil)
	return nil
}

// receive reads a write's payload.
func (c *conn) receive(q *request) error {
	buf := block.Get(int(q.io.Len))
	p := buf.Bytes()
	n := copy(p, c.in[c.r:c.w])
	c.r += n
	if n < len(p) {
		c.push() // the others do not wait for this one's payload
		if err := c.readFull(p[n:]); err != nil {
			buf.Unref()
			return err
		}
	}
	q.io.Buf = buf
	return nil
}

// receiveFew reads n bytes of payload, of which the buffer holds many. They are
// valid until the next read.
func (c *conn) receiveFew(n int) ([]byte, error) {
	if c.w-c.r < n {
		c.push()
		c.makeRoom()
		if err := c.readFull(c.in[c.w:n]); err != nil {
			return nil, err
		}
		c.w = n
	}
	c.r += n
	return c.in[c.r-n : c.r], nil
}

// skip reads n bytes and forgets them.
func (c *conn) skip(n int) error {
	k := min(n, c.w-c.r)
	c.r += k
	n -= k
	if n == 0 {
		return nil
	}
	c.push()
	c.r, c.w = 0, 0
	for n > 0 {
		k := min(n, len(c.in))
		if err := c.readFull(c.in[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// readFull fills p from the socket, as long as there is progress.
func (c *conn) readFull(p []byte) error {
	for got := 0; got < len(p); {
		n, err := c.sock.Read(p[got:], true)
		got += n
		if err != nil && got < len(p) {
			return fmt.Errorf("nbd: read a request's payload, %d bytes to go: %w", len(p)-got, err)
		}
	}
	return nil
}

// submit hands the batch over. It may block while the device is out of credit;
// what is completed meanwhile is written by the writer, except for what is
// corked.
func (c *conn) submit() {
	if len(c.batch) > 0 {
		c.session.Submit(c.batch)
		c.batch = c.batch[:0]
	}
}

// push hands the batch over, uncorks and writes what is done.
func (c *conn) push() {
	c.submit()
	c.depth = max(float64(c.taken), 0.99*c.depth)
	c.taken = 0
	c.mu.Lock()
	c.corked = 0
	c.mu.Unlock()
	c.writePending(false)
}
