package powercut

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// The guest's disks, bytes, as the cutter wants them. Their files are sparse.
var disks = []int64{384 << 20, 4 << 30, 384 << 20, 384 << 20}

// TestPowerCuts cuts the power under ext4 and under xfs: no flushed write is
// lost, what is left is a prefix, and a restart needs no help (P1, P2).
func TestPowerCuts(t *testing.T) {
	if os.Getenv("LOCKSTEP_LAB") != "1" {
		t.Skip("the kernel lab downloads a guest: make lab runs this test")
	}
	harness.NeedRoot(t)
	harness.NeedTools(t, "mke2fs", "xz", "dpkg-deb", "gcc")
	lab, err := filepath.Abs("../lab")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(lab, "build")).CombinedOutput(); err != nil {
		t.Fatalf("the guest could not be built: %v\n%s", err, out)
	}
	seed, cuts := harness.Seed(t), 8
	if s := os.Getenv("LOCKSTEP_CUTS"); s != "" {
		if cuts, err = strconv.Atoi(s); err != nil || cuts < 1 {
			t.Fatalf("LOCKSTEP_CUTS=%s is no number of power cuts", s)
		}
	}
	dir := t.TempDir()
	cutter := filepath.Join(dir, "cutter")
	build := exec.Command("go", "build", "-o", cutter, "./cutter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the cutter: %v\n%s", err, out)
	}
	// The guest has no C library of ours: the daemon must be the static one.
	lockstep := filepath.Join(dir, "lockstep")
	if err := os.Link(harness.Binary(t), lockstep); err != nil {
		t.Fatal(err)
	}
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			args := []string{"--net", "none", "--timeout", "900", "--mem", "768"}
			for i, size := range disks {
				path := filepath.Join(t.TempDir(), strconv.Itoa(i))
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--disk", path)
			}
			args = append(args, "--", cutter, "-fs", fs, "-bin", lockstep, "-cuts", strconv.Itoa(cuts), "-seed", strconv.FormatUint(seed, 10))
			cmd := exec.Command(filepath.Join(lab, "vm-run"), args...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("\n%s", out)
		})
	}
}
