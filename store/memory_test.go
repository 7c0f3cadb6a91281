package store

import (
	"errors"
	"testing"

	"github.com/lockstep-storage/lockstep/store/storetest"
)

var (
	_ storetest.Store = (*File)(nil)
	_ storetest.Store = (*Memory)(nil)
	_ storetest.Store = (*Disk)(nil)
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return NewMemory(3<<20 + 4096) })
}

func TestMemoryTakesWhatIsWritten(t *testing.T) {
	m := NewMemory(1 << 50)
	if _, err := m.WriteAt([]byte{1}, 1<<49); err != nil {
		t.Fatal(err)
	}
	if err := m.Zero(0, 1<<34, true); err != nil {
		t.Fatal(err)
	}
	if len(m.chunks) != 1 {
		t.Errorf("%d chunks for one byte", len(m.chunks))
	}
	if err := m.Zero(1<<49, chunkSize, true); err != nil || len(m.chunks) != 0 {
		t.Errorf("%d chunks after a punch: %v", len(m.chunks), err)
	}
}

func TestMemoryClosed(t *testing.T) {
	m := NewMemory(1 << 20)
	m.Close()
	if _, err := m.WriteAt([]byte{1}, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("WriteAt: %v", err)
	}
	if err := m.Sync(); !errors.Is(err, ErrClosed) {
		t.Errorf("Sync: %v", err)
	}
}
