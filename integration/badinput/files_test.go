package badinput

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

// A superblock that cannot be read is an error that says so, never a fresh
// start (invariant 10): the volume does not serve, nothing of it is changed,
// and the daemon goes on.
func TestUnreadableSuperblock(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	m := load.NewModel(p.Size)
	loadFor(t, p, m, 200*time.Millisecond)
	p.Kill(p.Beta)
	dir := filepath.Dir(p.Beta.Replica(harness.Volume))
	damaged := damage(t, dir, "superblock")
	before := contents(t, dir)

	p.Start(p.Beta)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	out, err := p.Beta.CLI(ctx, "promote", harness.Volume, "--force")
	if err == nil || !strings.Contains(err.Error()+p.Beta.LogTail(), "superblock") {
		t.Errorf("promote on a damaged superblock is to be refused, and why is to be said; it printed %q, %v", out, err)
	}
	status, err := p.Beta.CLI(ctx, "status")
	if err != nil || !strings.Contains(status, "superblock") {
		t.Errorf("status is to name the superblock; it printed %q, %v", status, err)
	}
	for name, was := range before {
		if now := contents(t, dir)[name]; now != was {
			t.Errorf("the daemon changed %s beside the damaged %s", name, damaged)
		}
	}
	loadFor(t, p, m, 200*time.Millisecond)
	p.Verify(p.Alpha, m)
}

// damage writes zeroes over the file that is called so, below dir.
func damage(t *testing.T, dir, name string) string {
	t.Helper()
	var hit string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			hit = path
		}
		return err
	})
	if err != nil || hit == "" {
		t.Fatalf("there is no %s below %s: %v", name, dir, err)
	}
	info, err := os.Stat(hit)
	if err == nil {
		err = os.WriteFile(hit, make([]byte, info.Size()), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return hit
}

// contents is every file's bytes, below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			all[path] = string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What a daemon cannot start with is one sentence that says what and what to
// do; nothing is overwritten.
func TestPortInUse(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	second, err := daemon.New(daemon.Config{Bin: p.Alpha.Bin, Dir: t.TempDir(), Name: "second", NBD: p.Alpha.NBD, Peer: p.Alpha.Peer})
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, second, p.Alpha.Peer, "in use")
	if !p.Status(p.Alpha).InSync() {
		t.Errorf("the daemon that was there first is disturbed: %+v", p.Status(p.Alpha))
	}
}

func TestDataDirectoryInUse(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	second := &daemon.Node{Config: p.Alpha.Config}
	wantRefusal(t, second, p.Alpha.DataDir(), "another")
	if !p.Status(p.Alpha).InSync() {
		t.Errorf("the daemon that was there first is disturbed: %+v", p.Status(p.Alpha))
	}
}

func wantRefusal(t *testing.T, n *daemon.Node, parts ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), n.Bin, "serve", "--config", n.ConfigFile())
	out, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); !ended {
		t.Errorf("the second daemon ended with %v:\n%s", err, out)
	}
	if lines := strings.Count(strings.TrimSpace(string(out)), "\n") + 1; lines != 1 {
		t.Errorf("%d lines instead of one:\n%s", lines, out)
	}
	for _, part := range parts {
		if !strings.Contains(string(out), part) {
			t.Errorf("it does not name %q:\n%s", part, out)
		}
	}
}

// A disk that is gone: the volume says which, the daemon serves the others, and
// no empty file takes its place.
func TestMissingDisk(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	m := load.NewModel(p.Size)
	loadFor(t, p, m, 200*time.Millisecond)
	p.Kill(p.Beta)
	store := p.Beta.Replica(harness.Volume)
	if err := os.Rename(store, store+".unplugged"); err != nil {
		t.Fatal(err)
	}
	p.Start(p.Beta)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if out, err := p.Beta.CLI(ctx, "status"); err != nil || !strings.Contains(out, store) || !strings.Contains(out, "missing") {
		t.Errorf("status is to name the missing disk; it printed %q, %v", out, err)
	}
	if out, err := p.Beta.CLI(ctx, "promote", harness.Volume, "--force"); err == nil || !strings.Contains(err.Error(), store) {
		t.Errorf("promote without a disk is to be refused; it printed %q, %v", out, err)
	}
	if _, err := os.Stat(store); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was put in the missing disk's place: %v", err)
	}
	p.Kill(p.Beta)
	if err := os.Rename(store+".unplugged", store); err != nil {
		t.Fatal(err)
	}
	p.Start(p.Beta)
	p.VerifyReplicas(m)
}

// A journal on a disk of its own: its node is killed and comes back with it; when
// the disk is gone the volume says so, and nothing takes its place.
func TestJournalOnAnotherDisk(t *testing.T) {
	journals := map[string]string{"alpha": otherDisk(t), "beta": otherDisk(t)}
	p := harness.NewPair(t, harness.Options{PairOptions: daemon.PairOptions{CreateFlags: map[string][]string{
		"alpha": {"--journal", journals["alpha"]}, "beta": {"--journal", journals["beta"]},
	}}})
	m := load.NewModel(p.Size)
	loadFor(t, p, m, 200*time.Millisecond)
	p.Kill(p.Alpha)
	p.MustBeSound(p.Alpha)
	p.Start(p.Alpha)
	p.Await(p.Alpha, "the nodes are connected again", func(s *daemon.Status) bool { return s.Peer("beta").Connection == "Connected" })
	p.CLI(p.Alpha, "promote", harness.Volume)
	p.Verify(p.Alpha, m)
	p.VerifyReplicas(m)

	p.Kill(p.Beta)
	journal := journals["beta"]
	if err := os.Rename(journal, journal+".unplugged"); err != nil {
		t.Fatal(err)
	}
	loadFor(t, p, m, 200*time.Millisecond)
	p.Start(p.Beta)
	if out := p.CLI(p.Beta, "status"); !strings.Contains(out, journal+" is missing") {
		t.Errorf("status is to name the missing journal; it printed %q", out)
	}
	if _, err := os.Stat(journal); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was put in the missing journal's place: %v", err)
	}
	p.Kill(p.Beta)
	if out, err := p.Beta.Check(t.Context()); err == nil || !strings.Contains(out, journal+" is missing") {
		t.Errorf("check is to name the missing journal; it printed %q, %v", out, err)
	}
	if err := os.Rename(journal+".unplugged", journal); err != nil {
		t.Fatal(err)
	}
	p.Start(p.Beta)
	p.VerifyReplicas(m)
	p.Kill(p.Beta)
	p.Start(p.Beta)
	p.CLI(p.Beta, "delete", harness.Volume, "--yes")
	if left, err := os.ReadDir(journal); err != nil || len(left) != 0 {
		t.Errorf("delete left %v in the journal's directory, %v", left, err)
	}
}

// otherDisk is an empty directory, in memory where there is such a place.
func otherDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lockstep-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Unknown words on the command line are refused, never ignored.
func TestUnknownWords(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for _, args := range [][]string{
		{"promot"},
		{"status", "--jsonn"},
		{"status", harness.Volume, "extra", "words"},
		{"create", "new", "--size", "8EiB"},
		{"create", "new", "--size", "9223372036854775807"},
		{"create", "new", "--size", "9223372036854771712"},
		{"create", "new", "--size", "-1"},
		{"create", "../../new", "--size", "1MiB"},
		{"delete", "nosuch", "--yes"},
	} {
		if out, err := p.Alpha.CLI(ctx, args...); err == nil {
			t.Errorf("lockstep %v was taken; it printed %q", args, out)
		} else {
			t.Log(err)
		}
	}
	if s := p.Status(p.Alpha); !s.InSync() {
		t.Errorf("%+v", s)
	}
}
