package store

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// A full disk's error is passed on so that it can be told from others, and what
// was there stays.
func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("lockstep-store", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("only root can mount a file system that is soon full: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := create(t, dir, FileOptions{})
	t.Cleanup(func() { s.Close() })
	p := make([]byte, 1<<20)
	_, write := s.WriteAt(p, 0)
	for op, err := range map[string]error{
		"WriteAt":          write,
		"WritevAt":         s.WritevAt([][]byte{p[:4096], p[4096:]}, 0),
		"Zero":             s.Zero(0, int64(len(p)), false),
		"CreateFile":       CreateFile(dir+"/more", 1<<20, FileOptions{Preallocate: true}),
		"WriteAt at a gap": errAt(s.WriteAt(p[:1], testSize-1)),
	} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if _, err := os.Stat(dir + "/more"); err == nil {
		t.Error("CreateFile left its file")
	}
	if err := s.Zero(0, testSize, true); err != nil {
		t.Errorf("a punch makes room, but: %v", err)
	}
	if _, err := s.WriteAt(p[:4096], 0); err != nil {
		t.Errorf("and a write fits again, but: %v", err)
	}
}

func errAt(_ int, err error) error { return err }
