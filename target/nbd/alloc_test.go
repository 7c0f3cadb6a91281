package nbd

import (
	"io"
	"net"
	"testing"

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
func newLoop(tb testing.TB, cmd uint16, size uint32, depth int) *loop {
	var x target.Exports
	if err := x.Add(target.Export{Name: "disk", Device: memory.Sized(testSize)}); err != nil {
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
	hello := append([]byte{0, 0, 0, 3}, wire.Option(nil, wire.OptExportName, []byte("disk"))...)
	if _, err := nc.Write(hello); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, wire.GreetingSize+wire.ExportNameAnswer)); err != nil {
		tb.Fatal(err)
	}
	lp := &loop{nc: nc}
	replySize := wire.SimpleReplySize
	if cmd == wire.CmdRead {
		replySize += int(size)
	}
	for i := range depth {
		lp.out = wire.Request{Type: cmd, Cookie: uint64(i), Off: uint64(i) * uint64(size), Len: size}.Append(lp.out)
		if cmd == wire.CmdWrite {
			lp.out = append(lp.out, make([]byte, size)...)
		}
	}
	lp.back = make([]byte, depth*replySize)
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

var loops = []struct {
	name  string
	cmd   uint16
	size  uint32
	depth int
}{
	{"read/4k/qd1", wire.CmdRead, 4096, 1},
	{"read/4k/qd32", wire.CmdRead, 4096, 32},
	{"write/4k/qd1", wire.CmdWrite, 4096, 1},
	{"write/4k/qd32", wire.CmdWrite, 4096, 32},
	{"write/128k/qd8", wire.CmdWrite, 128 << 10, 8},
}

// In steady state a request allocates nothing.
func TestRequestsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random; the plain run of this test is the one that counts")
	}
	for _, tc := range loops {
		t.Run(tc.name, func(t *testing.T) {
			l := newLoop(t, tc.cmd, tc.size, tc.depth)
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
			l := newLoop(b, tc.cmd, tc.size, tc.depth)
			b.ReportAllocs()
			b.SetBytes(int64(tc.size) * int64(tc.depth))
			for b.Loop() {
				l.round(b)
			}
			b.ReportMetric(float64(tc.depth*b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}
