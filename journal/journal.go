package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/disk"
)

// Notes are what every batch header carries beside its records (replication.md
// 1): what its writer believed when it wrote the batch.
type Notes struct {
	Stable        LSN    `json:"stable"`     // every in-sync replica has everything up to here durably
	Durable       LSN    `json:"durable"`    // this journal was synced up to here; Append fills it in
	Checkpoint    LSN    `json:"checkpoint"` // the backing store holds everything up to here durably
	SuperblockSeq uint64 `json:"superblock"` // sequence number of the superblock in force
}

// Options configure Open and Create. The zero value works, but for Valid.
type Options struct {
	// Size is the space for segments, bytes. Default 256 MiB, at least 64 MiB,
	// rounded up to whole segments. Open finds it in the journal.
	Size int64
	// SegmentSize in bytes. Default Size/16, at least 4 MiB. Open finds it in
	// the journal.
	SegmentSize int64
	// First is the LSN of a new journal's first record; 0 is 1. For Create.
	First LSN
	// Valid reports whether a record of generation tag gen may stand at lsn:
	// the superblock's history (replication.md 1). Nil accepts every one.
	Valid func(lsn LSN, gen uint64) bool
	// Accept, if not nil, judges the journal that Open found, before Open cuts or
	// mends anything. Its error is Open's.
	Accept func(State) error
	// Found, if not nil, is shown each record that Open finds, in order, with what
	// the batches before it noted; of a write without its payload. Accept, and an
	// error of Open, may come later.
	Found func(*Record, Notes)

	// AnySize accepts a journal of less than the least size, of four segments
	// or more, for tests: one that is soon full, and quick to look at. No record
	// may be longer than a segment, less 12 KiB.
	AnySize bool

	noAhead bool // tests that must repeat make each segment when it is needed
}

// A State is where a journal stands, as found by Open.
type State struct {
	First   LSN    // the oldest record held; End+1 if there is none
	End     LSN    // the newest record held, FlagLast or not
	EndCRC  uint32 // its CRC, the seed of the next one's
	LastEnd LSN    // the newest record with FlagLast; where replay must end
	Noted   Notes  // the greatest of each that any batch held notes
}

// Errors of Open, Append, Sync and readers.
var (
	// ErrDamaged: a record that had been durable is not readable. Errors that
	// wrap it name segment, offset and LSN. The replica is Failed.
	ErrDamaged = errors.New("journal is damaged")
	// ErrTrimmed: the records asked for have left the journal.
	ErrTrimmed = errors.New("records are no longer in the journal")
	// ErrFull: no segment is free. Trim makes room.
	ErrFull = errors.New("journal is full")
	// ErrFailed: an earlier write or sync failed, which is final (invariant 9).
	ErrFailed = errors.New("journal has failed")
	ErrClosed = errors.New("journal is closed")
	// ErrVersion: the journal is of a format that this build does not read.
	ErrVersion = errors.New("unknown format version")
)

const (
	defaultSize    = 256 << 20
	minSize        = 64 << 20
	minSegmentSize = 4 << 20
)

// ensureDefaults fills what was left zero, and rounds.
func (o *Options) ensureDefaults() error {
	if o.Valid == nil {
		o.Valid = func(LSN, uint64) bool { return true }
	}
	if o.Size == 0 {
		o.Size = defaultSize
	}
	if o.Size < minSize && !o.AnySize {
		return fmt.Errorf("journal of %d bytes: the least is %d", o.Size, minSize)
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = min(padded(o.Size/16), maxSegmentSize)
	}
	least := int64(minSegmentSize)
	if o.AnySize {
		least = 2 * firstBatch
	}
	if o.SegmentSize < least || o.SegmentSize%pageSize != 0 || o.SegmentSize > min(o.Size/4, maxSegmentSize) {
		return fmt.Errorf("journal segments of %d bytes: a multiple of %d, at least %d, at most %d and a quarter of the journal is wanted",
			o.SegmentSize, pageSize, least, maxSegmentSize)
	}
	o.Size = (o.Size + o.SegmentSize - 1) / o.SegmentSize * o.SegmentSize
	if o.Size/o.SegmentSize > maxSegments {
		return fmt.Errorf("journal of %d bytes in segments of %d: at most %d segments", o.Size, o.SegmentSize, maxSegments)
	}
	return nil
}

// segments is the most that the journal may have.
func (o *Options) segments() uint32 { return uint32(o.Size / o.SegmentSize) }

// A Journal is one replica's write-ahead journal. Append, Truncate, Reset and
// Close are for one goroutine at a time; everything else may be called
// concurrently, with those too.
type Journal struct {
	dir  disk.FS
	opts Options
	id   uint64 // syncMu

	// syncMu is held by whoever syncs, or changes the chain of segments. Taken
	// before mu.
	syncMu sync.Mutex

	// mu guards the chain of segments and what was appended. It is never held
	// across I/O.
	mu      sync.Mutex
	chain   []*segment // the journal, oldest first; never empty
	free    []*segment // their headers say what they once were
	files   int        // segments made so far
	endCRC  uint32
	notes   Notes  // the greatest of each noted
	written uint64 // batches appended
	synced  uint64 // batches that are durable
	// everSynced: what Open found may still be in memory only.
	everSynced bool
	// sealed: a sync has begun since the last batch, so that the next one takes
	// a page of its own. sharing: the batch that is being written does not;
	// unshared tells that this is over.
	sealed, sharing bool
	unshared        sync.Cond
	failed          error // final
	readers         map[*Reader]struct{}

	end     atomic.Uint64
	durable atomic.Uint64
	first   atomic.Uint64
	used    atomic.Int64
	closed  atomic.Bool

	// The appender's own.
	head    []byte
	vec     [][]byte
	scratch [HeaderSize]byte
	making  chan made // a segment that is made ahead of need; nil if none is
}

// Create makes an empty journal in dir, whose first record will have LSN 1. It
// fails if there is one.
func Create(dir disk.FS, o Options) error {
	if err := o.ensureDefaults(); err != nil {
		return err
	}
	names, err := segmentNames(dir)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("there is a journal in %v already: %w", dir, fs.ErrExist)
	}
	id, err := newID()
	if err != nil {
		return err
	}
	s, err := createSegment(dir, 1, segmentHeader{
		id: id, seq: 1, oldest: 1, first: max(o.First, 1), size: o.SegmentSize, most: o.segments(),
	})
	if err != nil {
		return err
	}
	return s.f.Close()
}

func newID() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("drawing a journal id: %w", err)
	}
	return le.Uint64(b[:]) | 1, nil
}

// End is the LSN of the newest record appended.
func (j *Journal) End() LSN { return LSN(j.end.Load()) }

// Durable is the newest LSN that a sync covers.
func (j *Journal) Durable() LSN { return LSN(j.durable.Load()) }

// First is the oldest record held, End()+1 if there is none.
func (j *Journal) First() LSN { return LSN(j.first.Load()) }

// Used is how many bytes of the journal's size hold records, or cannot be used
// for others yet.
func (j *Journal) Used() int64 { return j.used.Load() }

// Size is the most bytes that the journal takes.
func (j *Journal) Size() int64 { return j.opts.Size }

// SegmentSize is the unit in which space becomes free, bytes.
func (j *Journal) SegmentSize() int64 { return j.opts.SegmentSize }

// EndCRC is the CRC of the newest record, which the next one is chained to.
func (j *Journal) EndCRC() uint32 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.endCRC
}

func (j *Journal) tail() *segment { return j.chain[len(j.chain)-1] }

// publish makes the chain's extent known. j.mu is held.
func (j *Journal) publish() {
	j.first.Store(uint64(j.chain[0].first))
	j.used.Store(int64(len(j.chain)-1)*j.opts.SegmentSize + j.tail().tail)
}

// usable says why the journal takes no more, if so. j.mu is held.
func (j *Journal) usable() error {
	if j.closed.Load() {
		return ErrClosed
	}
	return j.failed
}

// fail makes an error final (invariant 9). j.mu is held.
func (j *Journal) fail(err error) error {
	if j.failed == nil {
		j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return j.failed
}

// Close closes the files. It syncs nothing. A second call does nothing.
func (j *Journal) Close() error {
	if j.closed.Swap(true) {
		return nil
	}
	j.awaitMade()
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, s := range slices.Concat(j.chain, j.free) {
		errs = append(errs, s.f.Close())
	}
	return errors.Join(errs...)
}
