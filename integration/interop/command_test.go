package interop

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

// run runs a client, which must succeed, and returns what it printed to stdout.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, stderr, err := command(t, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, stderr)
	}
	return out
}

func command(t *testing.T, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = t.TempDir() // some leave files where they stand
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// image makes a file of the export's size: random bytes, which end within a
// block, and zeroes, by turns.
func image(t *testing.T) string {
	t.Helper()
	b := make([]byte, exportSize)
	random := rand.NewChaCha8([32]byte{1})
	for off := 0; off < exportSize; off += 3 << 20 {
		_, _ = random.Read(b[off:min(off+1<<20+512, exportSize)])
	}
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	one, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Errorf("%s (%d bytes) and %s (%d bytes) differ", a, len(one), b, len(two))
	}
}
