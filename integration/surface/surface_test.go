package surface

import (
	"bytes"
	"flag"
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the lists anew")

// packages are those that programs of others import.
var packages = []string{"bitmap", "block", "disk", "journal", "mirror", "snapshot", "store"}

// TestExportedSurface: what each package exports is what testdata lists. After a change
// that is meant: go test ./integration/surface -update, and a line in CHANGELOG.md.
func TestExportedSurface(t *testing.T) {
	for _, name := range packages {
		t.Run(name, func(t *testing.T) {
			got, golden := surface(t, filepath.Join("..", "..", name)), filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			gone, added := differ(string(want), got), differ(got, string(want))
			if len(gone)+len(added) > 0 {
				t.Errorf("package %s exports something else than %s says; if that is meant, run this test with -update\nno more:\n%s\nnew:\n%s",
					name, golden, strings.Join(gone, "\n"), strings.Join(added, "\n"))
			}
		})
	}
}

// differ lists the declarations of a that b lacks.
func differ(a, b string) (only []string) {
	have := strings.Split(b, "\n\n")
	for _, d := range strings.Split(a, "\n\n") {
		if !slices.Contains(have, d) {
			only = append(only, d)
		}
	}
	return only
}

// surface prints the exported declarations of the package in dir, as it is on Linux,
// without comments and bodies.
func surface(t *testing.T, dir string) string {
	files, fset := parse(t, dir)
	p, err := doc.NewFromFiles(fset, files, dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	show := func(decl ast.Decl) {
		var b bytes.Buffer
		if err := printer.Fprint(&b, fset, bare(decl)); err != nil {
			t.Fatal(err)
		}
		out = append(out, blank.ReplaceAllString(b.String(), "\n")) // between fields, where comments were
	}
	values := func(vs []*doc.Value) {
		for _, v := range vs {
			show(v.Decl)
		}
	}
	funcs := func(fs []*doc.Func) {
		for _, f := range fs {
			show(f.Decl)
		}
	}
	values(p.Consts)
	values(p.Vars)
	funcs(p.Funcs)
	for _, typ := range p.Types {
		show(typ.Decl)
		values(typ.Consts)
		values(typ.Vars)
		funcs(typ.Funcs)
		funcs(typ.Methods)
	}
	if len(out) == 0 {
		t.Fatalf("%s exports nothing", dir)
	}
	return strings.Join(out, "\n\n") + "\n"
}

var blank = regexp.MustCompile(`\n\s*\n`)

// parse reads the files that belong to the package on Linux.
func parse(t *testing.T, dir string) ([]*ast.File, *token.FileSet) {
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH = "linux", "amd64"
	pkg, err := ctx.ImportDir(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files, fset
}

// bare leaves a function's body out.
func bare(decl ast.Decl) ast.Decl {
	if f, ok := decl.(*ast.FuncDecl); ok {
		return &ast.FuncDecl{Recv: f.Recv, Name: f.Name, Type: f.Type}
	}
	return decl
}
