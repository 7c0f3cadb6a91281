package mirror

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unraced skips a test in which nothing is concurrent under the race detector, which
// makes it ten times as long. "make plain" runs it, or "make crash" if its name has Crash
// in it; TestUnracedTestsAreRun holds them to that.
func unraced(t *testing.T) {
	if underRace {
		t.Skip("nothing in it is concurrent: make plain or make crash runs it")
	}
}

// TestUnracedTestsAreRun: what the race detector's run skips is run all the same.
func TestUnracedTestsAreRun(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile(`(?m)^plain:.*\n.*-run '([^']+)'`).FindSubmatch(makefile)
	if plain == nil {
		t.Fatal("the Makefile does not say what make plain runs")
	}
	run := regexp.MustCompile(string(plain[1]) + "|Crash")
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	skips := 0
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Test") {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "unraced" {
					skips++
					if !run.MatchString(fn.Name.Name) {
						t.Errorf("%s: neither make plain nor make crash runs %s", name, fn.Name.Name)
					}
				}
				return true
			})
		}
	}
	if skips == 0 {
		t.Error("no test is unraced: look for them in another way")
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
