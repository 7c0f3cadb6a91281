package nbd

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// tape is a connection whose client has said all that it will ever say.
type tape struct {
	in *bytes.Reader
}

func (t *tape) Read(p []byte) (int, error)       { return t.in.Read(p) }
func (t *tape) Write(p []byte) (int, error)      { return len(p), nil }
func (t *tape) Close() error                     { return nil }
func (t *tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (t *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (t *tape) SetDeadline(time.Time) error      { return nil }
func (t *tape) SetReadDeadline(time.Time) error  { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

// A countingDevice knows who is attached.
type countingDevice interface {
	block.Device
	Sessions() int
}

// play lets a server hear the bytes to their end, and checks that it keeps
// nothing.
func play(t *testing.T, dev countingDevice, opt Options, b []byte) {
	var x target.Exports
	if err := x.Add(target.Export{Name: "disk", Device: dev}); err != nil {
		t.Fatal(err)
	}
	x.SetDefault("disk")
	srv, err := NewServer(&x, opt)
	if err != nil {
		t.Fatal(err)
	}
	srv.ServeConn(&tape{bytes.NewReader(b)})
	if st := srv.Stats(); st != (Stats{}) {
		t.Errorf("the server still has %+v", st)
	}
	if n := dev.Sessions(); n != 0 {
		t.Errorf("%d sessions were left open", n)
	}
}

// FuzzHandshake hears whole connections. Its corpus in testdata has what nbdinfo,
// nbdcopy, qemu and libnbd sent.
func FuzzHandshake(f *testing.F) {
	hello := []byte{0, 0, 0, 3}
	f.Add(hello)
	for opt := range uint32(13) {
		f.Add(wire.Option(hello, opt, wire.GoData("disk", wire.InfoName, wire.InfoBlockSize)))
	}
	f.Add(wire.Option(wire.Option(hello, wire.OptList, nil), wire.OptAbort, nil))
	structured := wire.Option(hello, wire.OptStructuredReply, nil)
	for _, opt := range []uint32{wire.OptListMetaContext, wire.OptSetMetaContext} {
		for _, queries := range [][]string{nil, {"base:"}, {"x-y:z", "base:allocation"}, {"", ":", "base"}} {
			f.Add(wire.Option(structured, opt, wire.MetaData("disk", queries...)))
		}
	}
	status := wire.Request{Type: wire.CmdBlockStatus, Len: 1 << 20}.Append(wire.Option(
		wire.Option(structured, wire.OptSetMetaContext, wire.MetaData("", "base:allocation")), wire.OptGo, wire.GoData("disk")))
	f.Add(status)
	f.Add(wire.Option(wire.Option(hello, wire.OptExtendedHeaders, nil), wire.OptExportName, []byte("disk")))
	f.Add(wire.Request{Type: wire.CmdBlockStatus, Len: 1 << 40}.AppendExt(wire.Option(
		wire.Option(hello, wire.OptExtendedHeaders, nil), wire.OptGo, wire.GoData("disk"))))
	f.Add(append(wire.Option(hello, wire.OptGo, nil)[:16], 0xff, 0xff, 0xff, 0xff, 0xff))
	dev := memory.Sized(1 << 20)
	f.Fuzz(func(t *testing.T, b []byte) { play(t, dev, Options{}, b) })
}

// FuzzTLS hears whole connections to servers with TLS, and what comes in place of a TLS
// handshake.
func FuzzTLS(f *testing.F) {
	hello := []byte{0, 0, 0, 3}
	start := wire.Option(hello, wire.OptStartTLS, nil)
	f.Add(start, true)
	f.Add(wire.Option(start, wire.OptGo, wire.GoData("disk")), true)
	f.Add(wire.Option(hello, wire.OptStartTLS, []byte{1}), false)
	for opt := range uint32(13) {
		f.Add(wire.Option(hello, opt, wire.GoData("disk")), true)
	}
	f.Add(wire.Option(wire.Option(start, wire.OptStartTLS, nil), wire.OptAbort, nil), false)
	ca := newAuthority(f)
	var first recorder
	tls.Client(&first, ca.client("ann")).Handshake() // fails: nobody answers
	f.Add(append(start, first.Bytes()...), true)
	f.Add(append(start, first.Bytes()[:40]...), false)
	required, optional := ca.options(TLSRequired), ca.options(TLSOptional)
	dev := memory.Sized(1 << 20)
	f.Fuzz(func(t *testing.T, b []byte, isRequired bool) {
		if isRequired {
			play(t, closedDevice{dev, t}, required, b)
		} else {
			play(t, dev, optional, b)
		}
	})
}

// A closedDevice is for nobody.
type closedDevice struct {
	*memory.Device
	t *testing.T
}

func (d closedDevice) Attach(ctx context.Context, revoked func(error)) (block.Session, error) {
	d.t.Error("a client attaches that can't have proved anything")
	return d.Device.Attach(ctx, revoked)
}

// A recorder keeps what is written to it.
type recorder struct {
	tape
	bytes.Buffer
}

func (r *recorder) Read([]byte) (int, error)    { return 0, io.EOF }
func (r *recorder) Write(p []byte) (int, error) { return r.Buffer.Write(p) }

func FuzzRequests(f *testing.F) {
	for form := range uint8(8) {
		f.Add(wire.Request{Type: wire.CmdRead, Len: 4096}.Append(nil), false, form)
		f.Add(wire.Request{Type: wire.CmdDisc}.Append(wire.Request{Type: wire.CmdFlush}.Append(nil)), true, form)
		f.Add(append(wire.Request{Type: wire.CmdWrite, Len: 512}.Append(nil), make([]byte, 512)...), false, form)
		f.Add(append(wire.Request{Type: wire.CmdWrite, Off: 1 << 63, Len: 512}.Append(nil), make([]byte, 600)...), false, form)
		for cmd := range uint16(9) {
			f.Add(wire.Request{Type: cmd, Flags: 3, Off: 512, Len: 1 << 19}.Append(nil), true, form)
			f.Add(append(wire.Request{Type: cmd, Flags: 1 << 5, Off: 512, Len: 12}.AppendExt(nil), 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1), false, form|4)
			f.Add(wire.Request{Type: cmd, Off: 512, Len: 1 << 40}.AppendExt(nil), true, form|4)
		}
	}
	warm := memory.Sized(1 << 20)
	cold := memory.New(memory.Options{Info: warm.Info(), ColdReads: true})
	f.Fuzz(func(t *testing.T, b []byte, isCold bool, form uint8) {
		hello := []byte{0, 0, 0, 3}
		if form&1 != 0 {
			hello = wire.Option(hello, wire.OptStructuredReply, nil)
		}
		if form&4 != 0 {
			hello = wire.Option(hello, wire.OptExtendedHeaders, nil)
		}
		if form&2 != 0 {
			hello = wire.Option(hello, wire.OptSetMetaContext, wire.MetaData("", "base:allocation"))
		}
		hello = wire.Option(hello, wire.OptGo, wire.GoData(""))
		dev := warm
		if isCold {
			dev = cold
		}
		play(t, dev, Options{}, append(hello, b...))
	})
}
