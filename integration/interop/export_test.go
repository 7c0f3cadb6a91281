package interop

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd"
)

// exportSize is the size of every export, bytes.
const exportSize = 64 << 20

// An export is where a client finds one: writable, and the only one there.
type export struct {
	network string // "tcp" or "unix"
	addr    string
	name    string
	keys    string // the directory of the client's keys; with it addr is spoken to over TLS
}

// uri is how libnbd, qemu and fio write it.
func (e export) uri() string {
	if e.network == "unix" {
		return "nbd+unix:///" + e.name + "?socket=" + url.QueryEscape(e.addr)
	}
	if e.keys != "" {
		return "nbds://" + e.addr + "/" + e.name + "?tls-certificates=" + url.QueryEscape(e.keys)
	}
	return "nbd://" + e.addr + "/" + e.name
}

// serveMemory makes a fresh export of a device in memory.
func serveMemory(t *testing.T, network, addr string) export {
	t.Helper()
	return serve(t, network, addr, memory.Sized(exportSize))
}

// serve exports a device, as long as the test lasts; after it the server must
// have nothing left.
func serve(t *testing.T, network, addr string, dev block.Device) export {
	t.Helper()
	var exports target.Exports
	e := target.Export{Name: "disk", Description: "a disk in memory", Device: dev}
	if err := exports.Add(e); err != nil {
		t.Fatal(err)
	}
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
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if st := srv.Stats(); st != (nbd.Stats{}) {
			t.Errorf("the server still has %+v", st)
		}
	})
	return export{network: network, addr: l.Addr().String(), name: "disk"}
}

// socketPath is a path short enough for a unix socket, which t.TempDir's may
// not be.
func socketPath(t *testing.T) string {
	dir, err := os.MkdirTemp("", "lockstep-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "nbd.sock")
}
