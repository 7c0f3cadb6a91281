package mirror

import (
	"slices"
	"testing"
)

// Whatever is added in whatever order, nothing of it is missing from the result,
// which is sorted and within its limit, and exact as long as no gap had to be
// filled.
func TestRangeSet(t *testing.T) {
	rng := seed(t)
	const size = 4096
	for range 200 {
		limit := 1 + rng.IntN(40)
		s := rangeSet{limit: limit}
		var want [size]bool
		for range rng.IntN(2000) {
			off := rng.Int64N(size)
			n := rng.Int64N(min(size-off, 1+rng.Int64N(64)) + 1)
			s.add(off, n)
			for i := range n {
				want[off+i] = true
			}
		}
		got := s.ranges()
		if len(got) > limit {
			t.Fatalf("%d ranges, the limit is %d", len(got), limit)
		}
		var have [size]bool
		at := int64(-1)
		for _, r := range got {
			if r.Offset <= at || r.Length <= 0 {
				t.Fatalf("%v is not sorted, or ranges touch", got)
			}
			at = r.end()
			for i := range r.Length {
				have[r.Offset+i] = true
			}
		}
		extra := false
		for i := range want {
			if want[i] && !have[i] {
				t.Fatalf("byte %d is missing from %v", i, got)
			}
			extra = extra || have[i] && !want[i]
		}
		if extra && !s.filled {
			t.Fatalf("%v has more than what was added, and does not say so", got)
		}
		if n := lengthOf(got); n != int64(countTrue(have[:])) {
			t.Fatalf("length %d", n)
		}
	}
}

func countTrue(p []bool) (n int) {
	for _, b := range p {
		if b {
			n++
		}
	}
	return n
}

// The gaps that are filled are the narrowest ones.
func TestRangeSetFillsTheNarrowestGaps(t *testing.T) {
	s := rangeSet{limit: 2}
	for _, off := range []int64{0, 20, 1000, 1010, 1030} {
		s.add(off, 10)
	}
	if got, want := s.ranges(), []Range{{0, 30}, {1000, 40}}; !slices.Equal(got, want) || !s.filled {
		t.Fatalf("%v, filled %v; want %v", got, s.filled, want)
	}
}

func TestOverlap(t *testing.T) {
	a := []Range{{0, 10}, {20, 10}, {50, 10}}
	b := []Range{{5, 20}, {30, 20}, {55, 1}, {58, 100}}
	want := []Range{{5, 5}, {20, 5}, {55, 1}, {58, 2}}
	if got := overlap(a, b); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := overlap(b, a); !slices.Equal(got, want) {
		t.Errorf("the other way round %v, want %v", got, want)
	}
	if got := overlap(a, nil); got != nil {
		t.Errorf("with nothing: %v", got)
	}
}
