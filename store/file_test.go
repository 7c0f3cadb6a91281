package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/store/storetest"
)

const testSize = 2<<20 + 4096

// create makes a file store and opens it.
func create(t *testing.T, dir string, opts FileOptions) *File {
	t.Helper()
	path := filepath.Join(dir, "data")
	if err := CreateFile(path, testSize, opts); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFile(path, FileOptions{Size: testSize})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFile(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return create(t, t.TempDir(), FileOptions{}) })
}

func TestFilePreallocated(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return create(t, t.TempDir(), FileOptions{Preallocate: true})
	})
	s := create(t, t.TempDir(), FileOptions{Preallocate: true})
	if got := allocated(t, s); got < testSize {
		t.Errorf("%d of %d bytes are allocated", got, testSize)
	}
}

// On tmpfs neither FALLOC_FL_ZERO_RANGE nor, with older kernels, RWF_NOWAIT is
// known.
func TestFileOnTmpfs(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "lockstep-store-")
	if err != nil {
		t.Skipf("there is no tmpfs to test on: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	storetest.Run(t, func(t *testing.T) storetest.Store {
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		return create(t, sub, FileOptions{})
	})
}

func allocated(t *testing.T, s *File) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Fstat(s.fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestPunchGivesSpaceBack(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	if got := allocated(t, s); got > 64<<10 {
		t.Errorf("a new file takes %d bytes", got)
	}
	write := func() {
		if _, err := s.WriteAt(make([]byte, 1<<20), 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(); err != nil { // until then nothing may be allocated
			t.Fatal(err)
		}
	}
	write()
	if err := s.Zero(0, 1<<20, false); err != nil || allocated(t, s) < 1<<20 {
		t.Errorf("zeroes without a punch leave %d bytes: %v", allocated(t, s), err)
	}
	if err := s.Zero(0, 1<<20, true); err != nil || allocated(t, s) > 64<<10 {
		t.Errorf("a punch leaves %d bytes: %v", allocated(t, s), err)
	}
}

// What was found to be full is not looked for again, until a hole is made, wherever
// that is; the next look finds the hole.
func TestExtentsRememberWhatIsFull(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	size, at := s.Size(), s.Size()/2&^(1<<20-1)
	full := func(off, n int64) (length int64) {
		t.Helper()
		err := s.Extents(off, n, func(_, n int64, data bool) error {
			if data {
				length += n
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return length
	}
	if err := writeZeroes(s.f, 0, size); err != nil {
		t.Fatal(err)
	}
	if got := full(0, size); got != size {
		t.Fatalf("%d bytes of a full file are data", got)
	}
	if r := s.full.Load(); r == nil || r.off != 0 || r.end != size {
		t.Errorf("what was found is %+v", r)
	}
	was := s.full.Load()
	if got := full(at, 64<<10); got != 64<<10 || s.full.Load() != was {
		t.Errorf("a part of it is looked for again: %d bytes are data", got)
	}
	if err := s.Zero(at, 1<<20, true); err != nil {
		t.Fatal(err)
	}
	if got := full(at, 1<<20); got != 0 {
		t.Errorf("%d bytes of a hole are data", got)
	}
	if got := full(0, size); got != size-1<<20 {
		t.Errorf("%d bytes are data beside a hole of %d", got, 1<<20)
	}
	if _, err := s.WriteAt(make([]byte, 4096), at); err != nil {
		t.Fatal(err)
	}
	if got := full(at, 1<<20); got == 0 {
		t.Error("what was written into a hole is no data")
	}
}

func TestCreateOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"file", "empty", "dir", "dangling"} {
		path := filepath.Join(dir, name)
		switch name {
		case "file":
			os.WriteFile(path, []byte("precious"), 0o600)
		case "empty":
			os.WriteFile(path, nil, 0o600)
		case "dir":
			os.Mkdir(path, 0o700)
		case "dangling":
			os.Symlink(filepath.Join(dir, "nowhere"), path)
		}
		if err := CreateFile(path, 1<<20, FileOptions{}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); string(got) != "precious" {
		t.Errorf("the file has %q: %v", got, err)
	}
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	for _, size := range []int64{-1, 0, 1 << 62} {
		if err := CreateFile(path, size, FileOptions{}); err == nil {
			t.Errorf("a file of %d bytes was made", size)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("size %d left something: %v", size, err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		path string
		size int64
		want string
	}{
		{filepath.Join(dir, "missing"), 0, "no such file"},
		{dir, 0, "is a directory"},
		{"/dev/null", 0, "neither a file nor a block device"},
		{write("empty", 0), 0, "is empty"},
		{write("short", 4095), 4096, "has 4095 bytes, and 4096 are wanted"},
		{write("long", 4097), 4096, "has 4097 bytes, and 4096 are wanted"},
		{write("negative", 4096), -4096, "-4096 are wanted"},
	} {
		_, err := OpenFile(test.path, FileOptions{Size: test.size})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.path) {
			t.Errorf("%s: %v", test.path, err)
		}
	}
	_, err := OpenFile(filepath.Join(dir, "missing"), FileOptions{})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "missing")); err == nil {
		t.Error("OpenFile made a file")
	}
}

func TestOpenedOnce(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	if _, err := OpenFile(s.path, FileOptions{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second one: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenFile(s.path, FileOptions{})
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	again.Close()
}

func TestReopenedFileHoldsWhatWasWritten(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	if _, err := s.WriteAt([]byte("here"), testSize-4); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, err := OpenFile(s.path, FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := make([]byte, 4)
	if _, err := s.ReadAt(p, testSize-4); string(p) != "here" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
}

func TestClosedFile(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	p := []byte{1}
	_, read := s.ReadAt(p, 0)
	_, try := s.TryReadAt(p, 0)
	_, write := s.WriteAt(p, 0)
	for op, err := range map[string]error{
		"ReadAt": read, "TryReadAt": try, "WriteAt": write, "WritevAt": s.WritevAt([][]byte{p}, 0),
		"Zero": s.Zero(0, 1, true), "WriteBack": s.WriteBack(0, 1), "Sync": s.Sync(),
		"Extents": s.Extents(0, 1, func(off, n int64, data bool) error { return nil }),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestFileCutBehindOurBack(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	if err := os.Truncate(s.path, 4096); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8192)
	if done, err := s.TryReadAt(p, 0); done || err != nil {
		t.Errorf("TryReadAt: %v, %v", done, err)
	}
	if _, err := s.ReadAt(p, 0); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "became shorter") {
		t.Errorf("ReadAt: %v", err)
	}
}

func TestTryReadServesThePageCache(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	p := make([]byte, 4096)
	if _, err := s.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	done, err := s.TryReadAt(p, 0)
	if err != nil {
		t.Fatal(err)
	}
	if s.cold.Load() {
		t.Skip("the file system of the temporary directory has no RWF_NOWAIT")
	}
	if !done {
		t.Error("what was just written is not answered")
	}
	if n := testing.AllocsPerRun(100, func() { s.TryReadAt(p, 0) }); n != 0 {
		t.Errorf("%v allocations per read", n)
	}
}

func TestTryReadRemembersThatItCannot(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	s.memory = false
	s.cold.Store(true)
	if done, err := s.TryReadAt(make([]byte, 1), 0); done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
}

// A file system in memory refuses RWF_NOWAIT and never waits for a disk.
func TestTryReadOnMemory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "store")
	if err != nil {
		t.Skipf("no tmpfs to try: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := create(t, dir, FileOptions{})
	if !s.memory {
		t.Fatal("/dev/shm is not taken for memory")
	}
	if done, err := s.TryReadAt(make([]byte, 4096), 0); !done || err != nil {
		t.Errorf("a read of a hole: %v, %v", done, err)
	}
}

func TestFailedWriteBackIsFinal(t *testing.T) {
	s := create(t, t.TempDir(), FileOptions{})
	t.Cleanup(func() { s.Close() })
	if err := s.sync.fail(syscall.EIO); !errors.Is(err, ErrFailed) {
		t.Errorf("a write-back that failed: %v", err)
	}
	if err := s.Sync(); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync after it: %v", err)
	}
}
