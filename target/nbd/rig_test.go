package nbd

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

const testSize = 8 << 20

// A rig is a server on a loopback port, with one export, "disk".
type rig struct {
	*testing.T
	srv     *Server
	exports *target.Exports
	dev     *memory.Device
	addr    net.Addr
}

func newRig(t *testing.T, dev *memory.Device, opt Options) *rig {
	t.Helper()
	r := &rig{T: t, exports: new(target.Exports), dev: dev}
	r.add("disk", "a disk for tests", dev)
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	srv, err := NewServer(r.exports, opt)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.srv, r.addr = srv, l.Addr()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := srv.Serve(l); err != ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		serving.Wait()
		if st := srv.Stats(); st != (Stats{}) {
			t.Errorf("after the end the server still has %+v", st)
		}
	})
	return r
}

func (r *rig) add(name, description string, dev block.Device) {
	r.Helper()
	if err := r.exports.Add(target.Export{Name: name, Description: description, Device: dev}); err != nil {
		r.Fatal(err)
	}
}

// A peer is a client that may say anything.
type peer struct {
	*testing.T
	net.Conn
	extended bool              // headers have the long form
	offs     map[uint64]uint64 // with it: the offset of each request, by cookie
}

// dial connects and reads the greeting. Nothing takes longer than the deadline
// unless it hangs.
func (r *rig) dial() *peer {
	r.Helper()
	nc, err := net.Dial(r.addr.Network(), r.addr.String())
	if err != nil {
		r.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	r.Cleanup(func() { nc.Close() })
	p := &peer{T: r.T, Conn: nc}
	p.want(wire.GreetingSize)
	return p
}

func (p *peer) send(b ...byte) {
	p.Helper()
	if _, err := p.Write(b); err != nil {
		p.Fatalf("send: %v", err)
	}
}

func (p *peer) want(n int) []byte {
	p.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(p, b); err != nil {
		p.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// closed checks that the server hung up, perhaps with a reset.
func (p *peer) closed() {
	p.Helper()
	n, err := io.Copy(io.Discard, p.Conn)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		p.Fatal("the server did not hang up")
	}
	if n != 0 {
		p.Errorf("the server sent %d bytes before it hung up", n)
	}
}

func (p *peer) flags(f uint32) { p.Helper(); p.send(binary.BigEndian.AppendUint32(nil, f)...) }

// answer reads one answer to an option.
func (p *peer) answer(opt uint32) (kind uint32, data []byte) {
	p.Helper()
	head := p.want(wire.OptReplySize)
	if binary.BigEndian.Uint64(head) != wire.ReplyMagic || binary.BigEndian.Uint32(head[8:]) != opt {
		p.Fatalf("answer to option %d: % x", opt, head)
	}
	return binary.BigEndian.Uint32(head[12:]), p.want(int(binary.BigEndian.Uint32(head[16:])))
}

// ask sends an option and reads its answers, up to the last.
func (p *peer) ask(opt uint32, data []byte) (kinds []uint32, datas [][]byte) {
	p.Helper()
	p.send(wire.Option(nil, opt, data)...)
	for {
		k, d := p.answer(opt)
		kinds, datas = append(kinds, k), append(datas, d)
		if k == wire.RepAck || k&wire.RepErr != 0 {
			return kinds, datas
		}
	}
}

func (p *peer) last(opt uint32, data []byte) uint32 {
	p.Helper()
	kinds, _ := p.ask(opt, data)
	return kinds[len(kinds)-1]
}

// attach goes through the handshake, with options that have no data.
func (r *rig) attach(agree ...uint32) *peer {
	r.Helper()
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle | wire.FlagNoZeroes)
	for _, opt := range agree {
		if opt == wire.OptExtendedHeaders {
			p.extended, p.offs = true, make(map[uint64]uint64)
		}
		if k := p.last(opt, nil); k != wire.RepAck {
			r.Fatalf("option %d answered with %#x", opt, k)
		}
	}
	if k := p.last(wire.OptGo, wire.GoData("disk")); k != wire.RepAck {
		r.Fatalf("GO answered with %#x", k)
	}
	return p
}

func (p *peer) request(q wire.Request, payload ...byte) {
	p.Helper()
	if p.extended {
		p.offs[q.Cookie] = q.Off
		if q.Type == wire.CmdWrite {
			q.Flags |= wire.CmdFlagPayloadLen
		}
		p.send(append(q.AppendExt(nil), payload...)...)
		return
	}
	p.send(append(q.Append(nil), payload...)...)
}

func (p *peer) reply() wire.Reply {
	p.Helper()
	r, ok := wire.ParseReply(p.want(wire.SimpleReplySize))
	if !ok {
		p.Fatal("that is no reply")
	}
	return r
}

// expect reads a reply to the request with that cookie.
func (p *peer) expect(cookie uint64, errno uint32) {
	p.Helper()
	if r := p.reply(); r.Cookie != cookie || r.Errno != errno {
		p.Fatalf("reply to %d: %s, want %d: %s", r.Cookie, wire.ErrnoName(r.Errno), cookie, wire.ErrnoName(errno))
	}
}

// expectInAnyOrder takes a reply to each of these cookies.
func (p *peer) expectInAnyOrder(want map[uint64]uint32) {
	p.Helper()
	for len(want) > 0 {
		r := p.reply()
		errno, is := want[r.Cookie]
		if !is || r.Errno != errno {
			p.Fatalf("reply to %d: %s, still awaited: %v", r.Cookie, wire.ErrnoName(r.Errno), want)
		}
		delete(want, r.Cookie)
	}
}

// works checks that the server serves another client.
func (r *rig) works() {
	r.Helper()
	p := r.attach()
	p.request(wire.Request{Type: wire.CmdFlush, Cookie: 1})
	p.expect(1, wire.OK)
	p.request(wire.Request{Type: wire.CmdDisc})
	p.closed()
}

// until waits for what nobody signals.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: this did not come about in 20 s", what)
		}
	}
}
