package bitmap

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// model is a set of blocks that cannot be wrong: a bool for each.
type model struct {
	size  int64
	dirty []bool
}

func newModel(size int64) *model {
	return &model{size: size, dirty: make([]bool, ceil(size, BlockSize))}
}

// set does what Set and Clear say, block by block.
func (m *model) set(off, n int64, dirty bool) {
	first, last := max(off, 0), min(off+n, m.size)
	for i := range m.dirty {
		from := int64(i) * BlockSize
		end := min(from+BlockSize, m.size)
		if dirty && from < last && first < end || !dirty && first <= from && end <= last {
			m.dirty[i] = dirty
		}
	}
}

func (m *model) runs() (runs [][2]int64) {
	for i, dirty := range m.dirty {
		from := int64(i) * BlockSize
		n := min(BlockSize, m.size-from)
		switch {
		case !dirty:
		case i > 0 && m.dirty[i-1]:
			runs[len(runs)-1][1] += n
		default:
			runs = append(runs, [2]int64{from, n})
		}
	}
	return runs
}

func runsOf(b *Blocks) (runs [][2]int64) {
	for off, n, ok := b.Next(0); ok; off, n, ok = b.Next(off + n) {
		runs = append(runs, [2]int64{off, n})
	}
	return runs
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func mustMatch(t failer, b *Blocks, m *model) {
	t.Helper()
	runs := m.runs()
	if got := runsOf(b); !slices.Equal(got, runs) {
		t.Fatalf("runs %v, the model has %v", got, runs)
	}
	count := int64(0)
	for _, r := range runs {
		count += r[1]
	}
	if got := b.Count(); got != count {
		t.Fatalf("Count is %d, the model has %d", got, count)
	}
}

// A whole page, one in part, and a last block in part.
const modelSize = PageBytes + 100*BlockSize + 1000

func drawRange(t *rapid.T) (off, n int64) {
	near := rapid.SampledFrom([]int64{0, PageBytes, modelSize, 64 * BlockSize})
	at := func(name string) int64 {
		if rapid.Bool().Draw(t, name+" anywhere") {
			return rapid.Int64Range(-BlockSize, modelSize+BlockSize).Draw(t, name)
		}
		return near.Draw(t, name+" near") + rapid.Int64Range(-2*BlockSize, 2*BlockSize).Draw(t, name+" by")
	}
	off = at("off")
	return off, at("end") - off
}

func TestBlocksModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, m := NewBlocks(modelSize), newModel(modelSize)
		t.Repeat(map[string]func(*rapid.T){
			"Set": func(t *rapid.T) {
				off, n := drawRange(t)
				b.Set(off, n)
				if n > 0 {
					m.set(off, n, true)
				}
			},
			"Clear": func(t *rapid.T) {
				off, n := drawRange(t)
				b.Clear(off, n)
				if n > 0 {
					m.set(off, n, false)
				}
			},
			"SetAll": func(t *rapid.T) {
				b.SetAll()
				m.set(0, m.size, true)
			},
			"Merge": func(t *rapid.T) {
				other := NewBlocks(modelSize)
				for range rapid.IntRange(0, 3).Draw(t, "ranges") {
					off, n := drawRange(t)
					other.Set(off, n)
					if n > 0 {
						m.set(off, n, true)
					}
				}
				b.Merge(other)
			},
			"Snapshot": func(t *rapid.T) {
				s := b.Snapshot()
				b.Clear(0, modelSize)
				mustMatch(t, s, m)
				b = s
			},
			"Test": func(t *rapid.T) {
				off := rapid.Int64Range(-1, modelSize).Draw(t, "off")
				want := off >= 0 && off < modelSize && m.dirty[off/BlockSize]
				if b.Test(off) != want {
					t.Fatalf("Test(%d) is %v", off, !want)
				}
			},
			"Next": func(t *rapid.T) {
				from := rapid.Int64Range(0, modelSize).Draw(t, "from")
				off, n, ok := b.Next(from)
				for _, r := range m.runs() {
					if end := r[0] + r[1]; end > from {
						if start := max(r[0], from); !ok || off != start || n != end-start {
							t.Fatalf("Next(%d) is [%d, +%d) %v, not [%d, +%d)", from, off, n, ok, start, end-start)
						}
						return
					}
				}
				if ok {
					t.Fatalf("Next(%d) is [%d, +%d), and there is none", from, off, n)
				}
			},
			"": func(t *rapid.T) { mustMatch(t, b, m) },
		})
	})
}

func TestRoundingAndBounds(t *testing.T) {
	const size = 10*BlockSize + 1
	for _, test := range []struct {
		name   string
		set    bool
		off, n int64
		want   [][2]int64 // dirty after Set in a clear one, or Clear in a full one
	}{
		{"Set rounds outward", true, BlockSize - 1, 2, [][2]int64{{0, 2 * BlockSize}}},
		{"Set of a byte of the last block", true, size - 1, 1, [][2]int64{{10 * BlockSize, 1}}},
		{"Set of nothing", true, 5, 0, nil},
		{"Set of less than nothing", true, 5, -5, nil},
		{"Set that begins before", true, -5, 6, [][2]int64{{0, BlockSize}}},
		{"Set before", true, -5, 5, nil},
		{"Set behind", true, size, 1, nil},
		{"Set of everything", true, math.MinInt64, math.MaxInt64, nil},
		{"Set past the end", true, size - 1, math.MaxInt64, [][2]int64{{10 * BlockSize, 1}}},
		{"Clear rounds inward", false, 1, 3*BlockSize - 2, [][2]int64{{0, BlockSize}, {2 * BlockSize, size - 2*BlockSize}}},
		{"Clear of less than a block", false, 1, BlockSize, [][2]int64{{0, size}}},
		{"Clear of all of a block", false, BlockSize, BlockSize, [][2]int64{{0, BlockSize}, {2 * BlockSize, size - 2*BlockSize}}},
		{"Clear of all that the last block has", false, 10 * BlockSize, 1, [][2]int64{{0, 10 * BlockSize}}},
		{"Clear past the end", false, 10 * BlockSize, math.MaxInt64, [][2]int64{{0, 10 * BlockSize}}},
		{"Clear of nothing", false, 0, 0, [][2]int64{{0, size}}},
	} {
		b := NewBlocks(size)
		if test.set {
			b.Set(test.off, test.n)
		} else {
			b.SetAll()
			b.Clear(test.off, test.n)
		}
		if got := runsOf(b); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, not %v", test.name, got, test.want)
		}
	}
}

func TestLargeVolumes(t *testing.T) {
	for _, size := range []int64{64 << 40, MaxSize} {
		b := NewBlocks(size)
		for _, at := range []int64{5, PageBytes * groupPages, size/2 + 1, size - 1} {
			b.Set(at, 1)
			if off, n, ok := b.Next(at/BlockSize*BlockSize - BlockSize); !ok || off != at/BlockSize*BlockSize || n != BlockSize {
				t.Errorf("Next before %d of %d is [%d, +%d) %v", at, size, off, n, ok)
			}
			b.Clear(0, size)
			if _, _, ok := b.Next(0); ok {
				t.Errorf("byte %d of %d is still in the set", at, size)
			}
		}
		b.SetAll()
		if off, n, ok := b.Next(1); off != 1 || n != size-1 || !ok || b.Count() != size {
			t.Errorf("all of %d: [%d, +%d) %v, %d", size, off, n, ok, b.Count())
		}
	}
}

// A clean volume of 64 TiB takes kilobytes.
func TestMemoryIsInProportionToWhatIsDirty(t *testing.T) {
	const size = 64 << 40
	for _, test := range []struct {
		name  string
		limit uint64
		set   func(b *Blocks)
	}{
		{"clean", 16 << 10, func(b *Blocks) {}},
		{"a block", 32 << 10, func(b *Blocks) { b.Set(size/2, 1) }},
		{"a terabyte", 256 << 10, func(b *Blocks) { b.Set(size/2, 1<<40) }},
		{"everything", 6 << 20, func(b *Blocks) { b.SetAll() }},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b := NewBlocks(size)
		test.set(b)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > test.limit {
			t.Errorf("%s: %d bytes, the limit is %d", test.name, got, test.limit)
		}
		runtime.KeepAlive(b)
	}
}

func TestSizesThatCannotBe(t *testing.T) {
	for _, size := range []int64{0, -1, MaxSize + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a set for a volume of %d bytes", size)
				}
			}()
			NewBlocks(size)
		}()
	}
}

func TestBlocksConcurrently(t *testing.T) {
	b := NewBlocks(4 * PageBytes)
	var wg sync.WaitGroup
	for w := range int64(4) {
		wg.Go(func() {
			for i := range int64(300) {
				off := w*PageBytes + i*BlockSize
				b.Set(off, BlockSize)
				if !b.Test(off) {
					t.Errorf("byte %d is lost", off)
				}
				b.Next(off)
				b.Count()
				if i%100 == 0 {
					b.Merge(b.Snapshot())
				}
			}
		})
	}
	wg.Wait()
	if got := b.Count(); got != 4*300*BlockSize {
		t.Errorf("%d bytes, 1200 blocks were set", got)
	}
}
