package bitmap

import (
	"errors"
	"io/fs"
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

func TestMapOnRealFiles(t *testing.T) {
	dir, err := disk.OS(t.TempDir())
	must(t, err)
	const size = 1 << 40
	m, err := Create(dir, name, size, Base{LSN: 5})
	must(t, err)
	m.Set(4095, 2)
	m.Set(1<<39, 1<<30)
	m.SetBase(Base{LSN: 9})
	must(t, m.Flush())
	must(t, m.Close())
	must(t, m.Close())
	m, err = Open(dir, name, size)
	must(t, err)
	if got := m.Count(); got != 8192+1<<30 || m.Base().LSN != 9 || m.Damaged() != nil {
		t.Errorf("%d bytes, base %v, damaged %v", got, m.Base(), m.Damaged())
	}
	if off, n, ok := m.Next(8192); off != 1<<39 || n != 1<<30 || !ok {
		t.Errorf("Next: [%d, +%d) %v", off, n, ok)
	}
	must(t, m.Close())
}

func TestCreateOverwritesNothing(t *testing.T) {
	dir := fakedisk.New(seed)
	m, err := Create(dir, name, ordealSize, Base{LSN: 5})
	must(t, err)
	m.Set(0, 1)
	must(t, m.Flush())
	if _, err := Create(dir, name, ordealSize, Base{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over another: %v", err)
	}
	m, err = Open(dir, name, ordealSize)
	must(t, err)
	if m.Count() != BlockSize || m.Base().LSN != 5 {
		t.Errorf("%d bytes, base %v", m.Count(), m.Base())
	}
}

// What a flush costs, in writes and syncs. A new base costs two of each, for
// the two copies of the header; nothing costs nothing.
func TestCostOfFlush(t *testing.T) {
	dir := fakedisk.New(seed)
	m, err := Create(dir, name, 4<<40, Base{})
	must(t, err)
	for _, test := range []struct {
		name          string
		change        func()
		writes, syncs int
	}{
		{"nothing", func() {}, 0, 0},
		{"what was set before", func() { m.Clear(0, 1<<40) }, 0, 0},
		{"neighbouring pages", func() { m.Set(PageBytes-1, 2) }, 1, 1},
		{"pages far apart", func() { m.Set(1<<40, 1); m.Set(2<<40, 1) }, 2, 1},
		{"a new base", func() { m.SetBase(Base{LSN: 1}) }, 2, 2},
		{"bits and a new base", func() { m.Set(3<<40, 1); m.SetBase(Base{LSN: 2}) }, 3, 3},
		{"everything", func() { m.SetAll() }, 2, 2},
		{"everything but a block", func() { m.SetAll(); m.Clear(0, BlockSize) }, 3, 3},
	} {
		w, s := dir.Count(fakedisk.OpWrite), dir.Count(fakedisk.OpDatasync)
		test.change()
		must(t, m.Flush())
		w, s = dir.Count(fakedisk.OpWrite)-w, dir.Count(fakedisk.OpDatasync)-s
		if w != test.writes || s != test.syncs {
			t.Errorf("%s: %d writes and %d syncs, not %d and %d", test.name, w, s, test.writes, test.syncs)
		}
	}
}

func TestMapConcurrently(t *testing.T) {
	dir := fakedisk.New(seed)
	m, err := Create(dir, name, ordealSize, Base{})
	must(t, err)
	var wg sync.WaitGroup
	for w := range int64(4) {
		wg.Go(func() {
			for i := range int64(100) {
				off := (i*4 + w) * BlockSize
				m.Set(off, BlockSize)
				m.Next(off)
				m.SetBase(Base{LSN: m.Base().LSN + 1})
				if i%10 == 0 {
					if err := m.Flush(); err != nil {
						t.Errorf("Flush: %v", err)
					}
					left, err := Open(dir.CrashClone(fakedisk.LoseAll), name, ordealSize)
					if err != nil || !left.Test(off) {
						t.Errorf("byte %d is lost after Flush: %v", off, err)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			m.SetAll()
			m.Clear(500*BlockSize, ordealSize)
			m.Snapshot()
		}
	})
	wg.Wait()
	if !contains(m.Blocks, func() *Blocks { b := NewBlocks(ordealSize); b.Set(0, 400*BlockSize); return b }()) {
		t.Error("a block is lost")
	}
}

// Bits that are set beside a Reset are its or stay, and the file follows.
func TestResetConcurrently(t *testing.T) {
	dir := fakedisk.New(seed)
	m, err := Create(dir, name, ordealSize, Base{})
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for lsn := range uint64(50) {
			if err := m.Reset(Base{LSN: lsn}); err != nil {
				t.Errorf("Reset: %v", err)
			}
		}
	})
	wg.Go(func() {
		for i := range int64(200) {
			m.Set(i*BlockSize, 1)
			if i%20 == 0 {
				if err := m.Flush(); err != nil {
					t.Errorf("Flush: %v", err)
				}
			}
		}
	})
	wg.Wait()
	must(t, m.Flush())
	left, err := Open(dir.CrashClone(fakedisk.LoseAll), name, ordealSize)
	must(t, err)
	if left.Count() != m.Count() || left.Base() != m.Base() || !contains(left.Blocks, m.Blocks) {
		t.Errorf("on disk %d bytes, base %v; in memory %d, %v", left.Count(), left.Base(), m.Count(), m.Base())
	}
}
