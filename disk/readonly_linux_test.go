package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReadOnly(t *testing.T) {
	path := t.TempDir()
	rw, err := OS(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := rw.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("text"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := ReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	if f, err = d.Open("f"); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "text" {
		t.Errorf("%q, %v", p, err)
	}
	if size, err := f.Size(); err != nil || size != 4 {
		t.Errorf("%d, %v", size, err)
	}
	_, createErr := d.Create("g")
	_, writeErr := f.WriteAt(p, 0)
	for what, err := range map[string]error{
		"create": createErr, "write": writeErr, "remove": d.Remove("f"), "rename": d.Rename("f", "g"), "sync": d.SyncDir(),
		"writev": f.WritevAt([][]byte{p}, 0), "zero": f.Zero(0, 1, false), "datasync": f.Datasync(), "truncate": f.Truncate(0),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := d.Sub("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("sub: %v", err)
	}
	if _, err := ReadOnly(filepath.Join(path, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if names, err := d.List(); err != nil || len(names) != 1 {
		t.Errorf("%q, %v", names, err)
	}
}

// A lock is seen through a directory that is open for reading only; one that
// was never taken needs no file.
func TestReadOnlyLock(t *testing.T) {
	path := t.TempDir()
	rw, err := OS(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := ReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	free, err := d.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	if _, err := os.Stat(filepath.Join(path, "lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock's file was made: %v", err)
	}
	held, err := rw.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock("lock"); !errors.Is(err, ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	held.Close()
	mine, err := d.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rw.Lock("lock"); !errors.Is(err, ErrLocked) {
		t.Errorf("locked beside a reader: %v", err)
	}
	mine.Close()
}
