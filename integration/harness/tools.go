package harness

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/daemon"
)

// NeedTools skips the test, or fails it where tools are required, unless all
// programs are installed.
func NeedTools(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Lacking(t, p+" is not installed here (scripts/install-tools test installs it)")
		}
	}
}

// NeedRoot does the same unless the test runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacking(t, "this test needs root, for network namespaces")
	}
}

// Lacking skips the test for a reason that lies in the machine, or fails it
// where tools are required.
func Lacking(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("LOCKSTEP_REQUIRE_TOOLS") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Seed is the seed of a random test: LOCKSTEP_SEED, or drawn. It is printed
// with the command that repeats the test.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("LOCKSTEP_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("LOCKSTEP_SEED=%s is no seed: %v", s, err)
		}
	}
	t.Logf("seed %d; to repeat: LOCKSTEP_SEED=%d go test -run '^%s$' .", seed, seed, t.Name())
	return seed
}

// Rounds is how often a test repeats itself: LOCKSTEP_ROUNDS, or few.
func Rounds(t testing.TB, few int) int {
	t.Helper()
	s := os.Getenv("LOCKSTEP_ROUNDS")
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("LOCKSTEP_ROUNDS=%s is no number of rounds", s)
	}
	return n
}

var built struct {
	sync.Once
	dir, bin string
	err      error
}

// Main is what a package's TestMain exits with: it runs the tests and removes
// the binary that they built.
func Main(m *testing.M) int {
	if raceEnabled {
		// Every process would sleep for a second at its end.
		os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	return code
}

// Binary is the daemon's path, built once per test process, under the race
// detector if the test itself is. The package's TestMain must use Main.
func Binary(t testing.TB) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "lockstep-bin-"); built.err == nil {
			built.bin, built.err = daemon.Build(moduleRoot, built.dir, raceEnabled)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.bin
}

// moduleRoot, seen from every integration test's folder.
var moduleRoot = filepath.Join("..", "..")
