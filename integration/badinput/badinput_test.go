package badinput

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// memoryLimit is how much more memory, in bytes, a daemon may hold after all
// the garbage than before it: far less than one believed length.
const memoryLimit = 256 << 20

// Pieces of the NBD protocol, as a client sends them.
var (
	flags  = []byte{0, 0, 0, 3}
	option = func(n, length uint32, data ...byte) []byte {
		b := append([]byte("IHAVEOPT"), binary.BigEndian.AppendUint32(nil, n)...)
		return append(binary.BigEndian.AppendUint32(b, length), data...)
	}
	attach  = slices.Concat(flags, option(1, uint32(len(harness.Volume)), []byte(harness.Volume)...)) // EXPORT_NAME
	request = func(cmd uint16, off uint64, length uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, 0x25609513)
		b = binary.BigEndian.AppendUint16(b, 0)
		b = binary.BigEndian.AppendUint16(b, cmd)
		b = binary.BigEndian.AppendUint64(b, 1)
		b = binary.BigEndian.AppendUint64(b, off)
		return binary.BigEndian.AppendUint32(b, length)
	}
)

// garbage for the NBD port. Each is sent, and then there is silence.
var garbage = []struct {
	name string
	b    []byte
}{
	{"nothing", nil},
	{"half the flags", flags[:2]},
	{"unknown flags", []byte{0xff, 0xff, 0xff, 0xff}},
	{"half an option header", slices.Concat(flags, option(7, 0)[:11])},
	{"an option without its magic", slices.Concat(flags, make([]byte, 16))},
	{"a name of 4 GiB", slices.Concat(flags, option(1, 1<<32-1, 'x'))},
	{"GO with 4 GiB", slices.Concat(flags, option(7, 1<<32-1, 0, 0, 0, 1, 'x'))},
	{"GO with a name longer than the option", slices.Concat(flags, option(7, 6, 0xff, 0xff, 0xff, 0xff, 0, 0))},
	{"an unknown option", slices.Concat(flags, option(4711, 4, 1, 2, 3, 4))},
	{"half a request", slices.Concat(attach, request(1, 0, 4096)[:20])},
	{"a request without its magic", slices.Concat(attach, make([]byte, 28))},
	{"an unknown command", slices.Concat(attach, request(77, 0, 4096))},
	{"a write of 4 GiB", slices.Concat(attach, request(1, 0, 1<<32-1))},
	{"a read of 4 GiB", slices.Concat(attach, request(0, 0, 1<<32-1))},
	{"a read near 2^63", slices.Concat(attach, request(0, 1<<63-4096, 8192))},
	{"a write near 2^64", slices.Concat(attach, request(1, 1<<64-4096, 8192))},
	{"a trim beyond the end", slices.Concat(attach, request(4, 1<<62, 1<<31))},
	{"half a write", slices.Concat(attach, request(1, 0, 1<<20), make([]byte, 1<<19))},
}

func TestGarbageFromTheNetwork(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	m := load.NewModel(p.Size)
	rng := rand.New(rand.NewPCG(harness.Seed(t), 0))
	loadFor(t, p, m, 200*time.Millisecond)
	before := [2]int64{memory(t, p.Alpha), memory(t, p.Beta)}

	var open []net.Conn
	send := func(addr string, b []byte) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("the daemon does not accept any more: %v", err)
		}
		open = append(open, c)
		_, _ = c.Write(b)                             // it may be closed meanwhile
		go func() { _, _ = io.Copy(io.Discard, c) }() // until the daemon or the test closes it
	}
	for _, g := range garbage {
		for range 4 {
			send(p.Alpha.NBD, g.b)
		}
	}
	for range 100 {
		b := make([]byte, rng.IntN(1<<16))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		for _, n := range p.Nodes() {
			send(n.Peer, b)
			send(n.NBD, slices.Concat(flags, b))
			send(n.NBD, b)
		}
		send(p.Alpha.NBD, slices.Concat(attach, b))
	}
	// With all of that still connected, the volume serves.
	loadFor(t, p, m, 200*time.Millisecond)
	for i, n := range p.Nodes() {
		if now := memory(t, n); now > before[i]+memoryLimit {
			t.Errorf("%s held %d MiB before the garbage and holds %d MiB now", n.Name, before[i]>>20, now>>20)
		}
	}
	for _, c := range open {
		c.Close()
	}
	p.Verify(p.Alpha, m)
	p.VerifyReplicas(m)
	if s := p.Status(p.Alpha); s.Peer("beta").Resyncs != 0 || !s.InSync() {
		t.Errorf("garbage disturbed the replication: %+v", s)
	}
}

func loadFor(t *testing.T, p *harness.Pair, m *load.Model, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	c := p.Dial(p.Alpha)
	defer c.Close()
	if _, err := load.Run(ctx, c, m, load.Options{Seed: 1}); err != nil {
		t.Fatal(err)
	}
}

// memory is what the daemon holds now, in bytes.
func memory(t *testing.T, n *daemon.Node) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		t.Fatalf("%s is gone: %v\n%s", n.Name, err, n.LogTail())
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no VmRSS in %s", b)
	return 0
}

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
