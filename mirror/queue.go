package mirror

import (
	"slices"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// An entry is a record on its way from the journal to the backing store.
type entry struct {
	rec journal.Record
	// req is the client's request, on its last record, until it is completed.
	req *block.Request
	// evicted: the payload is in the journal only.
	evicted bool
}

// queue holds the records applied+1 … end, by LSN. The applier takes from its
// front, the sequencer or the receiver adds at its end, and in between the
// peers' senders read. Volume.mu guards it.
type queue struct {
	// The first block holds first, the others what follows; none is moved while it
	// holds something. Spare ones are empty.
	blocks, spare []*queueBlock
	first         LSN // LSN of the front
	n             int
	// Payload bytes: held in memory, and evicted to the journal.
	held, evicted int64
}

// A queueBlock holds the entries of the LSNs n*blockRecords … (n+1)*blockRecords-1.
type queueBlock [blockRecords]entry

const blockRecords = 1024

func newQueue(first LSN) *queue { return &queue{first: first} }

func (q *queue) next() LSN { return q.first + LSN(q.n) }

// at returns the entry of lsn, or nil if it is not in the queue. The pointer is
// good until the entry leaves it.
func (q *queue) at(lsn LSN) *entry {
	if lsn < q.first || lsn >= q.next() {
		return nil
	}
	return &q.blocks[q.block(lsn)][lsn%blockRecords]
}

// block is the index of the block that lsn, at least first, belongs into.
func (q *queue) block(lsn LSN) int { return int(lsn/blockRecords - q.first/blockRecords) }

// push adds a record, whose buffer reference the queue takes over.
func (q *queue) push(r journal.Record, req *block.Request, evicted bool) *entry {
	if r.LSN != q.next() {
		panic("mirror: record pushed out of order")
	}
	if q.block(r.LSN) == len(q.blocks) {
		q.blocks = append(q.blocks, q.newBlock())
	}
	q.n++
	e := q.at(r.LSN)
	*e = entry{rec: r, req: req, evicted: evicted}
	q.count(e, 1)
	return e
}

func (q *queue) newBlock() *queueBlock {
	last := len(q.spare) - 1
	if last < 0 {
		return new(queueBlock)
	}
	b := q.spare[last]
	q.spare = q.spare[:last]
	return b
}

// spareBlock takes the block at i, which is empty, out.
func (q *queue) spareBlock(i int) {
	if len(q.spare) < maxQueue/blockRecords {
		q.spare = append(q.spare, q.blocks[i])
	}
	q.blocks = slices.Delete(q.blocks, i, i+1)
}

// popTo drops everything up to lsn and gives the buffers back.
func (q *queue) popTo(lsn LSN) {
	for q.n > 0 && q.first <= lsn {
		q.drop(q.first)
		q.first++
		q.n--
		if q.first%blockRecords == 0 {
			q.spareBlock(0)
		}
	}
}

// truncate drops everything past lsn.
func (q *queue) truncate(lsn LSN) {
	for q.n > 0 && q.next()-1 > lsn {
		q.drop(q.next() - 1)
		q.n--
		if q.next()%blockRecords == 0 {
			q.spareBlock(len(q.blocks) - 1)
		}
	}
}

// reset empties the queue; its next record is next.
func (q *queue) reset(next LSN) {
	q.truncate(q.first - 1)
	q.first = next
}

// count adds an entry's payload to the sums, or with sign -1 takes it away.
func (q *queue) count(e *entry, sign int64) {
	switch {
	case e.evicted:
		q.evicted += sign * e.rec.Length
	case e.rec.Buf != nil:
		q.held += sign * int64(len(e.rec.Payload))
	}
}

// evict leaves the payload of a write to the journal, which has it.
func (q *queue) evict(lsn LSN) {
	e := q.at(lsn)
	if e == nil || !evictable(e) {
		return
	}
	q.count(e, -1)
	e.rec.Buf.Unref()
	e.rec.Buf, e.rec.Payload, e.evicted = nil, nil, true
	q.count(e, 1)
}

// evictable reports whether an entry is a write whose payload is in memory.
func evictable(e *entry) bool { return e.rec.Kind == journal.KindWrite && e.rec.Buf != nil }

func (q *queue) drop(lsn LSN) {
	e := q.at(lsn)
	q.count(e, -1)
	if e.rec.Buf != nil {
		e.rec.Buf.Unref()
	}
	*e = entry{}
}

// wholeTo returns the greatest LSN ≤ lsn at which no write is cut in two: the
// parts of one write are committed, stable and applied together.
func (q *queue) wholeTo(lsn LSN) LSN {
	for {
		e := q.at(lsn)
		if e == nil || e.rec.Flags&journal.FlagLast != 0 {
			return lsn
		}
		lsn--
	}
}
