package nbd_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd"
)

// exportSize is the size of every export that the tests run against.
const exportSize = 64 << 20

// An export is where a client finds one: writable, exportSize bytes, and its
// server's default.
type export struct {
	network string // "tcp" or "unix"
	addr    string
	name    string
}

// uri is how libnbd, qemu and fio write it.
func (e export) uri() string {
	if e.network == "unix" {
		return "nbd+unix:///" + e.name + "?socket=" + url.QueryEscape(e.addr)
	}
	return "nbd://" + e.addr + "/" + e.name
}

// backends are what the tests run against. serve makes a fresh export that
// lives as long as the test.
var backends = []struct {
	name  string
	serve func(t *testing.T) export
}{
	{"memory/tcp", func(t *testing.T) export { return serveMemory(t, "tcp", "127.0.0.1:0") }},
	{"memory/unix", func(t *testing.T) export {
		return serveMemory(t, "unix", filepath.Join(t.TempDir(), "nbd.sock"))
	}},
}

// overAll runs a test against every backend, if the client's program is there.
func overAll(t *testing.T, program, debianPackage string, test func(t *testing.T, e export)) {
	if _, err := exec.LookPath(program); err != nil {
		harness.Lacking(t, fmt.Sprintf("%s is not installed: it is in Debian's package %s", program, debianPackage))
	}
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { test(t, b.serve(t)) })
	}
}

func serveMemory(t *testing.T, network, addr string) export {
	t.Helper()
	var exports target.Exports
	e := target.Export{Name: "disk", Description: "a disk in memory", Device: memory.Sized(exportSize)}
	if err := exports.Add(e); err != nil {
		t.Fatal(err)
	}
	exports.SetDefault("disk")
	srv, err := nbd.NewServer(&exports, nbd.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if st := srv.Stats(); st != (nbd.Stats{}) {
			t.Errorf("the server still has %+v", st)
		}
	})
	return export{network, l.Addr().String(), "disk"}
}

// run runs a client, which must succeed, and gives what it printed.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := command(t, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

func command(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// image is a file of exportSize bytes with data, zeroes and data again.
func image(t *testing.T) string {
	t.Helper()
	b := make([]byte, exportSize)
	for i := range b {
		if part := i / (exportSize / 4); part != 1 {
			b[i] = byte(i) ^ byte(i>>9) ^ byte(part)
		}
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
