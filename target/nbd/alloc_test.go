package nbd

import (
	"io"
	"net"
	"slices"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// loop is a client that sends the same requests again and again.
type loop struct {
	nc   net.Conn
	out  []byte
	back []byte
}

// newLoop attaches to a server over a real socket; depth requests of the type
// go out together.
func newLoop(tb testing.TB, tc loopCase) *loop {
	dev := memory.New(memory.Options{Info: block.Info{Size: testSize, SectorSize: 512}, ColdReads: tc.cold})
	var x target.Exports
	if err := x.Add(target.Export{Name: "disk", Device: dev}); err != nil {
		tb.Fatal(err)
	}
	srv, err := NewServer(&x, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	go srv.Serve(l)
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		nc.Close()
		srv.Shutdown(tb.Context())
	})
	// GO is answered with the export's size, its block sizes and an end.
	hello, answer := []byte{0, 0, 0, 3}, wire.GreetingSize+3*wire.OptReplySize+12+14
	replySize, encode := wire.SimpleReplySize, wire.Request.Append
	for _, opt := range tc.agree {
		hello = wire.Option(hello, opt, nil)
		answer += wire.OptReplySize
	}
	if slices.Contains(tc.agree, wire.OptExtendedHeaders) {
		encode = wire.Request.AppendExt
	}
	switch {
	case tc.cmd == wire.CmdRead && slices.Contains(tc.agree, wire.OptExtendedHeaders):
		replySize = wire.ExtChunkSize + 8 + tc.size
	case tc.cmd == wire.CmdRead && tc.cold: // a hole
		replySize = wire.ChunkSize + 12
	case tc.cmd == wire.CmdRead && len(tc.agree) > 0:
		replySize = wire.ChunkSize + 8 + tc.size
	case tc.cmd == wire.CmdRead:
		replySize += tc.size
	}
	if _, err := nc.Write(wire.Option(hello, wire.OptGo, wire.GoData("disk"))); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, answer)); err != nil {
		tb.Fatal(err)
	}
	lp := &loop{nc: nc}
	for i := range tc.depth {
		lp.out = encode(wire.Request{Type: tc.cmd, Cookie: uint64(i), Off: uint64(i * tc.size), Len: uint64(tc.size)}, lp.out)
		if tc.cmd == wire.CmdWrite {
			lp.out = append(lp.out, make([]byte, tc.size)...)
		}
	}
	lp.back = make([]byte, tc.depth*replySize)
	return lp
}

func (l *loop) round(tb testing.TB) {
	if _, err := l.nc.Write(l.out); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.ReadFull(l.nc, l.back); err != nil {
		tb.Fatal(err)
	}
}

type loopCase struct {
	name  string
	cmd   uint16
	size  int
	depth int
	agree []uint32 // options of the handshake
	cold  bool     // of a device without data, so the reply has none
}

var loops = []loopCase{
	{name: "read/4k/qd1", cmd: wire.CmdRead, size: 4096, depth: 1},
	{name: "read/4k/qd32", cmd: wire.CmdRead, size: 4096, depth: 32},
	{name: "write/4k/qd1", cmd: wire.CmdWrite, size: 4096, depth: 1},
	{name: "write/4k/qd32", cmd: wire.CmdWrite, size: 4096, depth: 32},
	{name: "write/128k/qd8", cmd: wire.CmdWrite, size: 128 << 10, depth: 8},
	{name: "extended-read/4k/qd32", cmd: wire.CmdRead, size: 4096, depth: 32, agree: []uint32{wire.OptExtendedHeaders}},
	{name: "structured-read/4k/qd1", cmd: wire.CmdRead, size: 4096, depth: 1, agree: []uint32{wire.OptStructuredReply}},
	{name: "structured-read/4k/qd32", cmd: wire.CmdRead, size: 4096, depth: 32, agree: []uint32{wire.OptStructuredReply}},
	{name: "structured-write/4k/qd32", cmd: wire.CmdWrite, size: 4096, depth: 32, agree: []uint32{wire.OptStructuredReply}},
	{name: "sparse-read/64k/qd32", cmd: wire.CmdRead, size: 64 << 10, depth: 32, agree: []uint32{wire.OptStructuredReply}, cold: true},
}

// In steady state a request allocates nothing.
func TestRequestsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random; the plain run of this test is the one that counts")
	}
	for _, tc := range loops {
		t.Run(tc.name, func(t *testing.T) {
			l := newLoop(t, tc)
			for range 20 {
				l.round(t)
			}
			// A collection empties the pools once in a while; a tenth of an
			// allocation per request leaves room for that and for nothing else.
			if n := testing.AllocsPerRun(500, func() { l.round(t) }) / float64(tc.depth); n > 0.1 {
				t.Errorf("%.2f allocations per request", n)
			}
		})
	}
}

func BenchmarkRequests(b *testing.B) {
	for _, tc := range loops {
		b.Run(tc.name, func(b *testing.B) {
			l := newLoop(b, tc)
			b.ReportAllocs()
			b.SetBytes(int64(tc.size) * int64(tc.depth))
			for b.Loop() {
				l.round(b)
			}
			b.ReportMetric(float64(tc.depth*b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}
