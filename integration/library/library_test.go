package library

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFreshModule: a program outside the tree that uses the library compiles, runs, and
// has nothing of the daemon in it.
func TestFreshModule(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := os.ReadFile("testdata/main.go")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/lockstep-storage/lockstep"
	for name, text := range map[string]string{
		"main.go": string(program),
		"go.sum":  string(sums),
		"go.mod":  "module example.org/program\n\ngo 1.26.0\n\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + root + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("go", "build", "-o", "program", ".")
	if got, want := run("./program", t.TempDir()), "was \"\"\nwas \"first\"\n"; got != want {
		t.Errorf("the program printed %q, %q is wanted", got, want)
	}
	for _, p := range strings.Fields(run("go", "list", "-deps", ".")) {
		if !strings.Contains(strings.Split(p, "/")[0], ".") {
			continue // the standard library
		}
		for _, foreign := range []string{"/node", "/target", "/cmd", "urfave", "gotgt", "go-nbd", "yaml"} {
			if strings.Contains(p, foreign) {
				t.Errorf("the program has %s in it", p)
			}
		}
	}
}
