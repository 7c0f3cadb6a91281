package storetest

import (
	"errors"
	"fmt"
	"testing"
)

// checkExtents: the reports cover the range, in order and without a gap, and
// what is called a hole reads as zeroes.
func checkExtents(s Store, off, n int64) error {
	at := off
	err := s.Extents(off, n, func(o, k int64, data bool) error {
		if o != at || k <= 0 || k > off+n-o {
			return fmt.Errorf("reports [%d, +%d) after %d", o, k, at)
		}
		if at += k; data {
			return nil
		}
		if err := holds(s, o, make([]byte, k)); err != nil {
			return fmt.Errorf("hole [%d, +%d): %w", o, k, err)
		}
		return nil
	})
	if err != nil || at != off+n {
		return fmt.Errorf("Extents(%d, %d) ended at %d: %v", off, n, at, err)
	}
	return nil
}

func mustExtents(t *testing.T, s Store, off, n int64) {
	t.Helper()
	if err := checkExtents(s, off, n); err != nil {
		t.Fatal(err)
	}
}

func extents(t *testing.T, s Store) {
	size := s.Size()
	mustExtents(t, s, 0, size)
	p := make([]byte, 100_000)
	fill(newRand(t), p)
	for _, off := range []int64{0, 300_001, size - int64(len(p))} {
		mustWrite(t, s, off, p)
		mustExtents(t, s, 0, size)
	}
	if err := s.Zero(310_000, 80_000, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Zero(10_000, 80_000, false); err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct{ off, n int64 }{
		{0, size}, {0, 0}, {size, 0}, {size - 1, 1}, {1, size - 2}, {299_999, 3}, {305_000, 10_000}, {320_000, 1},
	} {
		mustExtents(t, s, at.off, at.n)
	}
}

func extentsError(t *testing.T, s Store) {
	p := []byte{1}
	mustWrite(t, s, 0, p)
	mustWrite(t, s, s.Size()-1, p)
	stop, calls := errors.New("stop"), 0
	err := s.Extents(0, s.Size(), func(off, n int64, data bool) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Fatalf("Extents returned %v after %d reports", err, calls)
	}
}
