package nbd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// An authority makes certificates for a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t}
	c := a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

func (a *authority) sign(c *x509.Certificate) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// server is a configuration that demands certificates.
func (a *authority) server() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.sign(&x509.Certificate{DNSNames: []string{"server"}})},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
	}
}

// client is a configuration of one who shows a certificate, unless the name is empty.
func (a *authority) client(name string) *tls.Config {
	c := &tls.Config{RootCAs: a.pool(), ServerName: "server"}
	if name != "" {
		c.Certificates = []tls.Certificate{a.sign(&x509.Certificate{
			Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})}
	}
	return c
}

// options have the authority's client "ann" open "disk", and "bob" nothing.
func (a *authority) options(mode TLSMode) Options {
	config := a.server()
	return Options{TLS: TLS{
		Mode:   mode,
		Config: func() (*tls.Config, error) { return config, nil },
		Admits: func(c *x509.Certificate, export string) bool {
			return c.Subject.CommonName == "ann" && export == "disk"
		},
	}}
}

// over goes on over TLS, once STARTTLS is acknowledged.
func (p *peer) over(c *tls.Config) *peer {
	return &peer{T: p.T, Conn: tls.Client(p.Conn, c)}
}

// secure begins TLS.
func (r *rig) secure(c *tls.Config) *peer {
	r.Helper()
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle | wire.FlagNoZeroes)
	if k := p.last(wire.OptStartTLS, nil); k != wire.RepAck {
		r.Fatalf("STARTTLS: %#x", k)
	}
	return p.over(c)
}

// TestOptionsInEachMode: what every option is answered, before TLS and after.
func TestOptionsInEachMode(t *testing.T) {
	ca := newAuthority(t)
	const closes = 0
	big := make([]byte, maxOptionData+1)
	for _, tc := range []struct {
		name          string
		opt           uint32
		data          []byte
		off, optional uint32 // without TLS
		required      uint32
		after         uint32 // with it, in whichever mode
	}{
		{"EXPORT_NAME", wire.OptExportName, []byte("nosuch"), closes, closes, closes, closes},
		{"EXPORT_NAME, large", wire.OptExportName, big, closes, closes, closes, closes},
		{"LIST", wire.OptList, nil, wire.RepAck, wire.RepAck, wire.RepErrTLSReqd, wire.RepAck},
		{"LIST with data", wire.OptList, []byte{1}, wire.RepErrInvalid, wire.RepErrInvalid, wire.RepErrTLSReqd, wire.RepErrInvalid},
		{"LIST, large", wire.OptList, big, wire.RepErrTooBig, wire.RepErrTooBig, wire.RepErrTLSReqd, wire.RepErrTooBig},
		{"INFO", wire.OptInfo, wire.GoData("disk"), wire.RepAck, wire.RepAck, wire.RepErrTLSReqd, wire.RepAck},
		{"GO", wire.OptGo, wire.GoData("disk"), wire.RepAck, wire.RepAck, wire.RepErrTLSReqd, wire.RepAck},
		{"GO, unknown", wire.OptGo, wire.GoData("nosuch"), wire.RepErrUnknown, wire.RepErrUnknown, wire.RepErrTLSReqd, wire.RepErrUnknown},
		{"STRUCTURED_REPLY", wire.OptStructuredReply, nil, wire.RepAck, wire.RepAck, wire.RepErrTLSReqd, wire.RepAck},
		{"EXTENDED_HEADERS", wire.OptExtendedHeaders, nil, wire.RepAck, wire.RepAck, wire.RepErrTLSReqd, wire.RepAck},
		{"LIST_META_CONTEXT", wire.OptListMetaContext, wire.MetaData("disk"), wire.RepErrInvalid, wire.RepErrInvalid, wire.RepErrTLSReqd, wire.RepErrInvalid},
		{"SET_META_CONTEXT", wire.OptSetMetaContext, wire.MetaData("disk"), wire.RepErrInvalid, wire.RepErrInvalid, wire.RepErrTLSReqd, wire.RepErrInvalid},
		{"STARTTLS with data", wire.OptStartTLS, []byte{1}, wire.RepErrUnsup, wire.RepErrInvalid, wire.RepErrInvalid, wire.RepErrInvalid},
		{"STARTTLS, large", wire.OptStartTLS, big, wire.RepErrUnsup, wire.RepErrTooBig, wire.RepErrTooBig, wire.RepErrTooBig},
		{"STARTTLS", wire.OptStartTLS, nil, wire.RepErrUnsup, wire.RepAck, wire.RepAck, wire.RepErrInvalid},
		{"unknown", 4711, nil, wire.RepErrUnsup, wire.RepErrUnsup, wire.RepErrTLSReqd, wire.RepErrUnsup},
		{"unknown, large", 4711, big, wire.RepErrUnsup, wire.RepErrUnsup, wire.RepErrTLSReqd, wire.RepErrUnsup},
		{"ABORT", wire.OptAbort, nil, wire.RepAck, wire.RepAck, wire.RepAck, wire.RepAck},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for mode, want := range []uint32{tc.off, tc.optional, tc.required} {
				r := newRig(t, memory.Sized(testSize), ca.options(TLSMode(mode)))
				check := func(p *peer, when string, want uint32) {
					t.Helper()
					if want == closes {
						p.send(wire.Option(nil, tc.opt, tc.data)...)
						p.closed()
					} else if k := p.last(tc.opt, tc.data); k != want {
						t.Errorf("mode %d, %s: %#x, want %#x", mode, when, k, want)
					}
				}
				p := r.dial()
				p.flags(wire.FlagFixedNewstyle)
				check(p, "without TLS", want)
				if mode != int(TLSOff) {
					check(r.secure(ca.client("ann")), "with TLS", tc.after)
				}
			}
		})
	}
}

// TestRequiredAfterRefusals: a client that was refused may still begin TLS, and works.
func TestRequiredAfterRefusals(t *testing.T) {
	ca := newAuthority(t)
	r := newRig(t, memory.Sized(testSize), ca.options(TLSRequired))
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle | wire.FlagNoZeroes)
	for _, opt := range []uint32{wire.OptGo, wire.OptList, wire.OptStructuredReply} {
		if k := p.last(opt, nil); k != wire.RepErrTLSReqd {
			t.Errorf("option %d: %#x", opt, k)
		}
	}
	if k := p.last(wire.OptStartTLS, nil); k != wire.RepAck {
		t.Fatalf("STARTTLS: %#x", k)
	}
	p = p.over(ca.client("ann"))
	p.go_("disk")
	p.usesDisk(t)
}

func (p *peer) go_(name string) {
	p.Helper()
	if k := p.last(wire.OptGo, wire.GoData(name)); k != wire.RepAck {
		p.Fatalf("GO: %#x", k)
	}
}

// usesDisk writes and reads a large request and many small ones, and leaves.
func (p *peer) usesDisk(t *testing.T) {
	t.Helper()
	text := make([]byte, 1<<20)
	rand.Read(text)
	go p.request(wire.Request{Type: wire.CmdWrite, Cookie: 1, Off: 4096, Len: uint64(len(text))}, text...)
	p.expect(1, wire.OK)
	p.request(wire.Request{Type: wire.CmdRead, Cookie: 2, Off: 4096, Len: uint64(len(text))})
	p.expect(2, wire.OK)
	if !bytes.Equal(p.want(len(text)), text) {
		t.Error("another content came back")
	}
	var many []byte
	want := map[uint64]uint32{}
	for c := range uint64(100) {
		many = wire.Request{Type: wire.CmdFlush, Cookie: c}.Append(many)
		want[c] = wire.OK
	}
	p.send(many...)
	p.expectInAnyOrder(want)
	p.request(wire.Request{Type: wire.CmdDisc})
	p.closed()
}

func TestExportNameOverTLS(t *testing.T) {
	ca := newAuthority(t)
	r := newRig(t, memory.Sized(testSize), ca.options(TLSRequired))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := ca.client("ann")
		c.MaxVersion = version
		p := r.secure(c)
		p.send(wire.Option(nil, wire.OptExportName, []byte("disk"))...)
		p.want(10)
		p.usesDisk(t)
	}
}

// TestNothingPlainSurvives: what was negotiated in plain text does not count once TLS is
// there, for who is in between may have said it.
func TestNothingPlainSurvives(t *testing.T) {
	ca := newAuthority(t)
	r := newRig(t, memory.Sized(testSize), ca.options(TLSOptional))
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	if k := p.last(wire.OptExtendedHeaders, nil); k != wire.RepAck {
		t.Fatalf("EXTENDED_HEADERS: %#x", k)
	}
	if k := p.last(wire.OptSetMetaContext, wire.MetaData("disk", allocationName)); k != wire.RepAck {
		t.Fatalf("SET_META_CONTEXT: %#x", k)
	}
	if f := p.exportFlags(); f != rwFlags|wire.FlagSendDF|wire.FlagStatusPayload {
		t.Errorf("flags %#x before TLS", f)
	}
	if k := p.last(wire.OptStartTLS, nil); k != wire.RepAck {
		t.Fatalf("STARTTLS: %#x", k)
	}
	p = p.over(ca.client("ann"))
	if f := p.exportFlags(); f != rwFlags {
		t.Errorf("flags %#x with TLS", f)
	}
	if k := p.last(wire.OptStructuredReply, nil); k != wire.RepAck { // the context is gone as well
		t.Fatalf("STRUCTURED_REPLY: %#x", k)
	}
	p.go_("disk")
	p.request(wire.Request{Type: wire.CmdBlockStatus, Cookie: 5, Len: 4096})
	p.refused(5, wire.EINVAL)
}

// TestPlaintextInjection: bytes that follow STARTTLS in plain text, in the same segment
// even, are neither options nor part of what TLS carries.
func TestPlaintextInjection(t *testing.T) {
	ca := newAuthority(t)
	for name, injected := range map[string][]byte{
		"an option":     wire.Option(nil, wire.OptStructuredReply, nil),
		"ABORT":         wire.Option(nil, wire.OptAbort, nil),
		"GO":            wire.Option(nil, wire.OptGo, wire.GoData("disk")),
		"one byte":      {0},
		"half a header": wire.Option(nil, wire.OptList, nil)[:7],
		"much":          bytes.Repeat(wire.Option(nil, wire.OptList, nil), 1000),
	} {
		for _, mode := range []TLSMode{TLSOptional, TLSRequired} {
			r := newRig(t, memory.Sized(testSize), ca.options(mode))
			p := r.dial()
			p.flags(wire.FlagFixedNewstyle)
			p.send(append(wire.Option(nil, wire.OptStartTLS, nil), injected...)...)
			if k, _ := p.answer(wire.OptStartTLS); k != wire.RepAck {
				t.Fatalf("%s: STARTTLS: %#x", name, k)
			}
			tc := tls.Client(p.Conn, ca.client("ann"))
			if err := tc.Handshake(); err == nil {
				_, err := tc.Read(make([]byte, 1))
				t.Errorf("%s: TLS began all the same; then %v", name, err)
			}
			// Nothing of it was answered, in plain text or otherwise.
			rest, _ := io.ReadAll(p.Conn)
			if bytes.Contains(rest, []byte{0, 3, 0xe8, 0x89, 4, 5, 0x65, 0xa9}) {
				t.Errorf("%s: it was answered % x", name, rest)
			}
			if n := r.dev.Sessions(); n != 0 {
				t.Errorf("%s: it attached", name)
			}
		}
	}
}

// TestNoWayBack: a client that goes on in plain text after the acknowledgement, or after
// TLS began, is hung up on.
func TestNoWayBack(t *testing.T) {
	ca := newAuthority(t)
	r := newRig(t, memory.Sized(testSize), ca.options(TLSOptional))
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	if k := p.last(wire.OptStartTLS, nil); k != wire.RepAck {
		t.Fatal(k)
	}
	p.send(wire.Option(nil, wire.OptGo, wire.GoData("disk"))...)
	if rest, _ := io.ReadAll(p.Conn); len(rest) > 7 { // an alert
		t.Errorf("after the acknowledgement: % x", rest)
	}

	p = r.dial()
	p.flags(wire.FlagFixedNewstyle)
	if k := p.last(wire.OptStartTLS, nil); k != wire.RepAck {
		t.Fatal(k)
	}
	secure := p.over(ca.client("ann"))
	if k := secure.last(wire.OptList, nil); k != wire.RepAck {
		t.Fatal(k)
	}
	p.send(wire.Option(nil, wire.OptGo, wire.GoData("disk"))...)
	if n, err := secure.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("plain text within TLS: %d bytes, %v", n, err)
	}
	if n := r.dev.Sessions(); n != 0 {
		t.Error("it attached")
	}
}

// TestTLSNeedsFixedNewstyle: as the protocol has it.
func TestTLSNeedsFixedNewstyle(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), newAuthority(t).options(TLSRequired))
	p := r.dial()
	p.flags(0)
	if k := p.last(wire.OptStartTLS, nil); k != wire.RepErrPolicy {
		t.Errorf("STARTTLS: %#x", k)
	}
	if k := p.last(wire.OptGo, wire.GoData("disk")); k != wire.RepErrTLSReqd {
		t.Errorf("GO: %#x", k)
	}
}

// TestClientsOfNobody: who proves nothing sees nothing, and is told why.
func TestClientsOfNobody(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	r := newRig(t, memory.Sized(testSize), ca.options(TLSRequired))
	stranger := other.client("ann")
	stranger.RootCAs = ca.pool()
	stranger.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger.Certificates[0], nil }
	server := ca.client("")
	server.Certificates = []tls.Certificate{ca.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "ann"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})}
	old := ca.client("ann")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for _, tc := range []struct {
		name   string
		config *tls.Config
		alert  string
	}{
		{"without a certificate", ca.client(""), "certificate required"},
		{"of another CA", stranger, "unknown certificate authority"},
		{"a server's certificate", server, "bad certificate"},
		{"TLS 1.1", old, "protocol version"},
	} {
		p := r.secure(tc.config)
		// With TLS 1.3 the client is through before the server has judged it.
		_, err := p.Write(wire.Option(nil, wire.OptGo, wire.GoData("disk")))
		var n int
		if err == nil {
			n, err = p.Read(make([]byte, 1))
		}
		if n > 0 || err == nil || !strings.Contains(err.Error(), tc.alert) {
			t.Errorf("%s: %d bytes, %v, want %q", tc.name, n, err, tc.alert)
		}
		if n := r.dev.Sessions(); n != 0 {
			t.Errorf("%s: it attached", tc.name)
		}
	}
}

// TestAdmission: a client sees and opens what it may, and of the rest it is told what it
// is told of what is not there.
func TestAdmission(t *testing.T) {
	ca := newAuthority(t)
	var log strings.Builder
	opt := ca.options(TLSRequired)
	opt.Log = slog.New(slog.NewTextHandler(&log, nil))
	r := newRig(t, memory.Sized(testSize), opt)
	r.add("other", "", memory.Sized(1<<20))
	r.exports.SetDefault("other")
	list := func(p *peer) (names []string) {
		kinds, datas := p.ask(wire.OptList, nil)
		for i, d := range datas {
			if kinds[i] == wire.RepServer {
				names = append(names, string(d[4:8]))
			}
		}
		return names
	}
	texts := func(p *peer, opt uint32, data func(name string) []byte, name string) string {
		kinds, datas := p.ask(opt, data(name))
		if k := kinds[len(kinds)-1]; k != wire.RepErrUnknown {
			t.Errorf("option %d for %q: %#x", opt, name, k)
		}
		return strings.ReplaceAll(string(datas[len(datas)-1]), name, "NAME")
	}
	for who, want := range map[string][]string{"ann": {"disk"}, "bob": nil, "": nil} {
		config := ca.client(who)
		if who == "" { // a certificate without a name
			config = ca.client("x")
			config.Certificates = []tls.Certificate{ca.sign(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})}
		}
		p := r.secure(config)
		if got := list(p); !slices.Equal(got, want) {
			t.Errorf("%q sees %q", who, got)
		}
		if k := p.last(wire.OptStructuredReply, nil); k != wire.RepAck {
			t.Fatal(k)
		}
		goData := func(n string) []byte { return wire.GoData(n) }
		metaData := func(n string) []byte { return wire.MetaData(n) }
		for _, o := range []struct {
			opt  uint32
			data func(string) []byte
		}{{wire.OptInfo, goData}, {wire.OptGo, goData}, {wire.OptListMetaContext, metaData}, {wire.OptSetMetaContext, metaData}} {
			if there, not := texts(p, o.opt, o.data, "other"), texts(p, o.opt, o.data, "nosuch"); there != not {
				t.Errorf("%q, option %d: %q of one that is there, %q of one that is not", who, o.opt, there, not)
			}
			if k := p.last(o.opt, o.data("")); k != wire.RepErrUnknown { // the default
				t.Errorf("%q, option %d for the default: %#x", who, o.opt, k)
			}
		}
		p.send(wire.Option(nil, wire.OptExportName, []byte("other"))...)
		p.closed()
	}
	p := r.secure(ca.client("bob"))
	if k := p.last(wire.OptGo, wire.GoData("disk")); k != wire.RepErrUnknown {
		t.Errorf("bob opens disk: %#x", k)
	}
	p.Conn.(*tls.Conn).NetConn().Close()
	if err := r.srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if want := "that it may not open"; !strings.Contains(log.String(), want) || !strings.Contains(log.String(), "client=bob") {
		t.Errorf("the log lacks %q:\n%s", want, &log)
	}
}

// TestKeysThatCantBeUsed: the client is told that it can't be, and the log why.
func TestKeysThatCantBeUsed(t *testing.T) {
	var log strings.Builder
	r := newRig(t, memory.Sized(testSize), Options{
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		TLS: TLS{Mode: TLSRequired, Config: func() (*tls.Config, error) { return nil, errors.New("the key is gone") }},
	})
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	kinds, datas := p.ask(wire.OptStartTLS, nil)
	if kinds[0] != wire.RepErrPolicy || bytes.Contains(datas[0], []byte("gone")) {
		t.Errorf("STARTTLS: %#x %q", kinds[0], datas[0])
	}
	if k := p.last(wire.OptGo, wire.GoData("disk")); k != wire.RepErrTLSReqd {
		t.Errorf("GO: %#x", k)
	}
	if k := p.last(wire.OptAbort, nil); k != wire.RepAck {
		t.Errorf("ABORT: %#x", k)
	}
	p.closed()
	if err := r.srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "the key is gone") {
		t.Errorf("the log has\n%s", &log)
	}
}

// TestUnixSocketsMayDoWithout: and may have TLS.
func TestUnixSocketsMayDoWithout(t *testing.T) {
	ca := newAuthority(t)
	var x target.Exports
	if err := x.Add(target.Export{Name: "disk", Device: memory.Sized(testSize)}); err != nil {
		t.Fatal(err)
	}
	srv, err := NewServer(&x, ca.options(TLSRequired))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(l) })
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	r := &rig{T: t, srv: srv, exports: &x, addr: l.Addr()}
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle | wire.FlagNoZeroes)
	p.go_("disk")
	p.usesDisk(t)
	p = r.secure(ca.client("ann"))
	p.go_("disk")
	p.usesDisk(t)
}

// TestShutdownOverTLS: what is in flight is answered, and the client is told that this is
// the end, also if it goes on sending.
func TestShutdownOverTLS(t *testing.T) {
	ca := newAuthority(t)
	dev := memory.Sized(testSize)
	r := newRig(t, dev, ca.options(TLSRequired))
	p := r.secure(ca.client("ann"))
	p.go_("disk")
	dev.Hold()
	p.request(wire.Request{Type: wire.CmdFlush, Cookie: 1})
	dev.AwaitHeld(1)
	done := make(chan error)
	go func() { done <- r.srv.Shutdown(context.Background()) }()
	until(t, "the server stops", func() bool {
		r.srv.mu.Lock()
		defer r.srv.mu.Unlock()
		for c := range r.srv.conns {
			if c.stopReason() == nil {
				return false
			}
		}
		return r.srv.closing
	})
	p.request(wire.Request{Type: wire.CmdWrite, Cookie: 2, Len: 32 << 10}, make([]byte, 32<<10)...)
	dev.Release(nil)
	p.expect(1, wire.OK)
	if n, err := p.Read(make([]byte, 1)); n > 0 || err != io.EOF { // otherwise it was cut off
		t.Error(n, err)
	}
	p.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTLSOptionsAreJudged(t *testing.T) {
	for _, o := range []TLS{{Mode: TLSRequired}, {Mode: TLSOptional}, {Mode: 3}, {Mode: -1}} {
		if _, err := NewServer(new(target.Exports), Options{TLS: o}); err == nil || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
