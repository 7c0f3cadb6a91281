package block

// Allocation is what is known of a range without reading it. 0 is the answer
// that is always true: the range may hold data.
type Allocation uint8

const (
	// Hole: the range takes no space on the backing store; a write to it may
	// fail with ErrNoSpace.
	Hole Allocation = 1 << iota
	// Zero: the range reads as zeroes.
	Zero
)

// Sparse is what a [Session] may implement beside: its device knows, without
// reading, which parts of it hold no data.
type Sparse interface {
	// Extents reports n bytes at off as consecutive ranges, in order and without
	// a gap, until yield returns false. Two that follow each other may have the
	// same allocation. Each is told as it was at some moment during the call:
	// a change that completed before is seen, one in flight may be.
	//
	// It fails with ErrOutOfRange, or with what a read would fail with. It may
	// block on a disk. Any number of calls may run at once; yield must not use
	// the session.
	Extents(off, n int64, yield func(off, n int64, a Allocation) bool) error
}
