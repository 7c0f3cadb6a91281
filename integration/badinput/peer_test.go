package badinput

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

// A peer of a protocol version that is yet to come is told so, in a sentence.
func TestPeerOfAnotherProtocolVersion(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	c, err := net.Dial("tcp", p.Alpha.Peer)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Only these 16 bytes mean the same in every version (docs/formats.md).
	hello := append([]byte("LOCKSTEP"), 7, 0, 9, 0, 4, 0, 0, 0)
	if _, err := c.Write(append(hello, "what"...)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(harness.Patience))
	said, err := io.ReadAll(c)
	if want := "the peer speaks protocol versions 7 to 9, this node 1 to 4"; !strings.Contains(string(said), want) {
		t.Errorf("the peer was told %q (%v), want %q", said, err, want)
	}
	if !p.Status(p.Alpha).InSync() {
		t.Errorf("a stranger disturbed the replication: %+v", p.Status(p.Alpha))
	}
}

// A peer that begins well and goes on with lengths that nobody could mean.
func TestPeerThatLies(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	m := load.NewModel(p.Size)
	p.Kill(p.Beta) // whose name the liar uses
	before := memory(t, p.Alpha)
	for _, lie := range []struct {
		name  string
		frame []byte
	}{
		{"half a header", make([]byte, 7)},
		{"a header of zeroes", make([]byte, 16)},
		{"4 GiB of the first type", []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"an unknown type", append([]byte{200}, make([]byte, 15)...)},
	} {
		c, err := net.Dial("tcp", p.Alpha.Peer)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write(append(preamble(harness.Volume, "beta"), lie.frame...)); err != nil {
			t.Errorf("%s: %v", lie.name, err)
		}
	}
	loadFor(t, p, m, 200*time.Millisecond)
	if now := memory(t, p.Alpha); now > before+memoryLimit {
		t.Errorf("alpha held %d MiB before the lies and holds %d MiB now", before>>20, now>>20)
	}
	p.Start(p.Beta)
	p.VerifyReplicas(m)
}

// preamble is how a connection between nodes begins (docs/formats.md).
func preamble(volume, node string) []byte {
	rest := make([]byte, 16) // the nonce
	rest = append(append(rest, byte(len(volume))), volume...)
	rest = append(append(rest, byte(len(node))), node...)
	b := append([]byte("LOCKSTEP"), 1, 0, 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(rest)+4))
	b = append(append(b, 0, 0), rest...)
	return binary.LittleEndian.AppendUint32(b, crc32c(b))
}

// Bits that flip between the nodes are met by checksums: no client sees an
// error, nothing wrong is stored.
func TestCorruptFrames(t *testing.T) {
	p := harness.NewPair(t, harness.Options{PairOptions: daemon.PairOptions{Relayed: true}})
	m := load.NewModel(p.Size)
	c := p.Dial(p.Alpha)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := load.Run(ctx, c, m, load.Options{Seed: harness.Seed(t), Rate: 16 << 20})
		done <- err
	}()
	for range 5 {
		p.AwaitInSync()
		seen := strings.Count(logs(t, p), "invalid frame")
		p.Spoil(1)
		p.Await(p.Alpha, "a node finds a frame invalid", func(*daemon.Status) bool {
			return strings.Count(logs(t, p), "invalid frame") > seen
		})
	}
	p.AwaitInSync()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the client met: %v", err)
	}
	p.Verify(p.Alpha, m)
	p.VerifyReplicas(m)
	if s := p.Status(p.Alpha); s.Peer("beta").Resyncs != 0 {
		t.Errorf("a bad frame cost a resync: %+v", s)
	}
}

// logs is what both daemons have printed.
func logs(t *testing.T, p *harness.Pair) string {
	t.Helper()
	var all []byte
	for _, n := range p.Nodes() {
		b, err := os.ReadFile(n.LogFile())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return string(all)
}

// Two volumes that merely bear the same name are not replicas of each other:
// both sides say so, and each goes on alone with what it has.
func TestPeerWithAnotherVolumesID(t *testing.T) {
	p := harness.NewPair(t, harness.Options{PairOptions: daemon.PairOptions{Relayed: true}})
	m := load.NewModel(p.Size)
	loadFor(t, p, m, 100*time.Millisecond)

	// Beta's replica is made again while alpha is out of reach, and used alone.
	p.Cut()
	p.CLI(p.Beta, "delete", harness.Volume, "--yes")
	p.CLI(p.Beta, "create", harness.Volume, "--size", fmt.Sprint(p.Size), "--peer", "alpha")
	p.CLI(p.Beta, "promote", harness.Volume, "--force")
	p.Mend()

	for _, n := range p.Nodes() {
		other := p.Other(n).Name
		s := p.Await(n, "the other volume is refused", func(s *daemon.Status) bool {
			return strings.Contains(s.Peer(other).Problem, "they were created separately")
		})
		if s.Peer(other).Connection != "StandAlone" || s.Peer(other).Replication != "Off" {
			t.Errorf("%s goes on with another volume: %+v", n.Name, s)
		}
	}
	loadFor(t, p, m, 100*time.Millisecond)
	p.Verify(p.Alpha, m)
	p.Verify(p.Beta, load.NewModel(p.Size))
}

func crc32c(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
