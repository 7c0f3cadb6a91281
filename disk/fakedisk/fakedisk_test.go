package fakedisk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
)

// must returns v, or ends the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is all of a file, nil if there is none.
func content(t testing.TB, d disk.FS, name string) []byte {
	t.Helper()
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ok(t, err)
	defer f.Close()
	p := make([]byte, must(f.Size())(t))
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return p
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// written returns a disk with the durable file "f" of n bytes of b.
func written(t testing.TB, seed uint64, b byte, n int) (*FS, disk.File) {
	t.Helper()
	d := New(seed)
	f := must(d.Create("f"))(t)
	ok(t, f.WritevAt([][]byte{fill(b, n/2), fill(b, n-n/2)}, 0))
	ok(t, f.Datasync())
	ok(t, d.SyncDir())
	return d, f
}

func TestSyncedSurvives(t *testing.T) {
	d, f := written(t, 1, 'a', 10000)
	if _, err := f.WriteAt(fill('b', 100), 50); err != nil {
		t.Fatal(err)
	}
	left := d.Crash(LoseAll)
	if got := content(t, left, "f"); !bytes.Equal(got, fill('a', 10000)) {
		t.Fatalf("%d bytes left, or other ones", len(got))
	}
	if _, err := f.WriteAt(fill('c', 1), 0); !errors.Is(err, ErrPowerLost) {
		t.Fatalf("write without power: %v", err)
	}
}

// What begins with zeroes is not taken for zeroes, wherever the byte is that is not.
func TestWriteThatBeginsWithZeroes(t *testing.T) {
	const n = pageSize + 13
	for _, at := range []int{0, 1, 7, 8, 4095, 4096, n - 2, n - 1} {
		d := New(1)
		f := must(d.Create("f"))(t)
		p := make([]byte, n)
		p[at] = 1
		if _, err := f.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, d, "f"), p) {
			t.Errorf("the byte at %d is lost", at)
		}
	}
}

func TestKillKeepsWhatWasWritten(t *testing.T) {
	d, f := written(t, 1, 'a', 8192)
	if _, err := f.WriteAt(fill('b', 8192), 0); err != nil {
		t.Fatal(err)
	}
	killed := d.KillClone()
	if got := content(t, killed, "f"); !bytes.Equal(got, fill('b', 8192)) {
		t.Fatal("a kill lost a write")
	}
	if got := content(t, killed.CrashClone(LoseAll), "f"); !bytes.Equal(got, fill('a', 8192)) {
		t.Fatal("a kill made a write durable")
	}
	// The clone is on its own.
	if _, err := f.WriteAt(fill('c', 8192), 0); err != nil {
		t.Fatal(err)
	}
	if content(t, killed, "f")[0] != 'b' {
		t.Fatal("a write to the original shows in the clone")
	}
}

// TestEveryCrashCanHappen: over some seeds an unsynced write is lost, kept, and
// torn at a sector's border, never within one; and a later write is kept
// without an earlier one.
func TestEveryCrashCanHappen(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(300) {
		d, f := written(t, seed, 'a', 4*sectorSize)
		for i, b := range []byte("bc") {
			if _, err := f.WriteAt(fill(b, 2*sectorSize), int64(i)*2*sectorSize); err != nil {
				t.Fatal(err)
			}
		}
		got := content(t, d.CrashClone(KeepSome(seed)), "f")
		state := ""
		for s := range 4 {
			sector := got[s*sectorSize:][:sectorSize]
			if !bytes.Equal(sector, fill(sector[0], sectorSize)) {
				t.Fatalf("seed %d: sector %d is torn", seed, s)
			}
			state += string(sector[0])
		}
		seen[state] = true
	}
	for _, want := range []string{"aaaa", "bbcc", "aacc", "bbaa", "baaa", "abac"} {
		if !seen[want] {
			t.Errorf("no seed leaves %s", want)
		}
	}
}

// TestChoicesAreAll: enumerating leaves each outcome once, and what makes no
// difference is not enumerated.
func TestChoicesAreAll(t *testing.T) {
	d, f := written(t, 1, 'a', 4*sectorSize)
	for i, p := range [][]byte{fill('b', 2*sectorSize), fill('a', sectorSize), fill('c', sectorSize)} {
		if _, err := f.WriteAt(p, []int64{0, 2 * sectorSize, sectorSize}[i]); err != nil {
			t.Fatal(err)
		}
	}
	ok(t, d.Rename("f", "g"))
	seen := map[string]int{}
	var c Choices
	for more := true; more; more = c.Next() {
		left := d.CrashClone(c.Keep)
		state := ""
		for _, name := range []string{"f", "g"} {
			p := content(t, left, name)
			for i := 0; i < len(p); i += sectorSize {
				state += string(p[i])
			}
			state += "."
		}
		seen[state]++
	}
	want := map[string]int{}
	for _, first := range []string{"a", "b"} {
		// The second sector was written twice: what covers it hides what it was.
		for second, ways := range map[string]int{"a": 1, "b": 1, "c": 2} {
			want[first+second+"aa.."] += ways
			want["."+first+second+"aa."] += ways
		}
	}
	if !maps.Equal(seen, want) {
		t.Errorf("outcomes\n%v, wanted\n%v", seen, want)
	}
}

func TestSizeAfterCrash(t *testing.T) {
	d, f := written(t, 1, 'a', 1000)
	ok(t, f.Truncate(10))
	if got := content(t, d, "f"); len(got) != 10 {
		t.Fatalf("%d bytes after the truncation", len(got))
	}
	if got := content(t, d.CrashClone(LoseAll), "f"); !bytes.Equal(got, fill('a', 1000)) {
		t.Fatal("an unsynced truncation was durable")
	}
	ok(t, f.Truncate(20))
	want := append(fill('a', 10), fill(0, 10)...)
	if got := content(t, d.CrashClone(KeepAll), "f"); !bytes.Equal(got, want) {
		t.Fatalf("after shrinking and growing: %q", got)
	}
	ok(t, f.Datasync())
	if got := content(t, d.CrashClone(LoseAll), "f"); !bytes.Equal(got, want) {
		t.Fatalf("a synced truncation left %q", got)
	}
}

func TestNamesAreLostUntilSyncDir(t *testing.T) {
	d, f := written(t, 1, 'a', 100)
	ok(t, f.Close())
	tmp := must(d.Create("tmp"))(t)
	ok(t, tmp.WritevAt([][]byte{fill('n', 100)}, 0))
	ok(t, tmp.Datasync())
	ok(t, d.Rename("tmp", "f"))
	if content(t, d.CrashClone(LoseAll), "f")[0] != 'a' {
		t.Fatal("an unsynced rename was durable")
	}
	if content(t, d.CrashClone(KeepAll), "f")[0] != 'n' {
		t.Fatal("a kept rename left the old file")
	}
	ok(t, d.SyncDir())
	if left := d.CrashClone(LoseAll); content(t, left, "f")[0] != 'n' || content(t, left, "tmp") != nil {
		t.Fatal("a synced rename was lost")
	}
	ok(t, d.Remove("f"))
	if content(t, d.CrashClone(LoseAll), "f") == nil || content(t, d.CrashClone(KeepAll), "f") != nil {
		t.Fatal("an unsynced removal is not open")
	}
}

// TestInvariant9FailedSyncIsFinal: a failed Datasync leaves each page durable,
// taken back, or clean and never durable; a later success changes none of it.
func TestInvariant9FailedSyncIsFinal(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(100) {
		d, f := written(t, seed, 'a', pageSize)
		if _, err := f.WriteAt(fill('b', pageSize), 0); err != nil {
			t.Fatal(err)
		}
		d.Fail(OpDatasync, 0, syscall.EIO)
		if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("sync: %v", err)
		}
		ok(t, f.Datasync())
		seen[string(content(t, d, "f")[:1])+string(content(t, d.CrashClone(KeepAll), "f")[:1])] = true
	}
	for _, want := range []string{"aa", "bb", "ba"} {
		if !seen[want] {
			t.Errorf("no seed leaves a page that reads %c and is %c on disk", want[0], want[1])
		}
	}
	if seen["ab"] {
		t.Error("a page that was taken back is durable")
	}
}

func TestFail(t *testing.T) {
	d, f := written(t, 1, 'a', 100)
	d.Fail(OpWrite, 1, syscall.ENOSPC)
	ok(t, f.WritevAt([][]byte{{1}}, 0))
	if err := f.WritevAt([][]byte{{2}}, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the second write: %v", err)
	}
	ok(t, f.WritevAt([][]byte{{3}}, 0))

	d.FailFrom(AnyChange, 1, syscall.EIO)
	ok(t, f.Datasync())
	must(f.Size())(t) // no change
	for range 2 {
		if err := d.SyncDir(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("after FailFrom: %v", err)
		}
	}
	if n := d.Count(OpDatasync); n != 2 {
		t.Errorf("%d syncs counted, there were 2", n)
	}
}

func TestFailedWriteIsDoneInPart(t *testing.T) {
	seen := map[int]bool{}
	for seed := range uint64(100) {
		d, f := written(t, seed, 'a', 2*sectorSize)
		d.Fail(OpWrite, 0, syscall.EIO)
		if _, err := f.WriteAt(fill('b', 2*sectorSize), 0); err == nil {
			t.Fatal("the write did not fail")
		}
		seen[bytes.Count(content(t, d, "f"), []byte{'b'})/sectorSize] = true
	}
	if len(seen) != 3 {
		t.Errorf("sectors written by a failed write of two: %v", seen)
	}
}

func TestOnOp(t *testing.T) {
	d, f := written(t, 1, 'a', 100)
	var left *FS
	d.OnOp(func(op Op, name string) error {
		if op == OpDatasync && name == "f" {
			left = d.CrashClone(LoseAll) // the hook may use the disk
			return syscall.EIO
		}
		return nil
	})
	if err := f.Datasync(); !errors.Is(err, syscall.EIO) || left == nil {
		t.Fatalf("sync under the hook: %v", err)
	}
	d.OnOp(nil)
	ok(t, f.Datasync())
}

func TestFlip(t *testing.T) {
	d, _ := written(t, 1, 0, 3*pageSize)
	ok(t, d.Flip("f", pageSize+7, 2, 3))
	for _, left := range []*FS{d, d.CrashClone(LoseAll)} {
		turned := 0
		for i, b := range content(t, left, "f") {
			for ; b != 0; b &= b - 1 {
				turned++
				if i < pageSize+7 || i > pageSize+8 {
					t.Errorf("a bit turned at %d", i)
				}
			}
		}
		if turned != 3 {
			t.Errorf("%d bits turned of 3", turned)
		}
	}
	if d.Flip("f", 0, 4*pageSize, 1) == nil || d.Flip("g", 0, 1, 1) == nil {
		t.Error("bits turned that are not there")
	}
}

// TestSameSeedSameDisk: one seed, one outcome.
func TestSameSeedSameDisk(t *testing.T) {
	run := func() []byte {
		d, f := written(t, 7, 'a', 64*sectorSize)
		d.Fail(OpWrite, 3, syscall.EIO)
		for i := range 16 {
			_, _ = f.WriteAt(fill(byte(i), 4*sectorSize), int64(i)*3*sectorSize)
		}
		return content(t, d.CrashClone(KeepSome(7)), "f")
	}
	if !bytes.Equal(run(), run()) {
		t.Error("two runs with one seed differ")
	}
}
