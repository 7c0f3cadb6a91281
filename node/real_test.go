package node

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/target/nbd/nbdclient"
)

// These tests run the daemon with everything real: package mirror's volumes,
// files, sockets, an NBD client.

func startReal(t *testing.T, c Config) (*Node, *Client) {
	t.Helper()
	n, err := Start(Options{Config: c, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopNode(t, n) })
	cl := NewClient(c.Admin)
	t.Cleanup(cl.Close)
	return n, cl
}

func makeReal(t *testing.T, cl *Client, name string, peers ...Peer) {
	t.Helper()
	st, err := cl.Create(t.Context(), CreateRequest{Name: name, Size: 8 << 20, JournalSize: 64 << 20, Peers: peers})
	if err != nil || st.Problem != "" {
		t.Fatal(st.Problem, err)
	}
}

func attach(t *testing.T, n *Node, name string) *nbdclient.Client {
	t.Helper()
	c, err := nbdclient.Dial(t.Context(), "tcp", n.Status().NBD[0].Addr, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serving waits until the volume serves.
func serving(t *testing.T, cl *Client, name string) {
	t.Helper()
	if _, err := cl.Promote(t.Context(), name, PromoteRequest{}); err != nil {
		t.Fatal(err)
	}
}

func TestRealVolumeOutlivesItsDaemon(t *testing.T) {
	c := testConfig(t)
	n, cl := startReal(t, c)
	makeReal(t, cl, "data")
	serving(t, cl, "data")
	written := bytes.Repeat([]byte("lockstep"), 1<<13)
	nbd := attach(t, n, "data")
	if _, err := nbd.WriteAt(written, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := nbd.Flush(); err != nil {
		t.Fatal(err)
	}
	stopNode(t, n) // with the client attached
	nbd.Close()

	n, cl = startReal(t, c)
	serving(t, cl, "data")
	nbd = attach(t, n, "data")
	defer nbd.Close()
	got := make([]byte, len(written))
	if _, err := nbd.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, written) {
		t.Errorf("%v, equal: %v", err, bytes.Equal(got, written))
	}
}

func TestRealTwoNodesMirror(t *testing.T) {
	a, b := testConfig(t), testConfig(t)
	a.Nodes, b.Node = nil, "beta"
	na, ca := startReal(t, a)
	b.Nodes = map[string]string{"alpha": na.Status().Peer.Addr}
	nb, cb := startReal(t, b)
	makeReal(t, ca, "data", Peer{"beta", nb.Status().Peer.Addr})
	makeReal(t, cb, "data", Peer{Name: "alpha"})
	connected := func(st *mirror.Status) bool { return st.Peers[0].Connection == mirror.Connected }
	awaitVolume(t, ca, connected)
	serving(t, ca, "data")
	awaitVolume(t, ca, func(st *mirror.Status) bool { return st.Peers[0].Member })

	// A Secondary lists nothing and is not to be attached to.
	if list, err := nbdclient.List(t.Context(), "tcp", nb.Status().NBD[0].Addr); err != nil || len(list) != 0 {
		t.Errorf("the Secondary lists %v, %v", list, err)
	}
	if _, err := nbdclient.Dial(t.Context(), "tcp", nb.Status().NBD[0].Addr, "data"); err == nil {
		t.Error("the Secondary let a client attach")
	}
	nbd := attach(t, na, "data")
	defer nbd.Close()
	if _, err := nbd.Write([]byte(strings.Repeat("x", 4096)), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := nbd.Flush(); err != nil {
		t.Fatal(err)
	}
	_, err := cb.Promote(t.Context(), "data", PromoteRequest{})
	wantError(t, err, CodeRefused, "is Primary")
	if _, err := ca.Demote(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	awaitVolume(t, cb, connected)
	serving(t, cb, "data")
	there := attach(t, nb, "data")
	defer there.Close()
	got := make([]byte, 4096)
	if _, err := there.ReadAt(got, 0); err != nil || got[0] != 'x' || got[4095] != 'x' {
		t.Errorf("on the other node: %.8q, %v", got, err)
	}
}

func awaitVolume(t *testing.T, cl *Client, cond func(*mirror.Status) bool) {
	t.Helper()
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		v, err := cl.Volume(t.Context(), "data")
		if err != nil || v.Status == nil {
			t.Fatal(v.Problem, err)
		}
		if cond(v.Status) {
			return
		}
	}
}

// TestInvariant10RealSuperblockDamaged: flipped bytes in the superblock are an
// error that says so, and no file of the volume changes.
func TestInvariant10RealSuperblockDamaged(t *testing.T) {
	c := testConfig(t)
	n, cl := startReal(t, c)
	makeReal(t, cl, "data")
	serving(t, cl, "data")
	stopNode(t, n)
	path := filepath.Join(c.DataDir, "volumes", "data", "superblock")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		text[i] ^= 0x55
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, filepath.Dir(path))
	n, cl = startReal(t, c)
	v, err := cl.Volume(t.Context(), "data")
	if err != nil || !strings.Contains(v.Problem, "superblock") || !strings.Contains(v.Problem, "Nothing on disk was overwritten") {
		t.Errorf("%q, %v", v.Problem, err)
	}
	stopNode(t, n)
	for name, content := range snapshot(t, filepath.Dir(path)) {
		if before[name] != content {
			t.Errorf("%s was changed", name)
		}
		delete(before, name)
	}
	if len(before) > 0 {
		t.Errorf("files are gone: %v", keysOf(before))
	}
}

// snapshot reads every file below dir.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			text, readErr := os.ReadFile(path)
			files[path], err = string(text), readErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestRealCreateIsWholeOrNothing: a process that dies at any step of a create
// leaves a directory that the next start removes.
func TestRealCreateIsWholeOrNothing(t *testing.T) {
	c := testConfig(t)
	n, cl := startReal(t, c)
	makeReal(t, cl, "data")
	// Without peers it becomes Primary by itself, in a moment.
	if _, err := cl.Promote(t.Context(), "data", PromoteRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := cl.Delete(context.Background(), "data"); err == nil {
		t.Error("a Primary was deleted")
	}
	stopNode(t, n)
	volumes := filepath.Join(c.DataDir, "volumes")
	if err := os.Rename(filepath.Join(volumes, "data"), filepath.Join(volumes, ".data.creating")); err != nil {
		t.Fatal(err)
	}
	_, cl = startReal(t, c)
	st, err := cl.Status(t.Context())
	if err != nil || len(st.Volumes) != 0 {
		t.Errorf("%+v, %v", st.Volumes, err)
	}
	makeReal(t, cl, "data")
}
