package mirror

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/journal"
)

// pending is the index of what is committed and not yet in the backing store:
// a read looks here before it believes the store (architecture, section 5).
//
// A write enters when it commits and leaves after the store has it, so a read
// that takes its extents first and reads the store second misses nothing.
type pending struct {
	n  atomic.Int64 // extents; 0 lets a read skip the lock
	mu sync.RWMutex
	x  *extents
}

func newPending() *pending { return &pending{x: newExtents()} }

// extentOf is the range that an entry's record writes; false for records that
// write nothing.
func extentOf(e *entry) (extent, bool) {
	r := &e.rec
	x := extent{off: r.Offset, end: r.Offset + r.Length, lsn: r.LSN}
	switch r.Kind {
	case journal.KindWrite:
		x.data, x.buf, x.journaled = r.Payload, r.Buf, e.evicted
		return x, true
	case journal.KindTrim, journal.KindZeroes:
		x.keep = r.Flags&journal.FlagNoHole != 0
		return x, true
	}
	return x, false
}

// enter makes the records from … to of q visible.
func (p *pending) enter(q *queue, from, to LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := from; l <= to; l++ {
		if x, ok := extentOf(q.at(l)); ok {
			p.x.insert(x)
		}
	}
	p.n.Store(int64(p.x.len()))
}

// leave takes out what the records up to upTo have in the given ranges; the
// store has it now.
func (p *pending) leave(ranges []extent, upTo LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range ranges {
		p.x.remove(r.off, r.end, upTo)
	}
	p.n.Store(int64(p.x.len()))
}

// evict has reads take the payloads of the records from … to of q from the
// journal; whoever holds one by now keeps it.
func (p *pending) evict(q *queue, from, to LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := from; l <= to; l++ {
		if e := q.at(l); e != nil && evictable(e) {
			p.x.evict(e.rec.Offset, e.rec.Offset+e.rec.Length, l)
		}
	}
}

// reset forgets everything.
func (p *pending) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.x.clear()
	p.n.Store(0)
}

// overlay is what a read found pending, cut to the read's range, each payload
// held by a reference.
type overlay struct {
	parts []extent
	room  [8]extent
}

// take appends the extents of [off, off+n) to o, with references.
// It reports whether they cover the whole range.
func (p *pending) take(o *overlay, off, n int64) (covered bool) {
	if o.parts == nil {
		o.parts = o.room[:0]
	}
	at := off
	p.mu.RLock()
	defer p.mu.RUnlock()
	p.x.overlapping(off, off+n, func(e extent) bool {
		e = e.cut(off, off+n)
		if e.off == at {
			at = e.end
		}
		if e.buf != nil {
			e.buf.Ref(1)
		}
		o.parts = append(o.parts, e)
		return true
	})
	return at == off+n
}

func (o *overlay) release() {
	for _, e := range o.parts {
		if e.buf != nil {
			e.buf.Unref()
		}
	}
	clear(o.parts)
	o.parts = o.parts[:0]
}

// errMoved: a payload left the journal while it was being read; the store has
// it by now, so the read starts again.
var errMoved = errors.New("record left the journal during a read")

// errEvicted: a payload is in the journal only, where nobody looks.
var errEvicted = errors.New("record is in the journal only")

// copyTo lays the extents over p, which was read from the store at off. j may be
// nil.
func (o *overlay) copyTo(p []byte, off int64, j *journal.Journal) error {
	for _, e := range o.parts {
		dst := p[e.off-off : e.end-off]
		switch {
		case e.journaled && j == nil:
			return errEvicted
		case e.journaled:
			if err := readBack(j, e, dst); err != nil {
				return err
			}
		case e.data == nil:
			clear(dst)
		default:
			copy(dst, e.data)
		}
	}
	return nil
}

// readBack reads an extent's bytes from the journal.
func readBack(j *journal.Journal, e extent, dst []byte) error {
	err := j.ReadPayload(e.lsn, e.skip, dst)
	if errors.Is(err, journal.ErrTrimmed) {
		return errMoved
	}
	if err != nil {
		return fmt.Errorf("read the pending bytes of LSN %d back from the journal: %w", e.lsn, err)
	}
	return nil
}
