package mirror

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestExtentsAgainstBytes: the clever set and an array say the same of which
// record wrote a byte last, within a chunk, over its borders, and where ranges
// of zeroes are wide.
func TestExtentsAgainstBytes(t *testing.T) {
	const unit = chunkSize / 64
	const size = 6 * 64 // units
	rng := seed(t)
	x := newExtents()
	var want [size]LSN
	draw := func(longest int64) (off, end int64) {
		off = rng.Int64N(size)
		return off, off + 1 + rng.Int64N(min(longest, size-off))
	}
	for lsn := LSN(1); lsn <= 20000; lsn++ {
		e := extent{lsn: lsn}
		upTo := anyLSN
		off, end := draw(16)
		switch rng.IntN(8) {
		case 0, 1: // it becomes stale
			upTo = lsn - min(lsn, LSN(rng.IntN(60)))
			off, end = draw(size)
			x.remove(off*unit, end*unit, upTo)
		case 2:
			off, end = draw(size) // perhaps wide
			fallthrough
		case 3:
			e.off, e.end, e.keep = off*unit, end*unit, true
			x.insert(e)
		default:
			e.off, e.end, e.data = off*unit, end*unit, make([]byte, (end-off)*unit)
			for i := off; i < end; i++ {
				e.data[(i-off)*unit] = byte(i)
			}
			x.insert(e)
		}
		for i := off; i < end; i++ {
			switch {
			case upTo == anyLSN:
				want[i] = lsn
			case want[i] <= upTo:
				want[i] = 0
			}
		}
		from, to := draw(size)
		if rng.IntN(4) > 0 {
			from, to = 0, size
		}
		checkExtents(t, x, from, to, unit, want[:])
	}
	x.clear()
	checkExtents(t, x, 0, size, unit, make([]LSN, size))
	if x.len() != 0 {
		t.Errorf("%d extents after clear", x.len())
	}
}

// checkExtents compares what x says of the units from … to with want.
func checkExtents(t *testing.T, x *extents, from, to, unit int64, want []LSN) {
	t.Helper()
	got := make([]LSN, len(want))
	last, n := int64(0), 0
	x.overlapping(from*unit, to*unit, func(e extent) bool {
		if e.off < last || e.end <= e.off || e.end <= from*unit || e.off >= to*unit {
			t.Fatalf("extent %d to %d after %d, asked for %d to %d", e.off, e.end, last, from*unit, to*unit)
		}
		if e.data != nil && (int64(len(e.data)) != e.end-e.off || e.data[0] != byte(e.off/unit)) {
			t.Fatalf("extent %d to %d of LSN %d has other bytes than its own", e.off, e.end, e.lsn)
		}
		last = e.end
		n++
		for i := e.off / unit; i < e.end/unit; i++ {
			got[i] = e.lsn
		}
		return true
	})
	for i := from; i < to; i++ {
		if got[i] != want[i] {
			t.Fatalf("unit %d is of LSN %d, want %d", i, got[i], want[i])
		}
	}
	if whole := from == 0 && to == int64(len(want)); whole && n != x.len() {
		t.Fatalf("%d extents, len says %d", n, x.len())
	}
}

// TestWideZeroesTakeLittle: what a range of zeroes takes is not in proportion to
// its length, or trims of a whole volume would fill the memory.
func TestWideZeroesTakeLittle(t *testing.T) {
	x := newExtents()
	for i := range int64(1000) {
		x.insert(extent{off: i << 26, end: (i + 1) << 26, lsn: LSN(i + 1)})
	}
	x.insert(extent{off: 1 << 20, end: 1<<20 + rigBlock, lsn: 1001, data: make([]byte, rigBlock)})
	if n := x.len(); n != 1002 || len(x.chunks) != 1 {
		t.Errorf("1000 ranges of 64 MiB and a block within one are %d extents in %d chunks", n, len(x.chunks))
	}
	x.remove(0, 1000<<26, 1000)
	if n := x.len(); n != 1 {
		t.Errorf("%d extents are left beside the block", n-1)
	}
}

// TestCoalesceAgainstBytes: what the applier writes out is what is newest of a
// round, in order, and no byte of it twice.
func TestCoalesceAgainstBytes(t *testing.T) {
	rng := seed(t)
	const size = 4 * chunkSize
	for range 300 {
		a := &applier{work: newExtents()}
		want := make([]byte, size)
		room := int64(1) << (4 + rng.IntN(12)) // from all over each other to far apart
		for lsn := LSN(1); lsn <= LSN(1+rng.IntN(60)); lsn++ {
			n := 1 + rng.Int64N(room)
			x := extent{off: rng.Int64N(size - n), lsn: lsn}
			x.end = x.off + n
			v := byte(lsn)
			if rng.IntN(4) == 0 {
				v = 0
			} else {
				x.data = bytes.Repeat([]byte{v}, int(n))
			}
			for i := x.off; i < x.end; i++ {
				want[i] = v
			}
			a.ranges = append(a.ranges, x)
		}
		got, last := make([]byte, size), int64(0)
		for _, x := range a.coalesce() {
			if x.off < last || x.data != nil && int64(len(x.data)) != x.end-x.off {
				t.Fatalf("extent %d to %d with %d bytes after %d", x.off, x.end, len(x.data), last)
			}
			last = x.end
			copy(got[x.off:x.end], x.data)
		}
		if !bytes.Equal(got, want) {
			t.Fatal("bytes differ")
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
