package mirror

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// elsewhere makes a replica whose journal has a directory of its own.
func elsewhere(t *testing.T, node string) (dir, jdir *fakedisk.FS) {
	t.Helper()
	dir, jdir = fakedisk.New(1), fakedisk.New(2)
	must(t, createElsewhere(t, dir, jdir, node))
	return dir, jdir
}

func createElsewhere(t *testing.T, dir, jdir disk.FS, node string) error {
	t.Helper()
	f, err := dir.Create(fakeData)
	must(t, err)
	must(t, errors.Join(f.Truncate(crashSize), f.Datasync(), f.Close(), dir.SyncDir()))
	return Create(dir, CreateOptions{Node: node, Volume: rigVolume, Size: crashSize, JournalSize: 64 << 20, Journal: jdir})
}

func openElsewhere(t *testing.T, dir *fakedisk.FS, jdir disk.FS, node string) (*Volume, error) {
	t.Helper()
	return Open(Options{Node: node, Volume: rigVolume, FS: dir, Journal: jdir, Store: openFake(t, dir), BootID: "boot"})
}

func (v *Volume) kill() {
	v.stop()
	v.wg.Wait()
	v.closeFiles()
}

func listOf(t *testing.T, dir disk.FS) []string {
	t.Helper()
	names, err := dir.List()
	must(t, err)
	return names
}

func TestJournalElsewhere(t *testing.T) {
	dir, jdir := elsewhere(t, "a")
	v, err := openElsewhere(t, dir, jdir, "a")
	must(t, err)
	c := &crasher{t: t}
	s := c.attach(v)
	cl := &client{t, s}
	cl.write(4096, fill(7, 4096))
	cl.flush()
	if _, err := openElsewhere(t, dir.KillClone(), jdir, "a"); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("a copy of the replica opened its journal too: %v", err)
	}
	v.kill()
	if names := listOf(t, jdir); !slices.Equal(names, []string{"0001.seg", "owner"}) {
		t.Errorf("the journal's directory has %q", names)
	}
	if names := listOf(t, subOf(t, dir)); len(names) != 0 {
		t.Errorf("the replica's own directory has a journal: %q", names)
	}
	if r := mustBeSound(t, dir, CheckOptions{Journal: jdir}); r.Journal.Records == 0 {
		t.Errorf("%+v", r.Journal)
	}
	v, err = openElsewhere(t, dir, jdir, "a")
	must(t, err)
	defer v.kill()
	cl = &client{t, c.attach(v)}
	if got := cl.read(4096, 4096); !bytes.Equal(got, fill(7, 4096)) {
		t.Errorf("reads %d", got[0])
	}
}

// A journal is opened by its own replica only, and where it is not nothing is
// made.
func TestJournalOfAnotherReplica(t *testing.T) {
	dir, jdir := elsewhere(t, "a")
	other, theirs := elsewhere(t, "a") // the same names: the id tells
	plain := fakedisk.New(3)
	createFake(t, plain, "a", crashSize)
	empty := fakedisk.New(4)
	before := listOf(t, theirs)
	if err := EraseJournal(dir, theirs); err == nil || !strings.Contains(err.Error(), "it is left as it is") {
		t.Errorf("another's journal was erased: %v", err)
	}
	if after := listOf(t, theirs); !slices.Equal(before, after) {
		t.Errorf("%q became %q", before, after)
	}
	for _, tc := range []struct {
		name string
		dir  *fakedisk.FS
		jdir disk.FS
		want string
	}{
		{"another's", dir, theirs, `the directory fake: holds the journal of another replica, of volume "data" on node "a"`},
		{"ours, for another", other, jdir, "another replica"},
		{"an empty directory", dir, empty, "(is its disk mounted?)"},
		{"none named", dir, nil, "is in a directory of its own, which was not named"},
		{"one named for a replica that has its own", plain, theirs, "is with it, and not in fake:"},
	} {
		for _, d := range []*fakedisk.FS{jdir, theirs, empty} {
			d.OnOp(func(op fakedisk.Op, name string) error {
				if op != fakedisk.OpOpen && op != fakedisk.OpRead && op != fakedisk.OpList {
					t.Errorf("%s: %v of %q", tc.name, op, name)
				}
				return nil
			})
		}
		if v, err := openElsewhere(t, tc.dir, tc.jdir, "a"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
			if err == nil {
				v.kill()
			}
		}
		r, err := Check(tc.dir, CheckOptions{Journal: tc.jdir})
		if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Text, tc.want) {
			t.Errorf("%s: check says %v, %v", tc.name, r.Problems, err)
		}
	}
}

func TestJournalNeedsAnEmptyDirectory(t *testing.T) {
	_, taken := elsewhere(t, "a")
	other := fakedisk.New(3)
	f, err := other.Create("precious")
	must(t, err)
	must(t, f.Close())
	for want, jdir := range map[string]*fakedisk.FS{
		`holds the journal of volume "data" on node "a"`: taken,
		`is not empty, it has "precious"`:                other,
	} {
		before := listOf(t, jdir)
		dir := fakedisk.New(5)
		if err := createElsewhere(t, dir, jdir, "b"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
		must(t, EraseJournal(dir, jdir))
		if after := listOf(t, jdir); !slices.Equal(before, after) {
			t.Errorf("%q became %q", before, after)
		}
	}
}

// Whatever a crash at whatever operation of a create leaves in the journal's
// directory, EraseJournal makes it fit for another create; and so does it after
// a crash of its own.
func TestEraseJournalAcrossCrashes(t *testing.T) {
	unraced(t)
	t.Parallel()
	rng := seed(t)
	done := false
	for k := 0; !done; k++ {
		left := fakedisk.New(rng.Uint64())
		crash := func(act func(dir, jdir *fakedisk.FS) error) {
			d, n := left, 0
			var crashed *fakedisk.FS
			d.OnOp(func(op fakedisk.Op, _ string) error {
				if n++; n == k+1 {
					crashed = d.CrashClone(fakedisk.KeepSome(rng.Uint64()))
				}
				return nil
			})
			must(t, act(d, subNamed(t, d, "elsewhere")))
			d.OnOp(nil)
			if done = crashed == nil; !done {
				left = crashed
			}
		}
		erase := func(dir, jdir *fakedisk.FS) error { return EraseJournal(dir, jdir) }
		crash(func(dir, jdir *fakedisk.FS) error {
			return Create(dir, CreateOptions{Node: "a", Volume: rigVolume, Size: crashSize, JournalSize: 64 << 20, Journal: jdir})
		})
		created := done
		crash(erase)
		done = created
		jdir := subNamed(t, left, "elsewhere")
		must(t, erase(left, jdir))
		again := fakedisk.New(1)
		if err := Create(again, CreateOptions{Node: "a", Volume: rigVolume, Size: crashSize, JournalSize: 64 << 20, Journal: jdir}); err != nil {
			t.Fatalf("after a crash at operation %d: %v", k, err)
		}
	}
}

func subNamed(t testing.TB, d *fakedisk.FS, name string) *fakedisk.FS {
	t.Helper()
	sub, err := d.Sub(name)
	must(t, err)
	return sub.(*fakedisk.FS)
}

// The two files' bytes are those of docs/formats.md; another format is refused,
// with a sentence.
func TestJournalLinkFormat1(t *testing.T) {
	dir := fakedisk.New(1)
	want := journalLink{Format: 1, Volume: "data", Node: "alpha", ID: ID{0x01, 0x23, 15: 0xff}}
	must(t, want.write(dir, linkName))
	f, err := dir.Open(linkName)
	must(t, err)
	size, err := f.Size()
	must(t, err)
	got := make([]byte, size)
	_, err = f.ReadAt(got, 0)
	must(t, err)
	golden(t, "journal-link-v1", got)
	if l, err := readLink(dir, linkName); err != nil || l != want {
		t.Errorf("%+v, %v", l, err)
	}
	for text, want := range map[string]string{
		`{"format":2,"volumes":["data"]}`: "format 2, this program knows 1: start the program that wrote it, or a newer one",
		`{"format":1}`:                    "it has no id",
		`{"format":1,"id":"00"}`:          "is no id",
		``:                                "unexpected end",
		`{"format":1,"more":1}`:           `unknown field "more"`,
	} {
		if err := new(journalLink).parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRepairOfAJournalElsewhere: the disk of a journal is replaced by an empty
// one, which becomes the journal's; a directory of something else does not.
func TestRepairOfAJournalElsewhere(t *testing.T) {
	dir, jdir := elsewhere(t, "a")
	v, err := openElsewhere(t, dir, jdir, "a")
	must(t, err)
	cl := &client{t, (&crasher{t: t}).attach(v)}
	cl.write(4096, fill(7, 4096))
	cl.flush()
	must(t, v.Close(t.Context())) // the store has it
	fresh := fakedisk.New(3)
	if _, err := openElsewhere(t, dir, fresh, "a"); !errors.Is(err, ErrJournalLost) {
		t.Fatalf("opened on another disk: %v", err)
	}
	repair := func(jdir disk.FS) error {
		_, err := Repair(Options{Node: "a", Volume: rigVolume, FS: dir, Journal: jdir, Store: openFake(t, dir), BootID: "boot"}, RepairOptions{Force: true})
		return err
	}
	_, other := elsewhere(t, "a")
	before := listOf(t, other)
	if err := repair(other); err == nil || !strings.Contains(err.Error(), "another replica") {
		t.Errorf("repaired into another replica's journal: %v", err)
	}
	if names := listOf(t, other); !slices.Equal(names, before) {
		t.Errorf("the other journal's directory has %q", names)
	}
	must(t, repair(fresh))
	v, err = openElsewhere(t, dir, fresh, "a")
	must(t, err)
	cl = &client{t, (&crasher{t: t}).attach(v)}
	if got := cl.read(4096, 4096); !bytes.Equal(got, fill(7, 4096)) {
		t.Errorf("reads %d", got[0])
	}
	v.kill()
	must(t, EraseJournal(dir, fresh))
	if names := listOf(t, fresh); len(names) != 0 {
		t.Errorf("left behind: %q", names)
	}
}
