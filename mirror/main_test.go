package mirror

import (
	"os"
	"testing"
)

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
