package mirror

import (
	"testing"

	"github.com/lockstep-storage/lockstep/journal"
)

// The queue holds what a plain slice would, wherever its blocks' borders fall, and
// keeps no block that it does not need.
func TestQueueAgainstSlice(t *testing.T) {
	rng := seed(t)
	first := 1 + LSN(rng.IntN(3*blockRecords))
	q, want := newQueue(first), []journal.Record(nil)
	for range 500 {
		n := 1 + rng.IntN(blockRecords)
		switch rng.IntN(5) {
		default:
			for range n {
				rec := journal.Record{LSN: first + LSN(len(want)), Kind: journal.KindTrim, Length: rng.Int64()}
				q.push(rec, nil, false)
				want = append(want, rec)
			}
		case 2:
			n = min(n, len(want))
			q.popTo(first + LSN(n) - 1)
			first, want = first+LSN(n), want[n:]
		case 3:
			n = max(len(want)-n, 0)
			q.truncate(first + LSN(n) - 1)
			want = want[:n]
		case 4:
			if rng.IntN(8) == 0 {
				first, want = first+LSN(n), nil
				q.reset(first)
			}
		}
		if q.first != first || q.n != len(want) {
			t.Fatalf("LSN %d and %d more, want %d and %d", q.first, q.n, first, len(want))
		}
		for i, w := range want {
			if e := q.at(w.LSN); e == nil || e.rec.LSN != w.LSN || e.rec.Length != w.Length {
				t.Fatalf("entry %d of %d: %+v, want %+v", i, len(want), e, w)
			}
		}
		if q.at(first-1) != nil || q.at(first+LSN(len(want))) != nil {
			t.Fatal("an entry that is not in the queue")
		}
		if most := len(want)/blockRecords + 2; len(q.blocks) > most {
			t.Fatalf("%d blocks for %d entries", len(q.blocks), len(want))
		}
		for _, b := range q.spare {
			for i := range b {
				if b[i].rec.LSN != 0 {
					t.Fatal("a spare block holds something")
				}
			}
		}
	}
}
