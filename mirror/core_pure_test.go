package mirror

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pureFiles are those in which everything is decided by what it is told: the core, and
// what it calls.
var pureFiles = []string{"core*.go", "members.go", "lag.go", "transitions.go", "compare.go", "compare_reason.go", "history.go", "states.go"}

// pureImports have no side effects, but for what impureNames are.
var pureImports = []string{"cmp", "errors", "fmt", "slices", "strings", "time", "math"}

// impureNames of package time know what time it is, or wait.
var impureNames = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Print", "Printf", "Println", "Fprint", "Fprintf", "Fprintln"}

func isPure(file string) bool {
	return slices.ContainsFunc(pureFiles, func(p string) bool {
		ok, _ := filepath.Match(p, filepath.Base(file))
		return ok
	})
}

// emptyPackages stands for all imports: what is asked of them is not looked at here.
type emptyPackages struct{}

func (emptyPackages) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, path[strings.LastIndexByte(path, '/')+1:])
	p.MarkComplete()
	return p, nil
}

// impurities are what a package has in its pure files that decides by anything but
// what it is told.
func impurities(t *testing.T, fset *token.FileSet, files []*ast.File) (found []string) {
	t.Helper()
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: emptyPackages{}, Error: func(error) {}}
	pkg, _ := conf.Check("mirror", fset, files, &info) // what comes from the imports is unknown
	bad := func(n ast.Node, what string) {
		found = append(found, filepath.Base(fset.Position(n.Pos()).String())+": "+what)
	}
	for _, f := range files {
		if !isPure(fset.Position(f.Pos()).Filename) {
			continue
		}
		for _, i := range f.Imports {
			if path := strings.Trim(i.Path.Value, `"`); !slices.Contains(pureImports, path) {
				bad(i, "imports "+path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				bad(n, "starts a goroutine")
			case *ast.ChanType, *ast.SendStmt, *ast.SelectStmt:
				bad(n, "uses a channel")
			case *ast.RangeStmt:
				if x := info.Types[n.X].Type; x != nil {
					if _, ok := x.Underlying().(*types.Map); ok {
						bad(n, "goes through a map, whose order is none")
					}
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok {
					if _, ok := info.Uses[x].(*types.PkgName); ok && slices.Contains(impureNames, n.Sel.Name) {
						bad(n, "uses "+x.Name+"."+n.Sel.Name)
					}
				}
			case *ast.Ident:
				// What is ours has to be data, or to be of a pure file as well.
				obj := info.Uses[n]
				if obj == nil || obj.Pkg() != pkg || isPure(fset.Position(obj.Pos()).Filename) {
					break
				}
				switch obj := obj.(type) {
				case *types.Func:
					if !slices.Contains(pureFuncs, obj.Name()) {
						bad(n, "calls "+obj.FullName()+" of "+filepath.Base(fset.Position(obj.Pos()).Filename))
					}
				case *types.Var:
					if !obj.IsField() && obj.Parent() == pkg.Scope() && !strings.HasPrefix(obj.Name(), "Err") {
						bad(n, "uses the variable "+obj.Name())
					}
				}
			}
			return true
		})
	}
	return found
}

// pureFuncs are called by the core and stand in files that are not pure as a whole.
var pureFuncs = []string{"String", "IsZero", "Tag"}

// TestCoreIsPure: nothing that decides looks at a clock, does I/O, waits, is concurrent,
// draws a random number or depends on a map's order, nor does anything that it calls.
func TestCoreIsPure(t *testing.T) {
	fset := token.NewFileSet()
	var files []*ast.File
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	pure := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		if isPure(name) {
			pure++
		}
	}
	if pure < 5 {
		t.Fatalf("%d pure files were found", pure)
	}
	for _, what := range impurities(t, fset, files) {
		t.Error(what)
	}
}

// TestImpurityIsFound: each of the things is.
func TestImpurityIsFound(t *testing.T) {
	for _, c := range []struct{ code, want string }{
		{`import "os"; var _ = os.Args`, "imports os"},
		{`import "time"; func f() time.Time { return time.Now() }`, "uses time.Now"},
		{`func f() { go f() }`, "starts a goroutine"},
		{`func f(c chan int) {}`, "uses a channel"},
		{`func f(m map[int]int) { for range m {} }`, "goes through a map, whose order is none"},
		{`func f() { other() }`, "calls mirror.other of volume.go"},
		{`func f(v *V) { v.method() }`, "calls (*mirror.V).method of volume.go"},
		{`func f() int { return state }`, "uses the variable state"},
	} {
		fset := token.NewFileSet()
		var files []*ast.File
		for name, code := range map[string]string{"core_x.go": c.code, "volume.go": "type V struct{ field int }; var state int; func other() {}; func (v *V) method() {}"} {
			f, err := parser.ParseFile(fset, name, "package mirror; "+code, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		found := impurities(t, fset, files)
		if len(found) != 1 || !strings.HasSuffix(found[0], c.want) {
			t.Errorf("%s: found %q, want %q", c.code, found, c.want)
		}
	}
}
