package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// echo serves what it reads, until the test ends.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func open(t *testing.T, delay time.Duration) (*Relay, net.Conn) {
	r, err := Listen("127.0.0.1:0", echo(t), delay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return r, c
}

func TestRelayDelaysAndKeepsEveryByte(t *testing.T) {
	const delay = 2 * time.Millisecond
	_, c := open(t, delay)
	sent := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
	start := time.Now()
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 2*delay {
		t.Errorf("the first byte was back after %v, want at least %v", d, 2*delay)
	}
	rest, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if got := append(first, rest...); !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, %d were sent, and they differ", len(got), len(sent))
	}
}

func TestCutClosesAndMendLetsThrough(t *testing.T) {
	r, c := open(t, 0)
	ping := func(c net.Conn) error {
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	if err := ping(c); err != nil {
		t.Fatal(err)
	}
	r.Cut()
	if err := ping(c); err == nil {
		t.Error("a cut connection still answers")
	}
	during, err := net.Dial("tcp", r.Addr())
	if err == nil {
		defer during.Close()
		err = ping(during)
	}
	if err == nil {
		t.Error("a connection made during the cut answers")
	}
	r.Mend()
	after, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if err := ping(after); err != nil {
		t.Errorf("after mending: %v", err)
	}
}

func TestSpoilFlipsOneBitOfAPiece(t *testing.T) {
	r, c := open(t, 0)
	sent := []byte("0123456789")
	for _, want := range []string{"01234%6789", "0123456789"} { // spoilt, then not
		if want[5] != sent[5] {
			r.Spoil(1)
		}
		got := make([]byte, len(sent))
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%q came back, want %q", got, want)
		}
	}
}

// What is held in one direction arrives later and whole; the other goes on.
func TestHoldKeepsBackOneDirection(t *testing.T) {
	for _, forth := range []bool{true, false} {
		r, c := open(t, 0)
		r.Hold(forth, !forth)
		sent := []byte("0123456789")
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(sent))
		early := make(chan error, 1)
		go func() { _, err := io.ReadFull(c, got); early <- err }()
		if !forth { // it reached the echo, whose answer is on its way back
			for r.Passed() < int64(2*len(sent)) {
				time.Sleep(time.Millisecond)
			}
		}
		select {
		case err := <-early:
			t.Fatalf("forth %v: bytes came through what is held (%v)", forth, err)
		case <-time.After(20 * time.Millisecond):
		}
		r.Hold(false, false)
		if err := <-early; err != nil || !bytes.Equal(got, sent) {
			t.Errorf("forth %v: after the hold %q came back (%v)", forth, got, err)
		}
	}
}

// A relay whose traffic is held can be closed.
func TestHeldRelayCloses(t *testing.T) {
	r, c := open(t, 0)
	r.Hold(true, true)
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	during, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer during.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
		t.Error("a byte came through a closed relay")
	}
}
