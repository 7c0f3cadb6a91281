package targettest

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/lockstep-storage/lockstep/block"
)

// holds checks what the session says of a range whose bytes are known, and that
// nobody changes: it is covered once, and what is said to be zero is.
func holds(s block.Sparse, off int64, want []byte) error {
	at, end := off, off+int64(len(want))
	var wrong error
	err := s.Extents(off, end-off, func(o, n int64, a block.Allocation) bool {
		switch {
		case o != at || n <= 0 || n > end-o:
			wrong = fmt.Errorf("%d bytes at %d are reported, at %d and before %d", n, o, at, end)
		case a&block.Zero != 0 && !isZero(want[o-off:o-off+n]):
			wrong = fmt.Errorf("%d bytes at %d are said to be zeroes, and are not", n, o)
		}
		at = o + n
		return wrong == nil
	})
	if wrong == nil && err == nil && at != end {
		wrong = fmt.Errorf("the report of %d bytes at %d ends at %d", end-off, off, at)
	}
	return errors.Join(err, wrong)
}

var zeroes [64 << 10]byte

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroes))
		if !bytes.Equal(b[:n], zeroes[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

func testExtents(b *bench) {
	s, ok := b.attach().(block.Sparse)
	if !ok {
		b.Skip("the device does not tell what holds data")
	}
	writer := b.attach()
	const n = 1 << 20
	want := pattern(2*n, 4)
	b.must(writer, effect(block.OpTrim, 0, 2*n))
	b.must(writer, write(0, want[:n]))
	clear(want[n:])
	if err := holds(s, 0, want); err != nil {
		b.Error(err)
	}
	b.must(writer, effect(block.OpTrim, n/4, n/2))
	clear(want[n/4 : n/4*3])
	if err := holds(s, 0, want); err != nil {
		b.Error(err)
	}
	calls := 0
	err := s.Extents(0, 2*n, func(_, _ int64, _ block.Allocation) bool { calls++; return false })
	if err != nil || calls != 1 {
		b.Errorf("%d reports after the first was enough: %v", calls, err)
	}
	nobody := func(_, _ int64, _ block.Allocation) bool { b.Error("a report of what is out of range"); return true }
	for _, r := range [][2]int64{{-1, 1}, {b.info.Size, 1}, {b.info.Size - 1, 2}, {math.MaxInt64 - 1, 2}} {
		if err := s.Extents(r[0], r[1], nobody); !errors.Is(err, block.ErrOutOfRange) {
			b.Errorf("extents of %d bytes at %d: %v", r[1], r[0], err)
		}
	}
}
