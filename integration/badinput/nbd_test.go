package badinput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

// memoryLimit is how much more memory, in bytes, a daemon may hold after all
// the garbage than before it: far less than one believed length.
const memoryLimit = 256 << 20

// Pieces of the NBD protocol, as a client and a server send them.
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
	refusedOption = func(n, code uint32) []byte {
		b := binary.BigEndian.AppendUint64(nil, 0x3e889045565a9)
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, n), 1<<31|code)
	}
	refusedRequest = func(errno uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, 0x67446698)
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, errno), 1)
	}
)

// What the NBD protocol calls errors, and the lengths of what a server says
// before it has anything to answer.
const (
	errUnsupported, errInvalidOption = 1, 3
	einval, enospc                   = 22, 28

	greeted  = 18
	attached = greeted + 10
)

// An ending is what a client that sent garbage must see.
type ending struct {
	skip   int    // bytes of the server's that come before
	answer []byte // what it must say then; nil for nothing
	closed bool   // whether it must close the connection then
}

var (
	waits     = ending{} // for the rest, in silence
	closes    = ending{skip: greeted, closed: true}
	disowns   = ending{skip: attached, closed: true}
	refuses   = func(errno uint32) ending { return ending{skip: attached, answer: refusedRequest(errno)} }
	noOption  = ending{skip: greeted, answer: refusedOption(4711, errUnsupported)}
	badOption = ending{skip: greeted, answer: refusedOption(7, errInvalidOption)}
)

// garbage for the NBD port. Each is sent, and then there is silence.
var garbage = []struct {
	name string
	b    []byte
	ends ending
}{
	{"nothing", nil, waits},
	{"half the flags", flags[:2], waits},
	{"unknown flags", []byte{0xff, 0xff, 0xff, 0xff}, closes},
	{"half an option header", slices.Concat(flags, option(7, 0)[:11]), waits},
	{"an option without its magic", slices.Concat(flags, make([]byte, 16)), closes},
	{"a name of 4 GiB", slices.Concat(flags, option(1, 1<<32-1, 'x')), closes},
	{"GO with 4 GiB", slices.Concat(flags, option(7, 1<<32-1, 0, 0, 0, 1, 'x')), closes},
	{"GO with a name longer than the option", slices.Concat(flags, option(7, 6, 0xff, 0xff, 0xff, 0xff, 0, 0)), badOption},
	{"an unknown option", slices.Concat(flags, option(4711, 4, 1, 2, 3, 4)), noOption},
	{"half a request", slices.Concat(attach, request(1, 0, 4096)[:20]), waits},
	{"a request without its magic", slices.Concat(attach, make([]byte, 28)), disowns},
	{"an unknown command", slices.Concat(attach, request(77, 0, 4096)), refuses(einval)},
	{"a write of 4 GiB", slices.Concat(attach, request(1, 0, 1<<32-1)), disowns}, // too much to skip
	{"a read of 4 GiB", slices.Concat(attach, request(0, 0, 1<<32-1)), refuses(einval)},
	{"a read near 2^63", slices.Concat(attach, request(0, 1<<63-4096, 8192)), refuses(einval)},
	{"a write near 2^64", slices.Concat(attach, request(1, 1<<64-4096, 8192), make([]byte, 8192)), refuses(enospc)},
	{"a trim beyond the end", slices.Concat(attach, request(4, 1<<62, 1<<31)), refuses(einval)},
	{"half a write", slices.Concat(attach, request(1, 0, 1<<20), make([]byte, 1<<19)), waits},
}

// meets reports how the server's behaviour differs from e.
func (e ending) meets(c net.Conn) error {
	if _, err := io.CopyN(io.Discard, c, int64(e.skip)); err != nil {
		return err
	}
	got := make([]byte, len(e.answer))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, e.answer) {
		return errors.New("another answer")
	}
	if !e.closed {
		return nil
	}
	if err := c.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	switch n, err := c.Read(make([]byte, 1)); {
	case n != 0:
		return errors.New("an answer instead of the end")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("the connection stays open")
	}
	return nil
}

func TestGarbageFromTheNetwork(t *testing.T) {
	p := harness.NewPair(t, harness.Options{})
	m := load.NewModel(p.Size)
	rng := rand.New(rand.NewPCG(harness.Seed(t), 0))
	loadFor(t, p, m, 200*time.Millisecond)
	before := [2]int64{memory(t, p.Alpha), memory(t, p.Beta)}

	send := func(addr string, b []byte) net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("the daemon does not accept any more: %v", err)
		}
		t.Cleanup(func() { c.Close() })
		_, _ = c.Write(b) // it may be closed meanwhile
		return c
	}
	for _, g := range garbage {
		for range 4 {
			if err := g.ends.meets(send(p.Alpha.NBD, g.b)); err != nil {
				t.Errorf("%s: %v", g.name, err)
			}
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
	// With all that is still connected, the volume serves.
	loadFor(t, p, m, 200*time.Millisecond)
	for i, n := range p.Nodes() {
		if now := memory(t, n); now > before[i]+memoryLimit {
			t.Errorf("%s held %d MiB before the garbage and holds %d MiB now", n.Name, before[i]>>20, now>>20)
		}
	}
	p.Verify(p.Alpha, m)
	p.VerifyReplicas(m)
	if s := p.Status(p.Alpha); s.Peer("beta").Resyncs != 0 || !s.InSync() {
		t.Errorf("garbage disturbed the replication: %+v", s)
	}
}
