package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

// What sparse writes: data in these MiB, and zeroes, which may be a hole, in a
// part of the second.
var (
	sparseData = []span{{0, 1}, {8, 2}, {40, 1}}
	sparseHole = span{9, 1}
)

// A span is a range in MiB.
type span struct{ off, n int64 }

// sparse empties the export, writes here and there, and has the clients say where
// data is: no byte of it may be called a hole, and what was emptied long ago is
// one.
func sparse(t *testing.T, e export) {
	harness.NeedTools(t, "nbdinfo", "qemu-io")
	args := []string{"-f", "raw", "--discard=unmap", "-c", fmt.Sprintf("discard 0 %d", exportSize)}
	for _, s := range sparseData {
		args = append(args, "-c", fmt.Sprintf("write -P 0x5a %dM %dM", s.off, s.n))
	}
	args = append(args, "-c", fmt.Sprintf("write -z -u %dM %dM", sparseHole.off, sparseHole.n), "-c", "flush")
	run(t, "qemu-io", append(args, e.uri())...)

	checkMap(t, "nbdinfo --map", nbdinfoMap(t, e))
	checkMap(t, "qemu-img map", qemuImgMap(t, e))

	out := run(t, "nbdinfo", "--list", e.uri())
	if !strings.Contains(out, "base:allocation") || !strings.Contains(out, "structured packets") {
		t.Errorf("nbdinfo --list says nothing of base:allocation or of structured replies:\n%s", out)
	}

	// A copy is as sparse.
	back := filepath.Join(t.TempDir(), "back")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", e.uri(), back)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", back, e.uri())
	var st syscall.Stat_t
	if err := syscall.Stat(back, &st); err != nil {
		t.Fatal(err)
	}
	if got := st.Blocks * 512; got > 8<<20 {
		t.Errorf("the copy that qemu-img made of 3 MiB in %d takes %d bytes", exportSize, got)
	}
	os.Remove(back)
}

// A mapped range, and whether it is a hole.
type mapped struct {
	off, n int64
	hole   bool
}

func nbdinfoMap(t *testing.T, e export) (m []mapped) {
	t.Helper()
	var ranges []struct {
		Offset, Length int64
		Type           int
	}
	out := run(t, "nbdinfo", "--map", "--json", e.uri())
	if err := json.Unmarshal([]byte(out), &ranges); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, r := range ranges {
		m = append(m, mapped{r.Offset, r.Length, r.Type == 3})
	}
	return m
}

func qemuImgMap(t *testing.T, e export) (m []mapped) {
	t.Helper()
	var ranges []struct {
		Start, Length int64
		Zero, Data    bool
	}
	out := run(t, "qemu-img", "map", "--output=json", "-f", "raw", e.uri())
	if err := json.Unmarshal([]byte(out), &ranges); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, r := range ranges {
		m = append(m, mapped{r.Start, r.Length, r.Zero && !r.Data})
	}
	return m
}

func checkMap(t *testing.T, who string, m []mapped) {
	t.Helper()
	holes := make([]int64, exportSize>>20) // bytes of each MiB that are one
	at := int64(0)
	for _, r := range m {
		if r.off != at {
			t.Fatalf("%s: %+v follows %d", who, r, at)
		}
		for at += r.n; r.hole && r.off < at; {
			next := min(r.off&^(1<<20-1)+1<<20, at)
			holes[r.off>>20] += next - r.off
			r.off = next
		}
	}
	if at != exportSize {
		t.Fatalf("%s ends at %d", who, at)
	}
	for i, got := range holes {
		want := int64(1 << 20)
		for _, s := range sparseData {
			if int64(i) >= s.off && int64(i) < s.off+s.n && int64(i) != sparseHole.off {
				want = 0
			}
		}
		if got != want {
			t.Errorf("%s: of MiB %d %d bytes are holes, want %d", who, i, got, want)
		}
	}
}

// nbdcopy from one server to another leaves holes where they were, on several
// connections.
func TestCopyKeepsHoles(t *testing.T) {
	harness.NeedTools(t, "nbdcopy", "nbdinfo", "qemu-io", "qemu-img")
	from, to := serveMemory(t, "unix", socketPath(t)), serveMemory(t, "unix", socketPath(t))
	sparse(t, from)
	run(t, "nbdcopy", "--connections=4", "--flush", from.uri(), to.uri())
	checkMap(t, "nbdinfo --map of the copy", nbdinfoMap(t, to))
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", from.uri(), to.uri())
}
