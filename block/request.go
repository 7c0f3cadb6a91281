package block

// Op is what a request does. Reads are no requests: see [Session].
type Op uint8

const (
	OpWrite Op = iota + 1
	// OpTrim: the range reads as zeroes afterwards, on every replica, and its
	// space may be given back.
	OpTrim
	// OpWriteZeroes: the range reads as zeroes afterwards.
	OpWriteZeroes
	// OpFlush: every request that had completed when this one was submitted,
	// on any session, is durable once this one completes.
	OpFlush
)

func (o Op) String() string {
	switch o {
	case OpWrite:
		return "write"
	case OpTrim:
		return "trim"
	case OpWriteZeroes:
		return "write-zeroes"
	case OpFlush:
		return "flush"
	}
	return "unknown"
}

// A Request is a change that a session asks for. The submitter fills it and
// does not touch it again until it is completed.
type Request struct {
	Op  Op
	FUA bool // durable before it completes
	// NoHole: write-zeroes must leave the space allocated.
	NoHole bool
	Off    int64 // bytes from the device's start
	Len    int64 // bytes; 0 for OpFlush
	// Buf holds Len bytes for OpWrite, else nil. The request owns one
	// reference to it, which the device drops.
	Buf *Buffer
	// Done is told when the request is finished.
	Done Completer

	// Tag and Start are the submitter's, the device does not look at them.
	Tag   uint64
	Start int64

	// State is the device's, while the request is in its hands.
	State RequestState
}

// RequestState is what a device notes on a request in its hands, so that it
// need not allocate.
type RequestState struct {
	Next *Request // intrusive list
	LSN  uint64   // of the request's last record, or what a flush waits for
	Aux  any      // the session
}

// A Completer is told the outcome of a request, exactly once, from any
// goroutine and perhaps with the device's locks held: it must neither block nor
// call the device. The request belongs to the completer again.
type Completer interface {
	Complete(r *Request, err error)
}
