package storetest

import (
	"errors"
	"math"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
)

// bounds: what does not lie within the store is refused, and changes nothing.
func bounds(t *testing.T, s Store) {
	size := s.Size()
	p := []byte{1, 2}
	for _, off := range []int64{-1, math.MinInt64, size - 1, size, size + 1, math.MaxInt64 - 1, math.MaxInt64} {
		check := func(op string, err error) {
			t.Helper()
			if !errors.Is(err, block.ErrOutOfRange) {
				t.Errorf("%s of 2 bytes at %d of %d: %v", op, off, size, err)
			}
		}
		n, err := s.ReadAt(p, off)
		check("ReadAt", err)
		if n != 0 {
			t.Errorf("ReadAt at %d of %d read %d bytes", off, size, n)
		}
		_, err = s.TryReadAt(p, off)
		check("TryReadAt", err)
		n, err = s.WriteAt(p, off)
		check("WriteAt", err)
		if n != 0 {
			t.Errorf("WriteAt at %d of %d wrote %d bytes", off, size, n)
		}
		check("WritevAt", s.WritevAt([][]byte{p[:1], p[1:]}, off))
		check("Zero", s.Zero(off, 2, false))
		check("Zero", s.Zero(off, 2, true))
		check("WriteBack", s.WriteBack(off, 2))
		check("Extents", s.Extents(off, 2, func(off, n int64, data bool) error { return nil }))
	}
	for _, n := range []int64{-1, math.MinInt64, size + 1, math.MaxInt64} {
		if err := s.Zero(0, n, true); !errors.Is(err, block.ErrOutOfRange) {
			t.Errorf("Zero(0, %d): %v", n, err)
		}
		if err := s.WriteBack(0, n); !errors.Is(err, block.ErrOutOfRange) {
			t.Errorf("WriteBack(0, %d): %v", n, err)
		}
		if err := s.Extents(0, n, func(off, n int64, data bool) error { return nil }); !errors.Is(err, block.ErrOutOfRange) {
			t.Errorf("Extents(0, %d): %v", n, err)
		}
	}
	// The end itself is a place for nothing.
	if n, err := s.ReadAt(nil, size); n != 0 || err != nil {
		t.Errorf("ReadAt of nothing at the end: %d, %v", n, err)
	}
	if n, err := s.WriteAt(nil, size); n != 0 || err != nil {
		t.Errorf("WriteAt of nothing at the end: %d, %v", n, err)
	}
	if err := s.Zero(size, 0, true); err != nil {
		t.Errorf("Zero of nothing at the end: %v", err)
	}
	if s.Size() != size {
		t.Errorf("the store has %d bytes now, it had %d", s.Size(), size)
	}
	mustHold(t, s, 0, make([]byte, size))
}
