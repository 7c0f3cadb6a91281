package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirect: a volume that was made with direct, or that the configuration has
// with it, is not in the page cache; the configuration's word is the last one.
func TestDirect(t *testing.T) {
	yes, no := true, false
	c := testConfig(t)
	c.Volumes = map[string]Overrides{"configured": {Direct: &yes}, "overridden": {Direct: &no}}
	_, cl := startReal(t, c)
	for name, want := range map[string]struct{ asked, direct bool }{
		"plain": {false, false}, "asked": {true, true}, "configured": {false, true}, "overridden": {true, false},
	} {
		st, err := cl.Create(t.Context(), CreateRequest{Name: name, Size: 8 << 20, JournalSize: 64 << 20, Direct: want.asked})
		if err != nil || st.Problem != "" {
			if text := fmt.Sprint(st.Problem, err); strings.Contains(text, "leave direct off") {
				t.Skipf("%s: set TMPDIR to a directory on a disk", text)
			}
			t.Fatal(st.Problem, err)
		}
		path := filepath.Join(c.DataDir, "volumes", name, "data")
		if got := opensDirect(t, path); got != want.direct {
			t.Errorf("%s: the daemon has it open with O_DIRECT: %v", name, got)
		}
	}
}

// opensDirect reports whether this process has a file open with O_DIRECT.
func opensDirect(t *testing.T, path string) bool {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if at, _ := os.Readlink("/proc/self/fd/" + e.Name()); at != path {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			t.Fatal(err)
		}
		return flags&unix.O_DIRECT != 0
	}
	t.Fatalf("%s is not open", path)
	return false
}

// TestDirectInVain: what cannot be had is refused before the volume is made.
func TestDirectInVain(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "lockstep-node-")
	if err != nil {
		t.Skipf("there is no tmpfs to test on: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := testConfig(t)
	_, cl := startReal(t, c)
	_, err = cl.Create(t.Context(), CreateRequest{Name: "data", Size: 8 << 20, JournalSize: 64 << 20, Store: filepath.Join(dir, "data"), Direct: true})
	if err == nil || !strings.Contains(err.Error(), "leave direct off") {
		t.Error(err)
	}
	if left := append(namesIn(t, dir), namesIn(t, filepath.Join(c.DataDir, "volumes"))...); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}
