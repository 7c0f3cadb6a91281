package mirror

import (
	"math/rand/v2"
	"testing"
)

// TestExtentsAgainstBytes: the clever set and a byte array say the same of
// which record wrote a byte last.
func TestExtentsAgainstBytes(t *testing.T) {
	rng := seed(t)
	const size = 512
	x := newExtents()
	var want [size]LSN
	for lsn := LSN(1); lsn <= 5000; lsn++ {
		off := rng.Int64N(size)
		end := off + 1 + rng.Int64N(min(64, size-off))
		if rng.IntN(4) > 0 {
			x.insert(extent{off: off, end: end, lsn: lsn})
			for i := off; i < end; i++ {
				want[i] = lsn
			}
		} else {
			upTo := lsn - LSN(rng.IntN(40))
			x.remove(off, end, upTo)
			for i := off; i < end; i++ {
				if want[i] <= upTo {
					want[i] = 0
				}
			}
		}
		var got [size]LSN
		last := int64(0)
		x.all(func(e extent) bool {
			if e.off < last || e.end <= e.off {
				t.Fatalf("LSN %d: extent %d to %d after %d", lsn, e.off, e.end, last)
			}
			last = e.end
			for i := e.off; i < e.end; i++ {
				got[i] = e.lsn
			}
			return true
		})
		if got != want {
			t.Fatalf("LSN %d: bytes differ", lsn)
		}
		from := rng.Int64N(size)
		to := from + 1 + rng.Int64N(size-from)
		n := 0
		x.overlapping(from, to, func(e extent) bool {
			if e.end <= from || e.off >= to {
				t.Fatalf("extent %d to %d does not overlap %d to %d", e.off, e.end, from, to)
			}
			n += int(min(e.end, to) - max(e.off, from))
			return true
		})
		for i := from; i < to; i++ {
			if want[i] != 0 {
				n--
			}
		}
		if n != 0 {
			t.Fatalf("LSN %d: overlapping misses %d bytes", lsn, -n)
		}
	}
}

// BenchmarkExtents inserts and removes blocks at random places among some
// thousands of others, as the pending index does.
func BenchmarkExtents(b *testing.B) {
	b.ReportAllocs()
	rng := rand.New(rand.NewPCG(1, 2))
	x := newExtents()
	const live = 8192
	var ring [live]int64
	for i := range b.N {
		off := rng.Int64N(1<<18) * rigBlock
		x.insert(extent{off: off, end: off + rigBlock, lsn: LSN(i + live)})
		old := ring[i%live]
		ring[i%live] = off
		x.remove(old, old+rigBlock, LSN(i))
	}
}
