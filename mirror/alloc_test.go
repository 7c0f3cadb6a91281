package mirror

import (
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// indexed is a queue and the index of what is pending in it, with rounds of
// 4 KiB writes that go through both as they do in a volume.
type indexed struct {
	q      *queue
	p      *pending
	buf    *block.Buffer
	ranges []extent
	n      int64
}

const indexedRound = 256 // writes that are pending at once

func newIndexed() *indexed {
	return &indexed{q: newQueue(1), p: newPending(), buf: block.Get(rigBlock)}
}

func (x *indexed) round() {
	from := x.q.next()
	x.ranges = x.ranges[:0]
	for range indexedRound {
		x.n++
		x.buf.Ref(1)
		e := x.q.push(journal.Record{
			LSN: x.q.next(), Kind: journal.KindWrite, Flags: journal.FlagLast,
			Offset: x.n * 7919 % 65536 * rigBlock, Length: rigBlock, Payload: x.buf.Bytes(), Buf: x.buf,
		}, nil, false)
		r, _ := extentOf(e)
		x.ranges = append(x.ranges, r)
	}
	to := x.q.next() - 1
	x.p.enter(x.q, from, to)
	x.p.leave(x.ranges, to)
	x.q.popTo(to)
}

// In steady state a write that enters the pending index and leaves it again
// allocates nothing.
func TestPendingAllocatesNothing(t *testing.T) {
	x := newIndexed()
	for range 300 { // everywhere once
		x.round()
	}
	if n := testing.AllocsPerRun(100, x.round) / indexedRound; n > 0.2 {
		t.Errorf("%.2f allocations for each write", n)
	}
	if n := x.p.n.Load(); n != 0 {
		t.Errorf("%d extents are left", n)
	}
}

func BenchmarkPending(b *testing.B) {
	x := newIndexed()
	b.ReportAllocs()
	for b.Loop() {
		x.round()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*indexedRound), "ns/write")
}
