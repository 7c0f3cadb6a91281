package nbd

import (
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// A request is one request of a client, from its header to its written reply.
// A connection reuses its requests.
type request struct {
	io     block.Request // what the device sees, for all but reads
	conn   *conn
	cookie uint64
	off    uint64 // as it was sent
	cmd    uint16
	batch  uint64 // number of the reader's batch that it came with
	charge int64  // bytes of memory that it counts for

	// payload is what a successful read answers with, else nil.
	payload *block.Buffer
	// runs are what the payload of a structured read was cut into, those that
	// were read; none: it is one. failedAt is where in it a read failed.
	runs     []run
	failedAt int
	report   func(off, n int64, a block.Allocation) bool // addRun
	// sparse: holes may be left out of the reply.
	sparse bool
	// reqOne: of a block status, one descriptor is wanted. descriptors are those
	// that were found, in payload.
	reqOne      bool
	descriptors []byte

	// The outcome, set before the request is queued for its reply.
	refusal *refusal // judged unsound
	err     error    // the device's
	// abandoned: its payload never came in whole. It is not answered.
	abandoned bool

	next *request // in a queue or the free list
}

// Complete implements block.Completer.
func (q *request) Complete(_ *block.Request, err error) { q.conn.complete(q, err) }

func (q *request) errno() uint32 {
	if q.refusal != nil {
		return q.refusal.errno
	}
	return errno(q.err)
}

// reset empties the request for its next use. The buffer is given back.
func (q *request) reset() {
	if q.payload != nil {
		q.payload.Unref()
	}
	*q = request{conn: q.conn, runs: q.runs[:0], report: q.report}
}

// why is the text that goes with an error.
func (q *request) why() string {
	if q.refusal != nil {
		return q.refusal.why
	}
	return q.err.Error()
}

// prepare fills in what the device is to see.
func (q *request) prepare(h wire.Request) {
	q.io = block.Request{
		Op:   opOf(h.Type),
		FUA:  h.Flags&wire.CmdFlagFUA != 0 && h.Type != wire.CmdFlush,
		Off:  int64(h.Off),
		Len:  int64(h.Len),
		Done: q,
	}
	q.reqOne = h.Flags&wire.CmdFlagReqOne != 0
	q.io.NoHole = h.Type == wire.CmdWriteZeroes && h.Flags&wire.CmdFlagNoHole != 0
}

func opOf(cmd uint16) block.Op {
	switch cmd {
	case wire.CmdWrite:
		return block.OpWrite
	case wire.CmdTrim:
		return block.OpTrim
	case wire.CmdWriteZeroes:
		return block.OpWriteZeroes
	case wire.CmdFlush:
		return block.OpFlush
	}
	return 0 // no block.Request
}

// A queue is a first-in, first-out list of requests. A request is in one at
// most.
type queue struct {
	head, tail *request
}

func (l *queue) push(q *request) {
	q.next = nil
	if l.head == nil {
		l.head = q
	} else {
		l.tail.next = q
	}
	l.tail = q
}

func (l *queue) pop() *request {
	q := l.head
	if q != nil {
		l.head, q.next = q.next, nil
	}
	return q
}

// takeAll empties the queue and gives its requests, linked by next.
func (l *queue) takeAll() *request {
	q := l.head
	*l = queue{}
	return q
}
