package store

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/store/storetest"
)

// file is a disk.File in memory, empty at first.
type file struct {
	*Memory
	mu  sync.Mutex
	end int64
}

func newFile() *file { return &file{Memory: NewMemory(1 << 30)} }

func (f *file) grow(end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end = max(f.end, end)
}

func (f *file) Size() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.end, nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	end, _ := f.Size()
	if n := max(0, end-off); n < int64(len(p)) {
		f.Memory.ReadAt(p[:n], off)
		return int(n), io.EOF
	}
	return f.Memory.ReadAt(p, off)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.grow(off + int64(len(p)))
	return f.Memory.WriteAt(p, off)
}

func (f *file) WritevAt(bufs [][]byte, off int64) error {
	f.grow(off + vectorLen(bufs))
	return f.Memory.WritevAt(bufs, off)
}

func (f *file) Datasync() error           { return nil }
func (f *file) Truncate(size int64) error { return errors.ErrUnsupported }

func TestDisk(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return OnDisk(newFile(), 1<<20+8192) })
}

// failingFile fails one sync.
type failingFile struct {
	disk.File
	mu   sync.Mutex
	fail error
}

func (f *failingFile) Datasync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.fail
	f.fail = nil // as the kernel does: it reports a failure once
	return err
}

// Invariant 9: a failed fsync is final.
func TestFailedSyncIsFinal(t *testing.T) {
	f := &failingFile{File: newFile()}
	s := OnDisk(f, 1<<20)
	defer s.Close()
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	f.fail = syscall.EIO
	var wg sync.WaitGroup
	for range 4 { // whoever the kernel tells, all have to hear it
		wg.Go(func() {
			if err := s.Sync(); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Errorf("Sync: %v", err)
			}
		})
	}
	wg.Wait()
	if _, err := s.WriteAt([]byte{1}, 0); err != nil {
		t.Errorf("WriteAt: %v", err)
	}
	if err := s.Sync(); !errors.Is(err, ErrFailed) {
		t.Errorf("Sync after it: %v", err)
	}
}
