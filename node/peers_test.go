package node

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

func dialPeer(t *testing.T, n *Node) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", n.Status().Peer.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestPeerIsRoutedToItsVolume(t *testing.T) {
	n, f, cl := startFakes(t, testConfig(t))
	made(t, cl, "one")
	made(t, cl, "two")
	if err := mirror.WritePreamble(dialPeer(t, n), mirror.Preamble{Volume: "two", Node: "beta"}); err != nil {
		t.Fatal(err)
	}
	if pre := <-f.open["two"].accepted; pre.Node != "beta" || pre.Volume != "two" {
		t.Errorf("%+v", pre)
	}
}

func TestPeerOfNoVolumeIsRefusedWithASentence(t *testing.T) {
	c := testConfig(t)
	c.Volumes = map[string]Overrides{"ghost": {}}
	n, _, _ := startFakes(t, c)
	for volume, want := range map[string]string{
		"data":  `node "alpha" has no volume "data": run ` + "`lockstep create` there, or take it off that volume's peers on node \"beta\"",
		"ghost": `on node "alpha", volume "ghost" is not open`,
	} {
		conn := dialPeer(t, n)
		if err := mirror.WritePreamble(conn, mirror.Preamble{Volume: volume, Node: "beta"}); err != nil {
			t.Fatal(err)
		}
		kind, body, err := mirror.NewFrameReader(bufio.NewReader(conn)).Next()
		if err != nil || kind != mirror.FrameRefuse {
			t.Fatal(kind, err)
		}
		if !strings.Contains(string(body), want) {
			t.Errorf("%q: %q; want %q", volume, body, want)
		}
	}
}

func TestPeerThatTalksNonsenseIsClosed(t *testing.T) {
	n, f, cl := startFakes(t, testConfig(t))
	made(t, cl, "data")
	for _, nonsense := range []string{"GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 4096), "LOCKSTEP\x01\x00\x01\x00\xff\xff\x00\x00"} {
		conn := dialPeer(t, n)
		if _, err := conn.Write([]byte(nonsense)); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(conn); len(got) > 0 { // the error may be a reset
			t.Errorf("%.20q was answered with %q", nonsense, got)
		}
	}
	if err := mirror.WritePreamble(dialPeer(t, n), mirror.Preamble{Volume: "data", Node: "beta"}); err != nil {
		t.Fatal(err)
	}
	<-f.open["data"].accepted
}

// pipeListener hands out the ends of pipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestSilentPeersAreBounded: connections that say nothing hold maxGreeting
// slots, no more, and each for greetingTime.
func TestSilentPeersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{make(chan net.Conn, 3*maxGreeting), make(chan struct{})}
		p := servePeers(l, nil, slog.New(slog.DiscardHandler), func(net.Conn, mirror.Preamble, uint16) { t.Error("routed") })
		var silent []net.Conn
		for range 2 * maxGreeting {
			ours, theirs := net.Pipe()
			silent = append(silent, ours)
			l.conns <- theirs
		}
		synctest.Wait()
		if waiting := len(l.conns); waiting != maxGreeting {
			t.Errorf("%d connections wait to be accepted, %d expected", waiting, maxGreeting)
		}
		time.Sleep(greetingTime) // of the bubble's clock
		synctest.Wait()
		if waiting := len(l.conns); waiting != 0 {
			t.Errorf("%d connections still wait", waiting)
		}
		if _, err := silent[0].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the first one is still open: %v", err)
		}
		p.Close() // drops the others at once
		for _, c := range silent {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("open after Close: %v", err)
			}
		}
	})
}
