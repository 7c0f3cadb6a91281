package bitmap

import (
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

func BenchmarkSet(b *testing.B) {
	m := NewBlocks(1 << 40)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		off := i % 1000 * 17 * BlockSize
		m.Set(off, 2*BlockSize)
		m.Clear(off, BlockSize)
	}
}

// A volume of 64 TiB in which little is dirty.
func BenchmarkNext(b *testing.B) {
	m := NewBlocks(64 << 40)
	m.Set(64<<40-1, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := m.Next(0); !ok {
			b.Fatal("nothing")
		}
	}
}

func BenchmarkNeed(b *testing.B) {
	in, err := CreateIntent(fakedisk.New(1), name, 64<<40, 0)
	must(b, err)
	in.Mark(0, 1<<30)
	must(b, in.Flush())
	b.ReportAllocs()
	for b.Loop() {
		if in.Need(1<<29, 1<<20) || in.Mark(1<<29, 1<<20) {
			b.Fatal("it is marked")
		}
	}
}

// The path of a write allocates nothing.
func TestNoAllocations(t *testing.T) {
	m := NewBlocks(1 << 40)
	in, err := CreateIntent(fakedisk.New(1), name, 1<<40, 0)
	must(t, err)
	in.Mark(0, 1)
	must(t, in.Flush())
	for name, f := range map[string]func(){
		"Set and Clear":   func() { m.Set(1<<30, BlockSize); m.Clear(1<<30, BlockSize) },
		"Next":            func() { m.Next(0) },
		"Need and Mark":   func() { in.Need(0, 1); in.Mark(0, 1) },
		"Flush of Intent": func() { in.Flush() },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
