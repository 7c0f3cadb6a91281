package node

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/target/nbd"
	"github.com/lockstep-storage/lockstep/target/nbd/nbdclient"
)

// startTLS dials a node's NBD port and begins TLS with a client's files; without a Cert
// none is shown.
func startTLS(t *testing.T, n *Node, f TLSFiles) net.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", n.Status().NBD[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	greeting := make([]byte, 18)
	if _, err := io.ReadFull(raw, greeting); err != nil {
		t.Fatal(err)
	}
	ask := binary.BigEndian.AppendUint32(nil, 3)
	ask = append(append(ask, "IHAVEOPT"...), 0, 0, 0, 5, 0, 0, 0, 0)
	if _, err := raw.Write(ask); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 20)
	if _, err := io.ReadFull(raw, answer); err != nil || binary.BigEndian.Uint32(answer[12:]) != 1 {
		t.Fatalf("STARTTLS: % x, %v", answer, err)
	}
	roots, err := parseCAs(read(t, f.CA))
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: roots, ServerName: "alpha"}
	if f.Cert != "" {
		c.Certificates = []tls.Certificate{madeIdentity(t, f).cert}
	}
	return &greeted{Conn: tls.Client(raw, c), greeting: greeting, swallow: 4}
}

// A greeted connection has its server's greeting and the client's flags behind it, and
// plays them once more.
type greeted struct {
	net.Conn
	greeting []byte
	swallow  int
}

func (g *greeted) Read(p []byte) (int, error) {
	if len(g.greeting) > 0 {
		n := copy(p, g.greeting)
		g.greeting = g.greeting[n:]
		return n, nil
	}
	return g.Conn.Read(p)
}

func (g *greeted) Write(p []byte) (int, error) {
	n := min(g.swallow, len(p))
	g.swallow -= n
	if n == len(p) {
		return n, nil
	}
	m, err := g.Conn.Write(p[n:])
	return n + m, err
}

func attachTLS(t *testing.T, n *Node, f TLSFiles, export string) (*nbdclient.Client, error) {
	t.Helper()
	c, err := nbdclient.New(t.Context(), startTLS(t, n, f), export)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// TestNBDOverTLS: a client opens what is its own, and whoever is none opens nothing.
func TestNBDOverTLS(t *testing.T) {
	dir := t.TempDir()
	alpha := madeKeysIn(t, dir, time.Now(), "alpha", "beta")
	clients := madeClientKeys(t, dir, "ann", "bob", "alpha")
	c := testConfig(t)
	socket := filepath.Join(t.TempDir(), "nbd")
	c.NBD.Listen = append(c.NBD.Listen, Address{"unix", socket})
	c.NBD.TLS = NBDTLS{Mode: nbd.TLSRequired, Files: alpha["alpha"], Clients: map[string][]string{"ann": {"data", "more"}, "bob": {"more"}}}
	n, cl := startReal(t, c)
	for _, volume := range []string{"data", "more"} {
		makeReal(t, cl, volume)
		serving(t, cl, volume)
	}

	ann, err := attachTLS(t, n, clients["ann"], "data")
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("lockstep"), 1<<15)
	if _, err := ann.WriteAt(text, 4096); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := ann.ReadAt(got, 4096); err != nil || !bytes.Equal(got, text) {
		t.Errorf("another content came back, %v", err)
	}
	if _, err := attachTLS(t, n, clients["bob"], "more"); err != nil {
		t.Error(err)
	}
	foreign := madeClientKeys(t, t.TempDir(), "ann")["ann"]
	foreign.CA = clients["ann"].CA
	for who, tc := range map[string]struct {
		files TLSFiles
		want  string
	}{
		"another's volume":              {clients["bob"], "no such export"},
		"a client of nothing":           {clients["alpha"], "no such export"},
		"a node":                        {alpha["beta"], "no such export"},
		"nobody":                        {TLSFiles{CA: alpha["alpha"].CA}, "certificate required"},
		"a client of another authority": {foreign, "remote error: tls: "}, // that is of an unknown authority, or not even sent
	} {
		if _, err := attachTLS(t, n, tc.files, "data"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", who, err)
		}
	}
	if _, err := nbdclient.Dial(t.Context(), "tcp", n.Status().NBD[0].Addr, "data"); err == nil || !strings.Contains(err.Error(), "wants TLS") {
		t.Errorf("without TLS: %v", err)
	}
	local, err := nbdclient.Dial(t.Context(), "unix", socket, "data")
	if err != nil {
		t.Errorf("over a unix socket: %v", err)
	} else {
		local.Close()
	}

	// Other keys, of another CA, count from the next connection on.
	nextDir := t.TempDir()
	next := madeKeysIn(t, nextDir, time.Now(), "alpha")["alpha"]
	used := alpha["alpha"]
	for path, from := range map[string]string{used.CA: next.CA, used.Cert: next.Cert, used.Key: next.Key} {
		if err := writeWhole(path, read(t, from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ann.Flush(); err != nil {
		t.Errorf("a connection that there is: %v", err)
	}
	stale := clients["ann"]
	stale.CA = next.CA
	if _, err := attachTLS(t, n, stale, "data"); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		t.Errorf("a client of the CA that was: %v", err)
	}
	if _, err := attachTLS(t, n, madeClientKeys(t, nextDir, "ann")["ann"], "data"); err != nil {
		t.Error(err)
	}
}

// TestNBDWarnings: what is not protected is said, and nothing else.
func TestNBDWarnings(t *testing.T) {
	f := madeKeys(t, "alpha")["alpha"]
	everywhere, here := Address{"tcp", "0.0.0.0:10809"}, Address{"tcp", "127.0.0.1:10809"}
	for _, tc := range []struct {
		tls  NBDTLS
		want string
	}{
		{NBDTLS{}, "neither authenticated nor encrypted"},
		{NBDTLS{Mode: nbd.TLSOptional, Files: f}, "need no TLS"},
		{NBDTLS{Mode: nbd.TLSRequired, Files: TLSFiles{Cert: f.Cert, Key: f.Key}}, "not authenticated (nbd.tls has no ca)"},
		{NBDTLS{Mode: nbd.TLSRequired, Files: f}, ""},
	} {
		if got := tc.tls.warning(everywhere); !strings.Contains(got, tc.want) || (got == "") != (tc.want == "") {
			t.Errorf("%+v: %q, want %q", tc.tls, got, tc.want)
		}
		if got := tc.tls.warning(here); got != "" {
			t.Errorf("%+v on the loopback: %q", tc.tls, got)
		}
	}
}

// TestNBDKeysAtTheStart: a daemon with keys that nobody would believe does not start, and
// warns of those that end.
func TestNBDKeysAtTheStart(t *testing.T) {
	dir := t.TempDir()
	f := madeKeysIn(t, dir, time.Now(), "alpha")["alpha"]
	c := testConfig(t)
	c.NBD.TLS = NBDTLS{Mode: nbd.TLSRequired, Files: TLSFiles{Cert: f.Cert, Key: "/no/key"}}
	if n, err := Start(Options{Config: c}); err == nil || !strings.Contains(err.Error(), "nbd.tls.key: /no/key: no such file") {
		t.Error(err)
		if n != nil {
			stopNode(t, n)
		}
	}
	c.NBD.TLS.Files = madeKeysExpired(t, dir, "alpha")
	var log bytes.Buffer
	n, err := Start(Options{Config: c, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	stopNode(t, n)
	if want := fmt.Sprintf("the certificate of nbd.tls, %s, ends at ", c.NBD.TLS.Files.Cert); !strings.Contains(log.String(), want) {
		t.Errorf("%q is not in\n%s", want, &log)
	}
}

func TestConfigNBDTLS(t *testing.T) {
	f := madeKeys(t, "alpha")["alpha"]
	files := fmt.Sprintf("ca: %s, cert: %s, key: %s", f.CA, f.Cert, f.Key)
	for _, tc := range []struct {
		text string
		want NBDTLS
	}{
		{"nbd: {tls: }", NBDTLS{}},
		{"nbd: {tls: {mode: off, key: /no/key}}", NBDTLS{Files: TLSFiles{Key: "/no/key"}}},
		{"nbd: {tls: {" + files + "}}", NBDTLS{Mode: nbd.TLSRequired, Files: f}},
		{"nbd: {tls: {clients: , " + files + "}}", NBDTLS{Mode: nbd.TLSRequired, Files: f}},
		{"nbd: {tls: {mode: optional, " + files + "}}", NBDTLS{Mode: nbd.TLSOptional, Files: f}},
		{"node: not-alpha\nnbd: {tls: {cert: " + f.Cert + ", key: " + f.Key + "}}", NBDTLS{Mode: nbd.TLSRequired, Files: TLSFiles{Cert: f.Cert, Key: f.Key}}},
		{"nbd: {tls: {clients: {}, " + files + "}}", NBDTLS{Mode: nbd.TLSRequired, Files: f, Clients: map[string][]string{}}},
		{"nbd: {tls: {clients: {ann: data, bob: [a, b]}, " + files + "}}", NBDTLS{Mode: nbd.TLSRequired, Files: f, Clients: map[string][]string{"ann": {"data"}, "bob": {"a", "b"}}}},
	} {
		c, err := ParseConfig([]byte(tc.text), "f")
		if err != nil || fmt.Sprintf("%#v", c.NBD.TLS) != fmt.Sprintf("%#v", tc.want) {
			t.Errorf("%s\n got %#v, %v\nwant %#v", tc.text, c.NBD.TLS, err, tc.want)
		}
	}
}

// TestNBDAdmission: with a volume goes whatever of it is exported.
func TestNBDAdmission(t *testing.T) {
	files := madeClientKeys(t, t.TempDir(), "ann")["ann"]
	_, chain, _ := files.readFiles()
	o := NBDTLS{Mode: nbd.TLSRequired, Clients: map[string][]string{"ann": {"data"}, "": {"nameless"}}}.options()
	for export, want := range map[string]bool{"data": true, "data@alpha": true, "data@alpha@monday": true, "dat": false, "data2": false, "": false, "@data": false, "nameless": false} {
		if o.Admits(chain[0], export) != want {
			t.Errorf("%q: %v", export, !want)
		}
	}
	if o.Admits(nil, "nameless") {
		t.Error("who has no certificate is admitted")
	}
}
