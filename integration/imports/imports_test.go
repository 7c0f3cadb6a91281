package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lockstep-storage/lockstep"

// rooms says, for each folder with everything below it, which other rooms its
// code (not its tests) may import. A package belongs to the room with the
// longest matching name. A room that is in nobody's list is imported by nobody.
var rooms = map[string][]string{
	"block":             {},
	"disk":              {},
	"disk/fakedisk":     {"disk"},
	"disk/crashtest":    {"disk/fakedisk"},
	"journal":           {"block", "disk"},
	"bitmap":            {"block", "disk"},
	"snapshot":          {"disk"},
	"store":             {"block", "disk"},
	"mirror":            {"block", "disk", "journal", "bitmap", "snapshot", "store"},
	"target":            {"block"},
	"target/nbd":        {"block", "target"},
	"target/iscsi":      {"block", "target", "target/iscsi/scsi"},
	"target/iscsi/scsi": {"block"},
	"node":              {"block", "disk", "store", "mirror", "target", "target/nbd"},
	"cmd/lockstep":      {"node", "mirror"},

	// What stands outside the product: it may look at all of it.
	"benchmarks":  {"block", "disk", "journal", "bitmap", "snapshot", "store", "mirror", "target", "target/nbd", "node", "integration"},
	"integration": {"block", "disk", "journal", "bitmap", "snapshot", "store", "mirror", "target", "target/nbd", "target/iscsi", "node"},
	// It is the whole world that a volume lives in, disks included.
	"integration/sim": {"block", "disk", "disk/fakedisk", "journal", "store", "mirror"},
}

// outside are the rooms whose use of a third-party module does not count as
// that module's one importer.
var outside = []string{"benchmarks", "integration"}

// neverInDaemon are modules that have adapters, tests or benchmarks here, and
// must not reach the daemon (dependencies: they are not safe against a network).
var neverInDaemon = []string{"github.com/pojntfx/go-nbd", "github.com/gostor/gotgt"}

// sharedModules may be imported by several packages: the kernel's interface.
var sharedModules = []string{"golang.org/x/sys"}

type listed struct {
	ImportPath string
	Dir        string
	Name       string
	Standard   bool
	Module     *struct{ Path string }
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
}

// room returns the room of one of the module's packages, "" if it has none.
func (p *listed) room() string { return roomOf(p.ImportPath) }

func roomOf(importPath string) string {
	rel, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	for r := rel; r != "."; r = filepath.Dir(r) {
		if _, ok := rooms[r]; ok {
			return r
		}
	}
	return ""
}

func (p *listed) ours() bool { return p.Module != nil && p.Module.Path == module }

// goList runs go list -json in the module's root.
func goList(t *testing.T, args ...string) map[string]*listed {
	t.Helper()
	readSources(t)
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Name,Standard,Module,GoFiles,CgoFiles,Imports"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	pkgs := map[string]*listed{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(listed)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs[p.ImportPath] = p
	}
}

// readSources looks at every folder of the module. What go list reads, go test
// does not see: without this it would give a cached pass after a change.
func readSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin"):
			return fs.SkipDir
		case filepath.Ext(path) == ".go" || d.Name() == "go.mod":
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportsRunDownwards(t *testing.T) {
	for path, p := range goList(t, "./...") {
		room := p.room()
		if room == "" {
			t.Errorf("%s is in no room; add it to docs/architecture.md section 3 and to this test", path)
			continue
		}
		for _, imp := range p.Imports {
			below := roomOf(imp)
			if below == "" || below == room || slices.Contains(rooms[room], below) {
				continue
			}
			t.Errorf("%s imports %s: %s may import only %v", path, imp, room, rooms[room])
		}
	}
}

// The rules hold for what is imported indirectly because they are themselves
// closed downwards; this holds the two that matter most against the real graph.
func TestMirrorAndTargetDoNotMeet(t *testing.T) {
	for _, apart := range [][2]string{{"mirror", "target"}, {"target", "mirror"}, {"journal", "bitmap"}, {"bitmap", "journal"}} {
		for path := range goList(t, "-deps", "./"+apart[0]+"/...") {
			if room := roomOf(path); room == apart[1] || strings.HasPrefix(room, apart[1]+"/") ||
				room == "node" || room == "cmd/lockstep" {
				t.Errorf("%s depends on %s", apart[0], path)
			}
		}
	}
}

func TestEachThirdPartyModuleHasOneImporter(t *testing.T) {
	all := goList(t, "-deps", "./...")
	importers := map[string][]string{}
	for path, p := range all {
		if !p.ours() || slices.Contains(outside, strings.SplitN(p.room(), "/", 2)[0]) {
			continue
		}
		for _, imp := range p.Imports {
			dep := all[imp]
			if dep == nil || dep.Standard || dep.Module == nil || dep.ours() ||
				slices.Contains(sharedModules, dep.Module.Path) ||
				slices.Contains(importers[dep.Module.Path], path) {
				continue
			}
			importers[dep.Module.Path] = append(importers[dep.Module.Path], path)
		}
	}
	for mod, by := range importers {
		if len(by) > 1 {
			slices.Sort(by)
			t.Errorf("module %s is imported by %d packages, want 1: %s", mod, len(by), strings.Join(by, ", "))
		}
	}
}

func TestDaemonLeavesOutWhatIsNotSafe(t *testing.T) {
	for path, p := range goList(t, "-deps", "./cmd/lockstep") {
		if p.Module != nil && slices.Contains(neverInDaemon, p.Module.Path) {
			t.Errorf("the daemon depends on %s", path)
		}
		if len(p.CgoFiles) > 0 {
			t.Errorf("the daemon is to be static, but %s uses cgo", path)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for path, p := range goList(t, "./...") {
		if p.Name == "main" || len(p.GoFiles) == 0 {
			continue
		}
		doc := filepath.Join(p.Dir, "doc.go")
		f, err := parser.ParseFile(token.NewFileSet(), doc, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if text := f.Doc.Text(); !strings.HasPrefix(text, "Package "+p.Name+" ") {
			t.Errorf("%s: doc.go does not begin with a comment 'Package %s ...'", path, p.Name)
		}
	}
}
