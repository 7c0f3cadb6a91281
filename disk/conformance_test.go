package disk_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// Both file systems keep one contract.
func TestContract(t *testing.T) {
	for name, open := range map[string]func(testing.TB) disk.FS{
		"OS": func(t testing.TB) disk.FS {
			d, err := disk.OS(t.TempDir() + "/deep/down")
			check(t, err)
			return d
		},
		"fake": func(testing.TB) disk.FS { return fakedisk.New(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("names", func(t *testing.T) { testNames(t, open(t)) })
			t.Run("writes", func(t *testing.T) { testWrites(t, open(t)) })
			t.Run("zero", func(t *testing.T) { testZero(t, open(t)) })
			t.Run("lock", func(t *testing.T) { testLock(t, open(t)) })
		})
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, d disk.FS, name string) disk.File {
	t.Helper()
	f, err := d.Create(name)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func testNames(t *testing.T, d disk.FS) {
	create(t, d, "b")
	create(t, d, "a")
	if _, err := d.Create("a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create twice: %v", err)
	}
	for what, err := range map[string]error{
		"open":   func() error { _, err := d.Open("none"); return err }(),
		"remove": d.Remove("none"),
		"rename": d.Rename("none", "c"),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s what is not there: %v", what, err)
		}
	}
	_, err := d.Sub("sub")
	check(t, err)
	sub, err := d.Sub("sub")
	check(t, err)
	create(t, sub, "x")
	check(t, d.Rename("b", "a"))
	create(t, d, "z")
	check(t, d.SyncDir())
	names, err := d.List()
	check(t, err)
	if !slices.Equal(names, []string{"a", "z"}) {
		t.Errorf("names %q", names)
	}
}

func testWrites(t *testing.T, d disk.FS) {
	f := create(t, d, "f")
	// More pieces than one system call takes, empty ones among them.
	var want []byte
	var bufs [][]byte
	for i := range 2500 {
		piece := bytes.Repeat([]byte{byte(i)}, i%7)
		bufs = append(bufs, piece)
		want = append(want, piece...)
	}
	check(t, f.WritevAt(bufs, 5))
	check(t, f.WritevAt(nil, 1<<20))
	check(t, f.Datasync())
	if size, err := f.Size(); err != nil || size != int64(5+len(want)) {
		t.Errorf("size %d, %v; %d was written", size, err, 5+len(want))
	}
	got := make([]byte, len(want)+1)
	if n, err := f.ReadAt(got, 5); n != len(want) || err != io.EOF {
		t.Errorf("read to the end: %d, %v", n, err)
	}
	if !bytes.Equal(got[:len(want)], want) {
		t.Error("read other bytes than were written")
	}
	check(t, f.Reserve(0, 1<<16))
	if size, err := f.Size(); err != nil || size != int64(5+len(want)) {
		t.Errorf("size %d after space was reserved, %v", size, err)
	}
	check(t, f.Truncate(6))
	if size, err := f.Size(); err != nil || size != 6 {
		t.Errorf("size %d after truncation, %v", size, err)
	}
	check(t, f.Close())
	if err := f.WritevAt(bufs, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write to a closed file: %v", err)
	}
}

func testZero(t *testing.T, d disk.FS) {
	for _, punch := range []bool{false, true} {
		f := create(t, d, map[bool]string{false: "keep", true: "punch"}[punch])
		check(t, f.WritevAt([][]byte{bytes.Repeat([]byte{1}, 10000)}, 0))
		check(t, f.Zero(100, 5000, punch))
		check(t, f.Zero(9000, 3000, punch)) // past the end
		check(t, f.Zero(0, 0, punch))
		got := make([]byte, 12000)
		if n, err := f.ReadAt(got, 0); n != len(got) || err != nil && err != io.EOF {
			t.Fatalf("punch %v: read %d bytes, %v", punch, n, err)
		}
		for i, b := range got {
			zero := i >= 100 && i < 5100 || i >= 9000
			if (b == 0) != zero {
				t.Fatalf("punch %v: byte %d is %d", punch, i, b)
			}
		}
	}
}

func testLock(t *testing.T, d disk.FS) {
	l, err := d.Lock("lock")
	check(t, err)
	if _, err := d.Lock("lock"); err == nil {
		t.Fatal("locked twice")
	} else if !bytes.Contains([]byte(err.Error()), []byte(d.String()+"/lock")) {
		t.Errorf("the error does not name the file: %v", err)
	}
	check(t, l.Close())
	l, err = d.Lock("lock")
	check(t, err)
	check(t, l.Close())
}
