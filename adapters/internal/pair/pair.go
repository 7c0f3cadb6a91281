// Package pair makes a mirrored volume for the tests of the adapters: a Primary and a
// Secondary in one process, as a program would that embeds both.
package pair

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/store"
)

// A Pair is both replicas; the Primary is in sync with the Secondary.
type Pair struct {
	Primary, Secondary *mirror.Volume
}

// New makes a volume of size bytes in the test's directory.
func New(t *testing.T, size int64) *Pair {
	ctx := context.Background()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Pair{
		Primary:   open(t, size, mirror.Options{Node: "alpha", Peers: []string{"beta"}, Dialer: dialer(l.Addr().String())}),
		Secondary: open(t, size, mirror.Options{Node: "beta", Peers: []string{"alpha"}, Dialer: dialer("")}),
	}
	t.Cleanup(func() {
		l.Close()
		p.Primary.Close(ctx)
		p.Secondary.Close(ctx)
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if pre, version, err := mirror.ReadPreamble(conn); err == nil {
				p.Secondary.Accept(conn, pre, version)
			}
		}
	}()
	if err := p.Primary.Promote(ctx, mirror.PromoteOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	p.await(t)
	return p
}

// await returns once both are in sync.
func (p *Pair) await(t *testing.T) {
	for end := time.Now().Add(time.Minute); len(p.Primary.Status().InSync) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the replicas did not meet in a minute: %+v", p.Primary.Status())
		}
	}
}

func open(t *testing.T, size int64, o mirror.Options) *mirror.Volume {
	dir := t.TempDir()
	fsys, err := disk.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Volume = "data"
	if err := mirror.Create(fsys, mirror.CreateOptions{Node: o.Node, Volume: o.Volume, Size: size, JournalSize: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bytes")
	if err := store.CreateFile(file, size, store.FileOptions{}); err != nil {
		t.Fatal(err)
	}
	bytes, err := store.OpenFile(file, store.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o.FS, o.Store = fsys, bytes
	v, err := mirror.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// dialer reaches the one peer that there is.
type dialer string

// Dial implements mirror.Dialer.
func (d dialer) Dial(ctx context.Context, _ string) (net.Conn, error) {
	var n net.Dialer
	return n.DialContext(ctx, "tcp", string(d))
}

// Image reads the bytes of the Secondary once it is Primary: what was flushed on the
// other is there.
func (p *Pair) Image(t *testing.T) []byte {
	ctx := context.Background()
	if err := p.Primary.Demote(ctx); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // until they have met again
		err := p.Secondary.Promote(ctx, mirror.PromoteOptions{})
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	c, err := block.Open(ctx, p.Secondary, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	image := make([]byte, c.Info().Size)
	if _, err := c.ReadAt(image, 0); err != nil {
		t.Fatal(err)
	}
	return image
}

// Noise is a file of size bytes that no other is like, and its path.
func Noise(t *testing.T, size int64) (string, []byte) {
	p := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(p)
	path := filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, p
}

// Run runs a client and fails with what it printed.
func Run(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
