package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// A relay is what is in between two nodes: it sees all that they say, and can cut them
// off from each other.
type relay struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	seen  bytes.Buffer
	conns []net.Conn
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l, to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, near, far)
			r.mu.Unlock()
			wg.Go(func() { r.copy(near, far) })
			wg.Go(func() { r.copy(far, near) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cut()
		wg.Wait()
	})
	return r
}

func (r *relay) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		r.seen.Write(buf[:n])
		r.mu.Unlock()
		if _, failed := to.Write(buf[:n]); failed != nil || err != nil {
			return
		}
	}
}

// cut ends all connections that there are.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *relay) saw(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.seen.Bytes(), []byte(text))
}

// A tlsPair is alpha and beta, which mirror a volume through a relay.
type tlsPair struct {
	relay           *relay
	alpha, beta     *Node
	atAlpha, atBeta *Client
}

// startPair starts two real nodes, alpha Primary and beta a member; files may be nil.
func startPair(t *testing.T, files map[string]TLSFiles) *tlsPair {
	t.Helper()
	a, b := testConfig(t), testConfig(t)
	a.Peer.TLS, b.Peer.TLS = files["alpha"], files["beta"]
	b.Node, b.Nodes = "beta", map[string]string{"alpha": "127.0.0.1:1"} // alpha dials
	p := &tlsPair{}
	p.beta, p.atBeta = startReal(t, b)
	p.relay = startRelay(t, p.beta.Status().Peer.Addr)
	a.Nodes = map[string]string{"beta": p.relay.l.Addr().String()}
	p.alpha, p.atAlpha = startReal(t, a)
	makeReal(t, p.atBeta, "data", Peer{Name: "alpha"})
	makeReal(t, p.atAlpha, "data", Peer{Name: "beta"})
	awaitVolume(t, p.atAlpha, func(st *mirror.Status) bool { return st.Peers[0].Connection == mirror.Connected })
	serving(t, p.atAlpha, "data")
	p.awaitMember(t)
	return p
}

func (p *tlsPair) awaitMember(t *testing.T) {
	t.Helper()
	awaitVolume(t, p.atAlpha, func(st *mirror.Status) bool {
		return st.Peers[0].Connection == mirror.Connected && st.Peers[0].Member
	})
}

// reconnect cuts the two off and returns once they mirror again, on another connection.
func (p *tlsPair) reconnect(t *testing.T) {
	t.Helper()
	p.relay.cut()
	awaitVolume(t, p.atAlpha, func(st *mirror.Status) bool {
		p.relay.mu.Lock()
		again := len(p.relay.conns) > 0
		p.relay.mu.Unlock()
		return again && st.Peers[0].Connection == mirror.Connected
	})
	p.awaitMember(t)
}

// TestPeersOverTLS: two nodes mirror, and whoever is in between sees nothing of it.
func TestPeersOverTLS(t *testing.T) {
	const secret = "what the client wrote is nobody's business"
	run := func(t *testing.T, files map[string]TLSFiles) *relay {
		p := startPair(t, files)
		nbd := attach(t, p.alpha, "data")
		defer nbd.Close()
		if _, err := nbd.WriteAt(bytes.Repeat([]byte(secret+"\n......................"), 64<<10/64), 4096); err != nil {
			t.Fatal(err)
		}
		if err := nbd.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.atAlpha.Demote(t.Context(), "data"); err != nil {
			t.Fatal(err)
		}
		awaitVolume(t, p.atBeta, func(st *mirror.Status) bool { return st.Peers[0].Connection == mirror.Connected })
		serving(t, p.atBeta, "data")
		there := attach(t, p.beta, "data")
		defer there.Close()
		got := make([]byte, len(secret))
		if _, err := there.ReadAt(got, 4096); err != nil || string(got) != secret {
			t.Errorf("on the other node: %q, %v", got, err)
		}
		return p.relay
	}
	words := []string{secret, "LOCKSTEP", "data", "alpha", "beta"}
	t.Run("without", func(t *testing.T) { // what the relay is to see, were it not for TLS
		r := run(t, nil)
		for _, word := range words {
			if !r.saw(word) {
				t.Errorf("the relay did not see %q", word)
			}
		}
	})
	t.Run("with", func(t *testing.T) {
		r := run(t, madeKeys(t, "alpha", "beta"))
		for _, word := range words {
			if r.saw(word) {
				t.Errorf("%q was on the wire", word)
			}
		}
		if r.seen.Len() < 64<<10 {
			t.Errorf("the relay saw %d bytes: the nodes speak past it", r.seen.Len())
		}
	})
}

// TestKeysRotate: a CA is replaced by another, and all keys with it, under two nodes
// that go on running.
func TestKeysRotate(t *testing.T) {
	used, old, next := madeKeys(t, "alpha", "beta"), madeKeys(t, "alpha", "beta"), madeKeys(t, "alpha", "beta")
	put := func(node string, ca []string, from TLSFiles) {
		t.Helper()
		var cas []byte
		for _, path := range ca {
			cas = append(cas, read(t, path)...)
		}
		for path, text := range map[string][]byte{used[node].CA: cas, used[node].Cert: read(t, from.Cert), used[node].Key: read(t, from.Key)} {
			if err := writeWhole(path, text); err != nil {
				t.Fatal(err)
			}
		}
	}
	oldCA, nextCA := old["alpha"].CA, next["alpha"].CA
	for node := range used {
		put(node, []string{oldCA}, old[node])
	}
	p := startPair(t, used)
	steps := []func(){
		func() { put("alpha", []string{oldCA, nextCA}, old["alpha"]) },
		func() { put("beta", []string{oldCA, nextCA}, old["beta"]) },
		func() { put("alpha", []string{oldCA, nextCA}, next["alpha"]) },
		func() { put("beta", []string{oldCA, nextCA}, next["beta"]) },
		func() { put("alpha", []string{nextCA}, next["alpha"]) },
		func() { put("beta", []string{nextCA}, next["beta"]) },
	}
	dial := func(files TLSFiles) error {
		t.Helper()
		conn, err := (&peerTLS{files, "alpha"}).dial(t.Context(), dialPeer(t, p.beta), "beta")
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := mirror.WritePreamble(conn, mirror.Preamble{Volume: "no such", Node: "alpha"}); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1)) // beta refuses the volume, in words
		return err
	}
	for i, step := range steps {
		step()
		p.reconnect(t)
		if err := dial(used["alpha"]); err != nil {
			t.Fatalf("after step %d: %v", i, err)
		}
	}
	// Whom the old CA vouches for is nobody any more, to beta as to alpha.
	stale := TLSFiles{CA: used["alpha"].CA, Cert: old["alpha"].Cert, Key: old["alpha"].Key}
	stranger, _ := stale.read("alpha")
	c := stranger.config()
	c.InsecureSkipVerify = true
	conn := tls.Client(dialPeer(t, p.beta), c)
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Errorf("a certificate of the old CA: %d bytes, %v", n, err)
	}
	if err := dial(old["alpha"]); err == nil || !strings.Contains(err.Error(), "did not prove to be node \"beta\"") {
		t.Errorf("who trusts the old CA: %v", err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// An impostor is a TLS end that tries to pass for a node.
type impostor struct {
	name  string
	files TLSFiles
	// change makes something of the honest configuration.
	change func(*tls.Config)
}

// impostors try to be node; their victim believes ca.
func impostors(t *testing.T, dir, node string) []impostor {
	right := madeKeysIn(t, dir, time.Now(), node, "gamma")
	return []impostor{
		{"of another CA", madeKeys(t, node)[node], nil},
		{"another node of the CA", right["gamma"], nil},
		{"an NBD client of that name", madeClientKeys(t, dir, node)[node], nil},
		{"expired", madeKeysExpired(t, dir, node), nil},
		{"not yet", madeKeysAt(t, dir, time.Now().AddDate(0, 0, 3), node), nil},
		{"TLS 1.2", right[node], func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		{"without a certificate", right[node], func(c *tls.Config) { c.Certificates = nil }},
		{"with the certificate alone", right[node], func(c *tls.Config) {
			c.Certificates[0].PrivateKey = madeIdentity(t, madeKeys(t, node)[node]).cert.PrivateKey
		}},
		{"the CA's own certificate without its key", right[node], func(c *tls.Config) {
			chain, err := parseCertificates(read(t, right[node].CA))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates[0].Certificate = [][]byte{chain[0].Raw}
			c.Certificates[0].Leaf = nil
		}},
	}
}

// madeKeysAt makes keys by the CA in dir as it would at another time.
func madeKeysAt(t testing.TB, dir string, now time.Time, node string) TLSFiles {
	t.Helper()
	k := NodeKeys{Node: node, Dir: t.TempDir()}
	k.CA, k.Cert, k.Key = k.Dir+"/ca.crt", k.Dir+"/node.crt", k.Dir+"/node.key"
	ca, err := openCA(&KeyFiles{Cert: dir + "/ca.crt", Key: dir + "/ca.key"}, now)
	if err == nil {
		err = ca.issue(k.Dir, k.CA, &k.KeyFiles, nodeCertificate(node), now)
	}
	if err != nil {
		t.Fatal(err)
	}
	return TLSFiles{k.CA, k.Cert, k.Key}
}

func madeKeysExpired(t testing.TB, dir, node string) TLSFiles {
	return madeKeysAt(t, dir, time.Now().AddDate(-nodeYears, 0, -1), node)
}

func madeIdentity(t testing.TB, f TLSFiles) identity {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := parseCAs(read(t, f.CA))
	if err != nil {
		t.Fatal(err)
	}
	return identity{roots: roots, cert: cert}
}

func (i impostor) config(t testing.TB) *tls.Config {
	c := madeIdentity(t, i.files).config()
	c.InsecureSkipVerify = true // they take whom they get
	c.ClientAuth = tls.RequireAnyClientCert
	if i.change != nil {
		i.change(c)
	}
	return c
}

// TestImpostorsStayOutside: nobody who is not the node that he says is let in, or told a
// word, by the side that is dialled.
func TestImpostorsStayOutside(t *testing.T) {
	dir := t.TempDir()
	c := testConfig(t)
	c.Peer.TLS = madeKeysIn(t, dir, time.Now(), "alpha")["alpha"]
	n, f, cl := startFakes(t, c)
	made(t, cl, "data")
	accepted := f.open["data"].accepted
	come := func(i impostor) (answer []byte, err error) {
		conn := tls.Client(dialPeer(t, n), i.config(t))
		if err := mirror.WritePreamble(conn, mirror.Preamble{Volume: "data", Node: "beta"}); err != nil {
			return nil, err
		}
		return io.ReadAll(conn)
	}
	for _, i := range impostors(t, dir, "beta") {
		answer, err := come(i)
		if len(answer) > 0 || len(accepted) > 0 {
			t.Errorf("%s: it was told %q (%v), and %d connections reached the volume", i.name, answer, err, len(accepted))
		}
	}
	if _, err := come(impostor{files: madeKeysIn(t, dir, time.Now(), "beta")["beta"]}); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("beta itself: %v", err) // a fake volume closes at once
	}
	if pre := <-accepted; pre.Node != "beta" {
		t.Errorf("%+v", pre)
	}
}

// TestImpostorsAreNotDialled: nor is a word said to one that a node dials.
func TestImpostorsAreNotDialled(t *testing.T) {
	dir := t.TempDir()
	c := testConfig(t)
	c.Peer.TLS = madeKeysIn(t, dir, time.Now(), "alpha")["alpha"]
	call := func(serve func(net.Conn) net.Conn) (heard []byte, err error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		done := make(chan []byte)
		go func() {
			raw, err := l.Accept()
			if err != nil {
				t.Error(err)
				done <- nil
				return
			}
			defer raw.Close()
			text, _ := io.ReadAll(serve(raw))
			done <- text
		}()
		conn, err := newDialer([]Peer{{"beta", l.Addr().String()}}, c).Dial(t.Context(), "beta")
		if err == nil {
			err = mirror.WritePreamble(conn, mirror.Preamble{Volume: "data", Node: "alpha"})
			conn.Close()
		}
		return <-done, err
	}
	for _, i := range impostors(t, dir, "beta") {
		config := i.config(t)
		heard, err := call(func(raw net.Conn) net.Conn { return tls.Server(raw, config) })
		if len(heard) > 0 || err == nil || !strings.Contains(err.Error(), `it did not prove to be node "beta": TLS: `) {
			t.Errorf("%s: it heard %q; %v", i.name, heard, err)
		}
	}
	heard, err := call(func(raw net.Conn) net.Conn {
		_, _ = raw.Write([]byte("220 welcome\r\n"))
		return raw
	})
	if err == nil || bytes.Contains(heard, []byte("LOCKSTEP")) || bytes.Contains(heard, []byte("alpha")) || bytes.Contains(heard, []byte("beta")) {
		t.Errorf("one without TLS heard %q; %v", heard, err)
	}
	config := impostor{files: madeKeysIn(t, dir, time.Now(), "beta")["beta"]}.config(t)
	heard, err = call(func(raw net.Conn) net.Conn { return tls.Server(raw, config) })
	if err != nil || !bytes.HasPrefix(heard, []byte("LOCKSTEP")) {
		t.Errorf("beta itself heard %q; %v", heard, err)
	}
}

// keepingConn keeps all that comes in.
type keepingConn struct {
	net.Conn
	in bytes.Buffer
}

func (c *keepingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Write(p[:n])
	return n, err
}

// TestStrangersLearnNothing: who has no certificate gets no byte of the peer protocol,
// not even a refusal, and without TLS no byte at all.
func TestStrangersLearnNothing(t *testing.T) {
	c := testConfig(t)
	c.Peer.TLS = madeKeys(t, "alpha")["alpha"]
	n, f, cl := startFakes(t, c)
	made(t, cl, "data")
	var preamble bytes.Buffer
	if err := mirror.WritePreamble(&preamble, mirror.Preamble{Volume: "data", Node: "beta"}); err != nil {
		t.Fatal(err)
	}
	old := bytes.Clone(preamble.Bytes())
	old[8], old[10] = 99, 99 // a version that would be refused in words
	for _, words := range [][]byte{preamble.Bytes(), old, []byte("GET / HTTP/1.1\r\n\r\n"), bytes.Repeat([]byte{0xff}, 4096)} {
		conn := dialPeer(t, n)
		if _, err := conn.Write(words); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(conn); len(got) > 0 { // the error may be a reset
			t.Errorf("%.20q was answered with %q", words, got)
		}
	}

	raw := &keepingConn{Conn: dialPeer(t, n)}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err) // its certificate is not looked at before it thinks to be done
	}
	if _, err := conn.Write(preamble.Bytes()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if len(got) > 0 || err == nil {
		t.Errorf("without a certificate: %q, %v", got, err)
	}
	for _, word := range []string{"LOCKSTEP", "data", "alpha"} {
		if strings.Contains(raw.in.String(), word) {
			t.Errorf("%q came in", word)
		}
	}
	if len(f.open["data"].accepted) > 0 {
		t.Error("a connection reached the volume")
	}
}

// TestStalledHandshakeHoldsNobodyUp: others are let in while it lasts.
func TestStalledHandshakeHoldsNobodyUp(t *testing.T) {
	files := madeKeys(t, "alpha", "beta")
	c := testConfig(t)
	c.Peer.TLS = files["alpha"]
	n, f, cl := startFakes(t, c)
	made(t, cl, "data")
	for range maxGreeting - 1 {
		if _, err := dialPeer(t, n).Write([]byte{22, 3, 1, 2, 0}); err != nil { // a record's header
			t.Fatal(err)
		}
	}
	conn, err := (&peerTLS{files["beta"], "beta"}).dial(t.Context(), dialPeer(t, n), "alpha")
	if err != nil {
		t.Fatal(err)
	}
	if err := mirror.WritePreamble(conn, mirror.Preamble{Volume: "data", Node: "beta"}); err != nil {
		t.Fatal(err)
	}
	<-f.open["data"].accepted
}

// TestStalledHandshakesEnd: those of whoever comes at greetingTime, that of one that is
// dialled with the context; nothing of them is left.
func TestStalledHandshakesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := madeKeys(t, "alpha", "beta") // by the bubble's clock
		alpha, beta := &peerTLS{files["alpha"], "alpha"}, &peerTLS{files["beta"], "beta"}
		l := &pipeListener{make(chan net.Conn, 1), make(chan struct{})}
		p := servePeers(l, alpha, slog.New(slog.DiscardHandler), func(net.Conn, mirror.Preamble, uint16) { t.Error("routed") })
		for what, begin := range map[string]func(net.Conn) (io.Reader, error){
			"in the handshake": func(c net.Conn) (io.Reader, error) {
				_, err := c.Write([]byte{22, 3, 1, 2, 0})
				return c, err
			},
			"before the preamble": func(c net.Conn) (io.Reader, error) { return beta.dial(t.Context(), c, "alpha") },
		} {
			ours, theirs := net.Pipe()
			l.conns <- theirs
			began := time.Now()
			r, err := begin(ours)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(greetingTime - time.Second) // of the bubble's clock
			if got, _ := io.ReadAll(r); len(got) > 0 || time.Since(began) != greetingTime {
				t.Errorf("%s: %q after %v", what, got, time.Since(began))
			}
		}
		p.Close()

		near, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := alpha.dial(ctx, near, "beta"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		near.Close()
	})
}

// TestCloseWaitsForNobody: a peer that reads nothing does not hold up who closes.
func TestCloseWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := madeKeys(t, "alpha", "beta")
		near, far := net.Pipe()
		accepted := make(chan error)
		go func() {
			_, err := (&peerTLS{files["beta"], "beta"}).accept(t.Context(), far)
			accepted <- err
		}()
		conn, err := (&peerTLS{files["alpha"], "alpha"}).dial(t.Context(), near, "beta")
		if err := errors.Join(err, <-accepted); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		conn.Close()
		if time.Since(began) != 0 {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}

// TestExpiredKeysAreWarnedOf: they keep no node from serving its clients.
func TestExpiredKeysAreWarnedOf(t *testing.T) {
	dir := t.TempDir()
	madeKeysIn(t, dir, time.Now(), "alpha")
	for _, tc := range []struct {
		now  time.Time
		want string
	}{
		{time.Now(), ""},
		{time.Now().AddDate(-nodeYears, 0, 20), "ends at"},
		{time.Now().AddDate(-nodeYears, 0, -1), "peers refuse it: x509: certificate has expired"},
		{time.Now().AddDate(0, 0, 3), "peers refuse it: x509: certificate has expired or is not yet valid"},
	} {
		var log bytes.Buffer
		c := testConfig(t)
		c.Peer.TLS = madeKeysAt(t, dir, tc.now, "alpha")
		n, err := start(Options{Config: c, Logger: NewLogger(LogConfig{Format: "text"}, &log)}, (&fakes{}).engine())
		if err != nil {
			t.Fatal(err)
		}
		stopNode(t, n)
		if got := strings.Contains(log.String(), "level=WARN"); got != (tc.want != "") || !strings.Contains(log.String(), tc.want) {
			t.Errorf("%v: want %q in\n%s", tc.now, tc.want, log.String())
		}
	}
}

// TestPlaintextStaysOnThisHost: without TLS no other host is dialled, also where its
// address was stored with the volume.
func TestPlaintextStaysOnThisHost(t *testing.T) {
	c := testConfig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is dialled in earnest
	dial := func() error {
		_, err := newDialer([]Peer{{"beta", "192.0.2.1:7790"}}, c).Dial(ctx, "beta")
		return err
	}
	if err := dial(); err == nil || !strings.Contains(err.Error(), "192.0.2.1:7790 is another host's, and without peer.tls") {
		t.Error(err)
	}
	c.Peer.AllowPlaintext = true
	if err := dial(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	c.Peer.AllowPlaintext, c.Peer.TLS = false, madeKeys(t, "alpha")["alpha"]
	if err := dial(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
