package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/disk"
)

// Notes are what every batch header carries beside its records (replication.md
// 1): what its writer believed when it wrote the batch.
type Notes struct {
	Stable        LSN    // every in-sync replica has everything up to here durably
	Durable       LSN    // this journal was synced up to here
	Checkpoint    LSN    // the backing store holds everything up to here durably
	SuperblockSeq uint64 // sequence number of the superblock in force
}

// Options configure Open and Create. The zero value works, but for Valid.
type Options struct {
	// Size is the space for segments, bytes. Default 256 MiB, at least 64 MiB,
	// rounded up to whole segments. Open finds it in the journal.
	Size int64
	// SegmentSize in bytes. Default Size/16, at least 4 MiB. Open finds it in
	// the journal.
	SegmentSize int64
	// Valid reports whether a record of generation tag gen may stand at lsn:
	// the superblock's history (replication.md 1). Nil accepts every one.
	Valid func(lsn LSN, gen uint64) bool
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
)


const (
	defaultSize    = 256 << 20
	minSize        = 64 << 20
	minSegmentSize = 4 << 20
)

// ensureDefaults fills what was left zero, and rounds.
func (o *Options) ensureDefaults() error {
	if o.Size == 0 {
		o.Size = defaultSize
	}
	if o.Size < minSize {
		return fmt.Errorf("journal of %d bytes: the least is %d", o.Size, minSize)
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = padded(o.Size / 16)
	}
	if o.SegmentSize < minSegmentSize || o.SegmentSize%pageSize != 0 || o.SegmentSize > o.Size/4 {
		return fmt.Errorf("journal segments of %d bytes: a multiple of %d, at least %d and at most a quarter of the journal is wanted",
			o.SegmentSize, pageSize, minSegmentSize)
	}
	o.Size = (o.Size + o.SegmentSize - 1) / o.SegmentSize * o.SegmentSize
	if o.Valid == nil {
		o.Valid = func(LSN, uint64) bool { return true }
	}
	return nil
}

// segments is the most that the journal may have.
func (o *Options) segments() uint32 { return uint32(o.Size / o.SegmentSize) }

// A Journal is one replica's write-ahead journal. Append, Truncate and Reset
// are for one goroutine at a time; everything else may be called concurrently.
type Journal struct {
	dir  disk.FS
	opts Options
	id   uint64

	// mu guards the chain of segments and what was appended.
	mu      sync.Mutex
	chain   []*segment // the journal, oldest first; never empty
	free    []*segment
	files   int // segments made so far
	lastSeq uint64
	endCRC  uint32
	written uint64 // batches appended
	synced  uint64 // batches that are durable
	failed  error
	making  sync.WaitGroup // a segment that is made ahead of need
	ahead   bool

	end     atomic.Uint64
	durable atomic.Uint64
	first   atomic.Uint64
	used    atomic.Int64

	syncMu sync.Mutex // held by whoever syncs; the others wait, and are served with it

	// The appender's own.
	head   []byte
	vec    [][]byte
	closed atomic.Bool
}

var zeroPage [pageSize]byte

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
		return fmt.Errorf("there is a journal in %v already", dir)
	}
	id, err := newID()
	if err != nil {
		return err
	}
	s, err := createSegment(dir, 1, id, &o)
	if err != nil {
		return err
	}
	if err := s.writeHeader(segmentHeader{id: id, seq: 1, first: 1, size: o.SegmentSize, most: o.segments()}); err != nil {
		return errors.Join(err, s.f.Close())
	}
	return s.f.Close()
}

func newID() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("drawing a journal id: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]) | 1, nil
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

// fail makes an error final. j.mu is held.
func (j *Journal) fail(err error) error {
	if j.failed == nil {
		j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return j.failed
}

// Append writes records, in order, and what n notes, in one vectored write per
// segment touched, and returns when they are written, not when they are
// durable. The records must follow on the newest one, sealed. It keeps nothing
// of them. Without records it writes a batch that only notes.
//
// ErrFull: no segment is free; nothing was written. One segment is kept back
// for callers that set reserve. Any other error is final.
func (j *Journal) Append(recs []*Record, n Notes, reserve bool) error {
	if err := j.checkAppend(recs, reserve); err != nil {
		return err
	}
	for {
		s, room := j.tailRoom()
		fit := fits(recs, room)
		if fit == 0 && (len(recs) > 0 || room < batchHeaderSize) {
			if err := j.roll(); err != nil {
				return err
			}
			continue
		}
		if err := j.appendBatch(s, recs[:fit], n); err != nil {
			return err
		}
		if recs = recs[fit:]; len(recs) == 0 {
			return nil
		}
	}
}

// checkAppend panics if the records do not follow on: that is a bug, and what
// was written could not be read again.
func (j *Journal) checkAppend(recs []*Record, reserve bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed.Load():
		return ErrClosed
	case j.failed != nil:
		return j.failed
	}
	next, crc, bytes := j.End()+1, j.endCRC, int64(0)
	for _, r := range recs {
		want := r.CRC
		if r.LSN != next || r.Seal(crc) != want {
			panic(fmt.Sprintf("journal: record LSN %d appended after LSN %d, or not chained to it", r.LSN, next-1))
		}
		next, crc = next+1, want
		bytes += HeaderSize + int64(len(r.Payload))
	}
	// A batch wastes at most one record's length at each segment's end.
	spare := int64(len(j.free)+j.unmade()) * (j.opts.SegmentSize - firstBatch - MaxPayload - 2*pageSize)
	if !reserve {
		spare -= j.opts.SegmentSize
	}
	if bytes+2*pageSize > spare+j.opts.SegmentSize-j.tail().tail {
		return ErrFull
	}
	return nil
}

// unmade is how many segments may still be made. j.mu is held.
func (j *Journal) unmade() int { return max(0, int(j.opts.Size/j.opts.SegmentSize)-j.files) }

func (j *Journal) tailRoom() (*segment, int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.tail()
	return s, j.opts.SegmentSize - s.tail
}

// fits is how many of recs one batch of at most room bytes takes.
func fits(recs []*Record, room int64) int {
	room -= batchHeaderSize
	for i, r := range recs {
		if room -= HeaderSize + int64(len(r.Payload)); room < 0 {
			return i
		}
	}
	return len(recs)
}

// appendBatch writes one batch, which fits, to the last segment.
func (j *Journal) appendBatch(s *segment, recs []*Record, n Notes) error {
	off := s.tail // only the appender moves it
	h := batchHeader{length: batchHeaderSize, count: len(recs), id: s.id, seq: s.seq, first: j.End() + 1, prev: j.endCRC, notes: n}
	need := batchHeaderSize + len(recs)*HeaderSize
	if cap(j.head) < need {
		j.head = make([]byte, need)
	}
	head := j.head[:need]
	j.vec = append(j.vec[:0], nil)
	at, from := batchHeaderSize, 0 // head[from:at] is not in vec yet
	for _, r := range recs {
		r.EncodeHeader(head[at:])
		at += HeaderSize
		h.length += HeaderSize + int64(len(r.Payload))
		if len(r.Payload) > 0 {
			j.vec = append(j.vec, head[from:at], r.Payload)
			from = at
		}
		h.tag = r.Generation
	}
	h.encode(head)
	if from < at {
		j.vec = append(j.vec, head[from:at])
	}
	if pad := padded(h.length) - h.length; pad > 0 {
		j.vec = append(j.vec, zeroPage[:pad])
	}
	err := s.f.WritevAt(j.vec[1:], off)
	clear(j.vec)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		return j.fail(fmt.Errorf("append LSN %d to segment %s at %d: %w", h.first, s.name, off, err))
	}
	s.tail += padded(h.length)
	j.written++
	if len(recs) > 0 {
		last := recs[len(recs)-1]
		s.batches = append(s.batches, batchRef{first: h.first, off: off})
		s.end = last.LSN
		j.endCRC = last.CRC
		j.end.Store(uint64(last.LSN))
	}
	j.publish()
	return nil
}

// roll ends the last segment, which is made durable first, and begins another:
// every segment but the last is durable as a whole.
func (j *Journal) roll() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	if err := j.syncLocked(); err != nil {
		return err
	}
	j.mu.Lock()
	old := j.tail()
	h := segmentHeader{prev: old.seq, first: j.End() + 1, seed: j.endCRC}
	j.mu.Unlock()
	return j.begin(h, func(s *segment) { j.chain = append(j.chain, s) })
}

// begin makes a free segment the newest one: its header is durable before
// link, under j.mu, puts it into the chain.
func (j *Journal) begin(h segmentHeader, link func(*segment)) error {
	s, err := j.takeFree()
	if err != nil {
		return err
	}
	h.seq, h.size, h.most = j.lastSeq+1, j.opts.SegmentSize, j.opts.segments()
	if h.id == 0 {
		h.id = j.id
	}
	err = s.writeHeader(h)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.free = append(j.free, s)
		return j.fail(err)
	}
	j.lastSeq = h.seq
	link(s)
	j.publish()
	j.makeAhead()
	return nil
}

// takeFree returns a free segment, made now if none is there.
func (j *Journal) takeFree() (*segment, error) {
	j.making.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return nil, j.failed
	}
	if n := len(j.free); n > 0 {
		s := j.free[0]
		j.free = append(j.free[:0], j.free[1:]...)
		return s, nil
	}
	j.files++
	s, err := createSegment(j.dir, j.files, j.id, &j.opts)
	if err != nil {
		return nil, j.fail(err)
	}
	return s, nil
}

// makeAhead makes the next segment before it is needed, for it takes long. j.mu
// is held. Should it fail, whoever needs the segment tries again and is told.
func (j *Journal) makeAhead() {
	if len(j.free) > 0 || j.unmade() == 0 || j.ahead {
		return
	}
	j.ahead = true
	j.files++
	number := j.files
	j.making.Go(func() {
		s, err := createSegment(j.dir, number, j.id, &j.opts)
		j.mu.Lock()
		defer j.mu.Unlock()
		j.ahead = false
		if err != nil {
			j.files--
			return
		}
		j.free = append(j.free, s)
	})
}

// Sync makes everything appended before the call durable and returns the LSN
// up to which the journal is. Whoever calls while another syncs is served by
// the next round (group commit). Its first failure is final.
func (j *Journal) Sync() (LSN, error) {
	j.mu.Lock()
	want := j.written
	j.mu.Unlock()
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	done, failed := j.synced >= want, j.failed
	j.mu.Unlock()
	if failed != nil {
		return 0, failed
	}
	if done {
		return j.Durable(), nil
	}
	if err := j.syncLocked(); err != nil {
		return 0, err
	}
	return j.Durable(), nil
}

// syncLocked syncs the last segment. j.syncMu is held.
func (j *Journal) syncLocked() error {
	j.mu.Lock()
	s, end, written, failed := j.tail(), j.end.Load(), j.written, j.failed
	j.mu.Unlock()
	if failed != nil {
		return failed
	}
	if err := s.f.Datasync(); err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.fail(fmt.Errorf("sync segment %s: %w", s.name, err))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.synced = max(j.synced, written)
	j.durable.Store(max(j.durable.Load(), end))
	return nil
}

// Close closes the files. It syncs nothing.
func (j *Journal) Close() error {
	j.closed.Store(true)
	j.making.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, s := range append(j.chain, j.free...) {
		errs = append(errs, s.f.Close())
	}
	return errors.Join(errs...)
}
