package node

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = listen(Address{"tcp", l.Addr().String()}, "NBD", "nbd.listen", 0)
	want := "NBD: address " + l.Addr().String() + " is in use by another program: stop that one, or set nbd.listen to another address"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestListenElsewhere(t *testing.T) {
	if _, err := listen(Address{"tcp", "192.0.2.1:1"}, "NBD", "nbd.listen", 0); err == nil || !strings.Contains(err.Error(), "none of this host's") {
		t.Error(err)
	}
	if _, err := listen(Address{"unix", t.TempDir() + "/no/x"}, "admin API", "admin", 0); err == nil || !strings.Contains(err.Error(), "/no does not exist: make it") {
		t.Error(err)
	}
}

func TestListenSocketMode(t *testing.T) {
	for _, mode := range []os.FileMode{0o600, 0o660} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := listen(Address{"unix", path}, "admin API", "admin", mode)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%v, %v; want %v", st.Mode(), err, mode)
		}
	}
}

func TestListenStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(Address{"unix", path}, "admin API", "admin", 0o600); err == nil || !strings.Contains(err.Error(), "another daemon answers on") {
		t.Fatalf("a living socket: %v", err)
	}
	old.SetUnlinkOnClose(false) // as after SIGKILL
	old.Close()
	l, err := listen(Address{"unix", path}, "admin API", "admin", 0o600)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	l.Close()
}

func TestListenLeavesFilesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(Address{"unix", path}, "admin API", "admin", 0o600); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Error(err)
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("%q", text)
	}
}

func TestAddressLoopback(t *testing.T) {
	for text, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true, "unix:/x": true,
		"0.0.0.0:1": false, ":1": false, "[::]:1": false, "10.0.0.1:1": false, "example.org:1": false,
	} {
		a, err := ParseAddress(text)
		if err != nil || a.Loopback() != want {
			t.Errorf("%s: %v, %v", text, a.Loopback(), err)
		}
	}
}
