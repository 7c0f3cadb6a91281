package iscsi

import (
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/internal/stream"
	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
	"github.com/lockstep-storage/lockstep/target/iscsi/scsi"
)

const (
	// writeChunk is how much one system call writes at most: what an initiator
	// must take within the progress timeout.
	writeChunk = 1 << 20
	// maxLayout is after how many PDUs the rest waits for the next round.
	maxLayout = 1024
)

// A reply is something to be sent. Of a command it is laid out when it is sent,
// everything else is a header, to which sequence numbers are added, and data.
type reply struct {
	task   *task // of a command; nil: the following
	h      wire.Header
	buf    *block.Buffer // nil: no data
	status bool          // it takes a StatSN
	next   *reply
}

// newReply is an empty reply that is not a command's. The mutex is held.
func (c *conn) newReply() *reply {
	r := c.spare
	if r == nil {
		r = new(reply)
	} else {
		c.spare = r.next
	}
	*r = reply{}
	c.control++
	return r
}

// A replyQueue is first-in, first-out.
type replyQueue struct{ head, tail *reply }

func (l *replyQueue) push(r *reply) {
	r.next = nil
	if l.head == nil {
		l.head = r
	} else {
		l.tail.next = r
	}
	l.tail = r
}

func (l *replyQueue) pop() *reply {
	r := l.head
	if r != nil {
		l.head, r.next = r.next, nil
	}
	return r
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
	c.written(list)
}

// written takes back what was sent and lets others write.
func (c *conn) written(list *reply) {
	c.mu.Lock()
	c.writing = false
	c.mu.Unlock()
	c.retire(list)
}

func (c *conn) stopHelpers() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.wakeWriter()
	select {
	case c.begin <- struct{}{}:
	default:
	}
}

// writePending writes the replies that are pending, if nobody is writing; if not
// toTheEnd it leaves to the writer what becomes pending meanwhile, and what the
// socket does not take at once: the initiator may wait for the reader to read.
func (c *conn) writePending(toTheEnd bool) {
	c.mu.Lock()
	for !c.writing && c.pending.head != nil {
		c.writing = true
		list := c.layOut()
		mute := c.hungUp
		c.mu.Unlock()
		if !mute && !c.write(toTheEnd) {
			c.mu.Lock()
			c.stalled = list // and c.writing stays set, for the writer
			c.mu.Unlock()
			c.wakeWriter()
			return
		}
		c.written(list)
		c.mu.Lock()
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

// layOut takes replies from the queue and makes PDUs of them, with their
// sequence numbers. The mutex is held, and c.writing set.
func (c *conn) layOut() (list *reply) {
	b := &c.replies
	b.reset()
	var l replyQueue
	for b.pdus < maxLayout && c.pending.head != nil {
		r := c.pending.pop()
		l.push(r)
		if t := r.task; t != nil {
			if !t.immediate {
				c.maxCmdSN++
			}
			if !t.aborted {
				c.layOutTask(t)
			}
			continue
		}
		c.number(&r.h, r.status)
		var data []byte
		if r.buf != nil {
			data = r.buf.Bytes()
		}
		b.add(&r.h, data)
	}
	return l.head
}

// number writes the sequence numbers into a header.
func (c *conn) number(h *wire.Header, status bool) {
	h.Put32(wire.StatSN, c.statSN)
	if status {
		c.statSN++
	}
	h.Put32(wire.ExpCmdSN, c.expCmdSN)
	h.Put32(wire.MaxCmdSN, c.maxCmdSN)
}

// residual compares what the initiator expected with what there was (11.4.5).
func (t *task) residual() (flag byte, n int) {
	have := 0
	switch {
	case t.fault != nil:
	case t.transfer.Direction == scsi.DataIn:
		if t.cmd.In != nil {
			have = len(t.cmd.In.Bytes())
		}
	case t.transfer.Direction == scsi.DataOut:
		have = t.transfer.Length
	}
	expected := t.edtl
	if t.transfer.Direction == scsi.DataIn && t.flags&wire.Write != 0 || t.transfer.Direction == scsi.DataOut && t.flags&wire.Read != 0 {
		expected = 0 // in that direction
	}
	switch {
	case have > expected:
		return wire.Overflow, have - expected
	case have < expected:
		return wire.Underflow, expected - have
	}
	return 0, 0
}

// layOutTask makes the Data-In and the response of a command.
func (c *conn) layOutTask(t *task) {
	b := &c.replies
	flag, residual := t.residual()
	var data []byte
	if t.cmd.In != nil && t.flags&wire.Read != 0 && t.fault == nil {
		data = t.cmd.In.Bytes()
		data = data[:min(len(data), t.edtl)]
	}
	var h wire.Header
	dataSN := uint32(0)
	for off := 0; off < len(data); {
		burst := c.terms.maxBurst - off%c.terms.maxBurst
		n := min(len(data)-off, c.terms.sendSegment, burst)
		last := off+n == len(data)
		h = wire.Header{}
		h.SetOpcode(wire.OpDataIn)
		h.Put32(wire.ITT, t.itt)
		h.Put32(wire.TTT, wire.Reserved)
		h.Put32(wire.DataSN, dataSN)
		h.Put32(wire.Offset, uint32(off))
		if last || n == burst {
			h[1] = wire.Final
		}
		c.number(&h, last)
		if last { // the status comes with the data
			h[1] |= wire.HasStatus | flag
			h[3] = byte(t.cmd.Status)
			h.Put32(wire.Residual, uint32(residual))
		} else {
			h.Put32(wire.StatSN, 0)
		}
		b.add(&h, data[off:off+n])
		off += n
		dataSN++
	}
	if len(data) > 0 {
		return
	}
	h = wire.Header{}
	h.SetOpcode(wire.OpResponse)
	h[1] = wire.Final | flag
	h[3] = byte(t.cmd.Status)
	h.Put32(wire.ITT, t.itt)
	h.Put32(wire.Residual, uint32(residual))
	c.number(&h, true)
	if t.fault != nil {
		h[3] = byte(scsi.CheckCondition)
		s := t.fault.sense()
		b.addSense(&h, s[:])
		return
	}
	h.Put32(wire.DataSN, t.r2tSN) // ExpDataSN: R2Ts, or Data-In, that were sent
	b.addSense(&h, t.cmd.Sense())
}

// write sends what is laid out. The caller set c.writing. It reports false if
// the socket is full and it was not to wait.
func (c *conn) write(wait bool) bool {
	b := &c.replies
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

// settle waits until every command has been answered, or would have been if the
// initiator were there, and everything pending is written. It tells how many
// there were.
func (c *conn) settle() int {
	c.writePending(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.inFlight
	for c.inFlight > 0 || c.control > 0 {
		c.room.Wait()
	}
	return n
}

// A replyBuffer lays PDUs out for vectored writes.
type replyBuffer struct {
	headerDigest, dataDigest bool

	pdus    int
	headers []byte   // what is not data, one after the other
	iov     [][]byte // what is to be written
	left    [][]byte // what of it was not
	inHead  bool     // iov's last element is the end of headers
}

func (b *replyBuffer) init(c *conn) {
	b.headerDigest, b.dataDigest = c.terms.headerDigest, c.terms.dataDigest
	b.headers = make([]byte, 0, 2*c.srv.opt.MaxCommands*(wire.HeaderSize+3*wire.DigestSize))
	b.iov = make([][]byte, 0, 4*c.srv.opt.MaxCommands)
}

func (b *replyBuffer) reset() {
	clear(b.iov)
	b.headers, b.iov, b.inHead, b.pdus = b.headers[:0], b.iov[:0], false, 0
}

// add lays a PDU out; its data is not copied.
func (b *replyBuffer) add(h *wire.Header, data []byte) {
	b.pdus++
	h.SetDataLen(len(data))
	at := b.room(wire.HeaderSize + wire.DigestSize)
	b.headers = append(b.headers, h[:]...)
	if b.headerDigest {
		b.headers = wire.PutDigest(b.headers, wire.Digest(0, h[:]))
	}
	b.added(at)
	if len(data) == 0 {
		return
	}
	b.iov = append(b.iov, data)
	b.inHead = false
	pad := wire.Pad(len(data))
	if pad == 0 && !b.dataDigest {
		return
	}
	at = b.room(2 * wire.DigestSize)
	b.headers = append(b.headers, zeroes[:pad]...)
	if b.dataDigest {
		b.headers = wire.PutDigest(b.headers, wire.Digest(wire.Digest(0, data), zeroes[:pad]))
	}
	b.added(at)
}

var zeroes [4]byte

// addSense lays out a response with sense data, which is copied.
func (b *replyBuffer) addSense(h *wire.Header, sense []byte) {
	if len(sense) == 0 {
		b.add(h, nil)
		return
	}
	n := len(sense) + 2
	at := b.room(n)
	b.headers = append(b.headers, byte(len(sense)>>8), byte(len(sense)))
	b.headers = append(b.headers, sense...)
	b.add(h, b.headers[at:at+n:at+n])
}

// room sees to it that n bytes can be appended to headers, and returns where.
// What is in iov stays where it is.
func (b *replyBuffer) room(n int) (at int) {
	if cap(b.headers)-len(b.headers) < n {
		b.headers = make([]byte, 0, max(cap(b.headers), n))
		b.inHead = false
	}
	return len(b.headers)
}

// added takes what was appended to headers, from at on, into iov. Pieces that
// follow each other become one element.
func (b *replyBuffer) added(at int) {
	if b.inHead {
		last := &b.iov[len(b.iov)-1]
		*last = (*last)[:len(*last)+len(b.headers)-at]
		return
	}
	b.iov = append(b.iov, b.headers[at:])
	b.inHead = true
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
