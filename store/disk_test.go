package store

import (
	"bytes"
	"errors"
	"sync"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/store/storetest"
)

func newFile(t *testing.T) (*fakedisk.FS, disk.File) {
	t.Helper()
	dir := fakedisk.New(1)
	f, err := dir.Create("data")
	if err == nil {
		err = dir.SyncDir()
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, f
}

func TestDisk(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		_, f := newFile(t)
		return OnDisk(f, 1<<20+8192)
	})
}

func TestDiskOnRealFiles(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		dir, err := disk.OS(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		f, err := dir.Create("data")
		if err != nil {
			t.Fatal(err)
		}
		return OnDisk(f, 1<<20)
	})
}

func TestSyncedBytesSurviveAPowerLoss(t *testing.T) {
	dir, f := newFile(t)
	s := OnDisk(f, 1<<20)
	if err := s.WritevAt([][]byte{[]byte("is "), []byte("here")}, 512<<10); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteAt([]byte("is gone"), 512<<10); err != nil {
		t.Fatal(err)
	}
	f, err := dir.Crash(fakedisk.LoseAll).Open("data")
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 9)
	if _, err := OnDisk(f, 1<<20).ReadAt(p, 512<<10); !bytes.Equal(p, []byte("is here\x00\x00")) || err != nil {
		t.Errorf("%q, %v", p, err)
	}
}

// Invariant 9: a failed fsync is final.
func TestFailedFsyncIsFinal(t *testing.T) {
	dir, f := newFile(t)
	s := OnDisk(f, 1<<20)
	defer s.Close()
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	dir.Fail(fakedisk.OpDatasync, 0, syscall.EIO) // once, as the kernel reports it
	var wg sync.WaitGroup
	for range 4 { // whoever is told, all have to hear it
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
