package node

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// makeElsewhere creates a volume whose journal is in a directory of its own.
func makeElsewhere(t *testing.T, cl *Client, name string) (journal string) {
	t.Helper()
	journal = t.TempDir()
	st, err := cl.Create(t.Context(), CreateRequest{Name: name, Size: 8 << 20, JournalSize: 64 << 20, Journal: journal})
	if err != nil || st.Problem != "" {
		t.Fatal(st.Problem, err)
	}
	return journal
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestRealJournalElsewhere(t *testing.T) {
	c := testConfig(t)
	n, cl := startReal(t, c)
	journal := makeElsewhere(t, cl, "data")
	serving(t, cl, "data")
	nbd := attach(t, n, "data")
	written := bytes.Repeat([]byte("lockstep"), 1<<13)
	if _, err := nbd.WriteAt(written, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := nbd.Flush(); err != nil {
		t.Fatal(err)
	}
	nbd.Close()
	_, err := cl.Create(t.Context(), CreateRequest{Name: "more", Size: 8 << 20, Journal: journal})
	wantError(t, err, CodeFailed, `holds the journal of volume "data" on node "alpha": a journal needs an empty directory`)
	stopNode(t, n)
	if names := namesIn(t, journal); !slices.Contains(names, "0001.seg") {
		t.Errorf("the journal's directory has %q", names)
	}
	if names := namesIn(t, filepath.Join(c.DataDir, "volumes", "data")); slices.Contains(names, "journal") {
		t.Errorf("the volume's directory has %q", names)
	}

	n, cl = startReal(t, c)
	serving(t, cl, "data")
	nbd = attach(t, n, "data")
	got := make([]byte, len(written))
	if _, err := nbd.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, written) {
		t.Errorf("%v, equal: %v", err, bytes.Equal(got, written))
	}
	nbd.Close()
	if _, err := cl.Demote(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if err := cl.Delete(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if names := namesIn(t, journal); len(names) != 0 {
		t.Errorf("delete left %q", names)
	}
}

// A journal that is not where it was is one sentence, and nothing is made in its
// place.
func TestRealJournalMissing(t *testing.T) {
	c := testConfig(t)
	n, cl := startReal(t, c)
	journal := makeElsewhere(t, cl, "data")
	makeReal(t, cl, "plain")
	other := makeElsewhere(t, cl, "other")
	stopNode(t, n)
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(journal, away); err != nil {
		t.Fatal(err)
	}
	problem := func(c Config, want string) {
		t.Helper()
		n, cl := startReal(t, c)
		v, err := cl.Volume(t.Context(), "data")
		if err != nil || !strings.Contains(v.Problem, want) || !strings.Contains(v.Problem, "Nothing on disk was overwritten") {
			t.Errorf("%q, %v", v.Problem, err)
		}
		if v, err := cl.Volume(t.Context(), "plain"); err != nil || v.Problem != "" {
			t.Errorf("the other volume: %q, %v", v.Problem, err)
		}
		stopNode(t, n)
	}
	problem(c, "the journal's directory "+journal+" is missing (is its disk mounted?)")
	if _, err := os.Stat(journal); !os.IsNotExist(err) {
		t.Fatalf("something was made in its place: %v", err)
	}
	if err := os.Mkdir(journal, 0o700); err != nil {
		t.Fatal(err)
	}
	problem(c, "it is not in the directory "+journal+" (is its disk mounted?)")
	if names := namesIn(t, journal); len(names) != 0 {
		t.Fatalf("%q was made in its place", names)
	}
	c.Volumes = map[string]Overrides{"data": {Journal: &other}}
	before := snapshot(t, other)
	problem(c, "the directory "+other+` holds the journal of another replica, of volume "other" on node "alpha"`)
	after := snapshot(t, other) // its own volume was open meanwhile
	if len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	c.Volumes = map[string]Overrides{"data": {Journal: &away}}
	_, cl = startReal(t, c)
	if v, err := cl.Volume(t.Context(), "data"); err != nil || v.Problem != "" {
		t.Errorf("where the config file says: %q, %v", v.Problem, err)
	}
}

func TestRealJournalCreateRefused(t *testing.T) {
	c := testConfig(t)
	_, cl := startReal(t, c)
	full, file := t.TempDir(), filepath.Join(t.TempDir(), "f")
	for _, path := range []string{filepath.Join(full, "precious"), file} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		full:         `is not empty, it has "precious"`,
		full + "/no": "the journal's directory " + full + "/no is missing",
		file:         "needs a directory, and " + file + " is none",
		"relative":   `journal "relative" is no absolute path`,
	} {
		_, err := cl.Create(t.Context(), CreateRequest{Name: "data", Size: 8 << 20, Journal: path})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if names := namesIn(t, full); len(names) != 1 {
		t.Errorf("%q", names)
	}
	if names := namesIn(t, filepath.Join(c.DataDir, "volumes")); len(names) != 0 {
		t.Errorf("%q", names)
	}
	// A journal too small is refused after its directory was taken.
	empty := t.TempDir()
	_, err := cl.Create(t.Context(), CreateRequest{Name: "data", Size: 8 << 20, JournalSize: 4096, Journal: empty})
	wantError(t, err, CodeFailed, "the least is")
	if names := namesIn(t, empty); len(names) != 0 {
		t.Errorf("a create that failed left %q", names)
	}
}

// A create, or a delete, that a crash cut off takes its journal along at the
// next start.
func TestRealJournalLeftover(t *testing.T) {
	c := testConfig(t)
	n, cl := startReal(t, c)
	journal := makeElsewhere(t, cl, "data")
	stopNode(t, n)
	volumes := filepath.Join(c.DataDir, "volumes")
	if err := os.Rename(filepath.Join(volumes, "data"), filepath.Join(volumes, ".data.deleting")); err != nil {
		t.Fatal(err)
	}
	startReal(t, c)
	if names := append(namesIn(t, journal), namesIn(t, volumes)...); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
}

func TestPreallocate(t *testing.T) {
	c := testConfig(t)
	_, cl := startReal(t, c)
	for name, all := range map[string]bool{"sparse": false, "whole": true} {
		st, err := cl.Create(t.Context(), CreateRequest{Name: name, Size: 8 << 20, JournalSize: 64 << 20, Preallocate: all})
		if err != nil || st.Problem != "" {
			t.Fatal(st.Problem, err)
		}
		if got := allocated(t, filepath.Join(c.DataDir, "volumes", name, "data")); (got >= 8<<20) != all {
			t.Errorf("%s: %d bytes are allocated", name, got)
		}
	}
}

// allocated is the space that a file takes, bytes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}
