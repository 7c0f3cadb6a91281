package mirror

import (
	"os"
	"testing"
)

// unraced skips a test in which nothing is concurrent under the race detector, which
// makes it ten times as long. "make plain" runs it, or "make crash" if its name has Crash
// in it.
func unraced(t *testing.T) {
	if underRace {
		t.Skip("nothing in it is concurrent: make plain or make crash runs it")
	}
}

// What these tests are about is not the machine's disk: they make their files in
// memory where that can be had. Under TMPDIR they are where it says.
func TestMain(m *testing.M) {
	const memory = "/dev/shm"
	if os.Getenv("TMPDIR") == "" {
		if dir, err := os.MkdirTemp(memory, "mirror"); err == nil {
			os.Setenv("TMPDIR", dir)
			status := m.Run()
			os.RemoveAll(dir)
			os.Exit(status)
		}
	}
	os.Exit(m.Run())
}
