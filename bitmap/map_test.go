package bitmap

import (
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
)

func TestReopen(t *testing.T) {
	dir, err := disk.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 40
	m, err := Create(dir, "m", size, Base{LSN: 5})
	if err != nil {
		t.Fatal(err)
	}
	m.Set(4095, 2)
	m.Set(1<<39, 1<<30)
	m.SetBase(Base{LSN: 9})
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if m, err = Open(dir, "m", size); err != nil {
		t.Fatal(err)
	}
	if got := m.Count(); got != 8192+1<<30 || m.Base().LSN != 9 || len(m.Damaged()) != 0 {
		t.Fatal(got, m.Base(), m.Damaged())
	}
	if off, n, ok := m.Next(8192); off != 1<<39 || n != 1<<30 || !ok {
		t.Fatal(off, n, ok)
	}
	if err := m.Reset(Base{LSN: 12}); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if m, err = Open(dir, "m", size); err != nil || m.Count() != 0 || m.Base().LSN != 12 {
		t.Fatal(err, m.Count(), m.Base())
	}
}

func TestIntentReopen(t *testing.T) {
	dir, err := disk.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in, err := CreateIntent(dir, "i", 1<<40, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !in.Mark(1<<24-1, 2) || in.Mark(0, 1) || !in.Need(0, 1) {
		t.Fatal("Mark")
	}
	if err := in.Flush(); err != nil || in.Need(0, 2<<24) || !in.Need(0, 2<<24+1) {
		t.Fatal(err)
	}
	in.Close()
	if in, err = OpenIntent(dir, "i", 1<<40, 0); err != nil || in.Need(0, 2<<24) || !in.Need(0, 2<<24+1) {
		t.Fatal(err)
	}
	in.ClearExcept(func(r int) bool { return r == 1 })
	for r := range in.Regions() {
		if r != 1 {
			t.Fatal(r)
		}
	}
	if err := in.Flush(); err != nil {
		t.Fatal(err)
	}
}
