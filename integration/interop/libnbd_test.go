package interop

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

// exported is what nbdinfo says of an export.
type exported struct {
	Name      string `json:"export-name"`
	Size      int64  `json:"export-size"`
	ReadOnly  bool   `json:"is_read_only"`
	Flush     bool   `json:"can_flush"`
	FUA       bool   `json:"can_fua"`
	MultiConn bool   `json:"can_multi_conn"`
	Trim      bool   `json:"can_trim"`
	Zero      bool   `json:"can_zero"`
	FastZero  bool   `json:"can_fast_zero"`
	Cache     bool   `json:"can_cache"`
	DF        bool   `json:"can_df"`
}

func nbdinfo(t *testing.T, e export) {
	want := exported{Name: e.name, Size: exportSize, Flush: true, FUA: true, MultiConn: true, Trim: true, Zero: true, FastZero: true, Cache: true, DF: true}
	for _, args := range [][]string{{"--json", e.uri()}, {"--json", "--list", e.uri()}} {
		var info struct {
			Protocol string
			Exports  []exported
		}
		out := run(t, "nbdinfo", args...)
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		if info.Protocol != "newstyle-fixed" || len(info.Exports) != 1 || info.Exports[0] != want {
			t.Errorf("%v: %+v, want %+v", args, info, want)
		}
	}
	bad := e
	bad.name = "nosuch"
	if out, stderr, err := command(t, "nbdinfo", bad.uri()); err == nil || !strings.Contains(stderr, "No such file") {
		t.Errorf("an export that does not exist: %v\n%s%s", err, out, stderr)
	}
}

func nbdcopy(t *testing.T, e export) {
	src, back := image(t), filepath.Join(t.TempDir(), "back")
	run(t, "nbdcopy", "--flush", src, e.uri())
	run(t, "nbdcopy", "--flush", e.uri(), back)
	sameFiles(t, src, back)
}

const python = "/usr/bin/python3" // Debian's, which has the binding

func libnbd(t *testing.T, e export) { runLibnbd(t, e, "testdata/libnbd.py") }

// runLibnbd runs a Python script on an export.
func runLibnbd(t *testing.T, e export, name string) {
	t.Helper()
	if _, _, err := command(t, python, "-c", "import nbd"); err != nil {
		harness.Lacking(t, "Python's module nbd is not installed here (scripts/install-tools test installs it)")
	}
	script, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(run(t, python, script, e.uri()))
}
