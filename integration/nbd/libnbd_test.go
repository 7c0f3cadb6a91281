package nbd_test

import (
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

type nbdinfo struct {
	Protocol string
	Exports  []struct {
		Name        string `json:"export-name"`
		Description string
		Size        int64 `json:"export-size"`
		ReadOnly    bool  `json:"is_read_only"`
		Flush       bool  `json:"can_flush"`
		FUA         bool  `json:"can_fua"`
		MultiConn   bool  `json:"can_multi_conn"`
		Trim        bool  `json:"can_trim"`
		Zero        bool  `json:"can_zero"`
		Maximum     int64 `json:"block_size_maximum"`
	}
}

func TestNbdinfo(t *testing.T) {
	overAll(t, "nbdinfo", "libnbd-bin", func(t *testing.T, e export) {
		for _, args := range [][]string{{"--json", e.uri()}, {"--json", "--list", e.uri()}} {
			var info nbdinfo
			out := run(t, "nbdinfo", args...)
			if err := json.Unmarshal([]byte(out), &info); err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
			if info.Protocol != "newstyle-fixed" || len(info.Exports) != 1 {
				t.Fatalf("%v: %s", args, out)
			}
			x := info.Exports[0]
			if x.Name != e.name || x.Size != exportSize || x.ReadOnly || x.Maximum != 32<<20 ||
				!(x.Flush && x.FUA && x.MultiConn && x.Trim && x.Zero) {
				t.Errorf("%v: %+v", args, x)
			}
		}
		bad := e
		bad.name = "nosuch"
		if out, err := command(t, "nbdinfo", bad.uri()); err == nil || !strings.Contains(out, "No such file") {
			t.Errorf("an export that does not exist: %v\n%s", err, out)
		}
	})
}

func TestNbdcopyBothWays(t *testing.T) {
	overAll(t, "nbdcopy", "libnbd-bin", func(t *testing.T, e export) {
		src, back := image(t), filepath.Join(t.TempDir(), "back")
		run(t, "nbdcopy", "--flush", src, e.uri())
		run(t, "nbdcopy", "--flush", e.uri(), back)
		sameFiles(t, src, back)
	})
}

//go:embed testdata/libnbd.py
var libnbdScript string

// Many requests in flight, on several connections, in Python.
func TestPythonLibnbd(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has the binding
	overAll(t, python, "python3", func(t *testing.T, e export) {
		if _, err := command(t, python, "-c", "import nbd"); err != nil {
			harness.Lacking(t, "Python's module nbd is not installed: it is in Debian's package python3-libnbd")
		}
		script := filepath.Join(t.TempDir(), "libnbd.py")
		if err := os.WriteFile(script, []byte(libnbdScript), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Log(run(t, python, script, e.uri()))
	})
}
