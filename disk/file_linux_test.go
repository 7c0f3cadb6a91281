package disk

import (
	"os"
	"path/filepath"
	"testing"
)

// A short write may end anywhere; consume says where to go on.
func TestConsume(t *testing.T) {
	bufs := [][]byte{make([]byte, 3), nil, make([]byte, 2), make([]byte, 4)}
	for _, c := range []struct{ n, done, rest int }{
		{0, 0, 0}, {2, 0, 1}, {3, 2, 0}, {4, 2, 1}, {5, 3, 0}, {8, 3, 1}, {9, 4, 0},
	} {
		if done, rest := consume(bufs, c.n); done != c.done || len(rest) != c.rest {
			t.Errorf("%d bytes: %d pieces and %d bytes of the next left, want %d and %d", c.n, done, len(rest), c.done, c.rest)
		}
	}
}

// TestWriteZeroes drives the way that is taken where fallocate is not known.
func TestWriteZeroes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := openFile(path, os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const n = 3<<20 + 5
	if err := f.WritevAt([][]byte{{1}}, n); err != nil {
		t.Fatal(err)
	}
	if err := f.(*osFile).writeZeroes(0, n); err != nil {
		t.Fatal(err)
	}
	if size, err := f.Size(); err != nil || size != n+1 {
		t.Errorf("size %d, %v", size, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
