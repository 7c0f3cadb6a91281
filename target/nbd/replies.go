package nbd

import (
	"github.com/lockstep-storage/lockstep/target/internal/stream"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// writeChunk is how much one system call writes at most: what a client must
// take within the progress timeout.
const writeChunk = 1 << 20

// done queues a request for its reply. Who calls it sees to the writing.
func (c *conn) done(q *request, err error) {
	q.err = err
	c.mu.Lock()
	c.pending.push(q)
	c.mu.Unlock()
}

// repliesWait reports whether there is something to write.
func (c *conn) repliesWait() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending.head != nil
}

// complete queues a request for its reply on behalf of the device, from
// whatever goroutine, and wakes the writer; unless somebody is writing, who
// will look again, or the request is of the batch in the reader's hands, which
// the reader will write with the rest of the batch.
func (c *conn) complete(q *request, err error) {
	q.err = err
	c.mu.Lock()
	c.pending.push(q)
	wake := !c.writing && q.batch != c.corked
	c.mu.Unlock()
	if wake {
		c.wakeWriter()
	}
}

func (c *conn) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default: // it is awake
	}
}

// writer writes the replies that nobody else writes.
func (c *conn) writer() {
	for range c.wake {
		c.resume()
		c.mu.Lock()
		over := c.over
		c.mu.Unlock()
		if over {
			return
		}
		c.writePending(true)
	}
}

// resume writes what is left of replies that did not fit into the socket.
func (c *conn) resume() {
	c.mu.Lock()
	list, mute := c.stalled, c.hungUp
	c.stalled = nil
	c.mu.Unlock()
	if list == nil {
		return
	}
	if !mute {
		c.sent(c.replies.writeTo(c.sock))
	}
	c.mu.Lock()
	c.writing = false
	c.retire(list)
	c.mu.Unlock()
}

// stopWriter ends the writer. The channel stays open: a goroutine of the device
// may still be on its way to it with a reply that another has written already.
func (c *conn) stopWriter() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.wakeWriter()
}

// writePending writes all replies that are pending, if nobody is writing. What
// becomes pending meanwhile is written too if toTheEnd, else left to the writer:
// the reader and the workers have other things to do. They do not wait for the
// client to take its replies either, for it may wait for the reader to take its
// requests.
func (c *conn) writePending(toTheEnd bool) {
	c.mu.Lock()
	for !c.writing && c.pending.head != nil {
		c.writing = true
		list := c.pending.takeAll()
		mute := c.hungUp
		c.mu.Unlock()
		if !mute && !c.write(list, toTheEnd) {
			c.mu.Lock()
			c.stalled = list // and c.writing stays set, for the writer
			c.mu.Unlock()
			c.wakeWriter()
			return
		}
		c.mu.Lock()
		c.writing = false
		c.retire(list)
		if !toTheEnd {
			break
		}
	}
	wake := !c.writing && c.pending.head != nil
	c.mu.Unlock()
	if wake {
		c.wakeWriter()
	}
}

// write sends the replies of a list of requests. The caller set c.writing. It
// reports false if the socket is full and it was not to wait.
func (c *conn) write(list *request, wait bool) bool {
	b := &c.replies
	b.reset()
	var over error
	for q := list; q != nil; q = q.next {
		if q.abandoned {
			continue
		}
		e := q.errno()
		if e != wire.OK {
			c.complain(q, e)
		}
		if q.err != nil && sessionOver(q.err) {
			over = q.err
		}
		b.answer(q, e)
	}
	if over != nil {
		defer c.stop(over)
	}
	b.left = b.iov
	if wait {
		c.sent(b.writeTo(c.sock))
		return true
	}
	rest, err := c.sock.TrySend(b.iov)
	c.sent(err)
	b.left = rest
	return err != nil || len(rest) == 0
}

// sent hangs up if replies could not be sent.
func (c *conn) sent(err error) {
	if err != nil {
		c.log.Debug("replies not sent", "error", err)
		c.hangUp()
	}
}

// complain logs a request that failed, within reason.
func (c *conn) complain(q *request, errno uint32) {
	c.complaints++
	switch {
	case c.complaints > maxComplaints:
	case c.complaints == maxComplaints:
		c.log.Warn("many requests failed, the rest is not logged", "failed", c.complaints)
	case q.refusal != nil:
		c.log.Warn("request refused", "errno", wire.ErrnoName(errno), "why", q.refusal.why)
	default:
		c.log.Warn("request failed", "errno", wire.ErrnoName(errno), "request", wire.CmdName(q.cmd),
			"offset", q.io.Off, "length", q.io.Len, "error", q.err)
	}
}

// A replyBuffer lays replies out for vectored writes.
type replyBuffer struct {
	terms    terms
	headers  []byte   // of all replies, one after the other
	iov      [][]byte // what is to be written
	left     [][]byte // what of it was not
	inHeader bool     // iov's last element is the end of headers
}

func (b *replyBuffer) init(requests int, t terms) {
	b.terms = t
	b.headers = make([]byte, 0, requests*(wire.ExtChunkSize+8))
	b.iov = make([][]byte, 0, 2*requests)
}

func (b *replyBuffer) reset() {
	b.headers, b.iov, b.inHeader = b.headers[:0], b.iov[:0], false
}

// room sees to it that n bytes can be appended to headers, and returns where.
// What is in iov stays where it is.
func (b *replyBuffer) room(n int) (at int) {
	if cap(b.headers)-len(b.headers) < n {
		b.headers = make([]byte, 0, max(cap(b.headers), n))
		b.inHeader = false
	}
	return len(b.headers)
}

// added takes what was appended to headers, from at on, into iov. Headers that
// follow each other become one element.
func (b *replyBuffer) added(at int) {
	if b.inHeader {
		last := &b.iov[len(b.iov)-1]
		*last = (*last)[:len(*last)+len(b.headers)-at]
		return
	}
	b.iov = append(b.iov, b.headers[at:])
	b.inHeader = true
}

func (b *replyBuffer) payload(p []byte) {
	for len(p) > 0 {
		n := min(len(p), writeChunk)
		b.iov = append(b.iov, p[:n])
		p = p[n:]
	}
	b.inHeader = false
}

// writeTo writes everything, at most about writeChunk bytes at a time.
func (b *replyBuffer) writeTo(s stream.Stream) error {
	for rest := b.left; len(rest) > 0; {
		n, size := 1, len(rest[0])
		for n < len(rest) && size+len(rest[n]) <= writeChunk {
			size += len(rest[n])
			n++
		}
		if err := s.Writev(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}
