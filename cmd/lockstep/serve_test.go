package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/node"
)

// writeConfig gives a config file for a daemon of its own, and its admin socket.
func writeConfig(t *testing.T, more string) (file, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockstep-serve-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file, socket = filepath.Join(dir, "c.yaml"), filepath.Join(dir, "s")
	text := fmt.Sprintf("node: alpha\ndata-dir: %s/data\nadmin: %s\npeer: {listen: '127.0.0.1:0'}\n%s", dir, socket, more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, socket
}

// TestServeUntilSignalled runs a daemon as the process does: until it is told
// to stop, and with everything closed afterwards.
func TestServeUntilSignalled(t *testing.T) {
	file, socket := writeConfig(t, "nbd: {listen: '127.0.0.1:0'}\nlog: {format: json}\n")
	cfg, err := config(file)
	if err != nil {
		t.Fatal(err)
	}
	signals, ended := make(chan os.Signal, 2), make(chan error, 1)
	var log bytes.Buffer // read after the daemon has ended
	go func() { ended <- runDaemon(cfg, signals, &log) }()
	await(t, socket, ended)
	if status, out, errOut := lockstep("status", "--socket", socket); status != exitOK || !strings.Contains(out, "no volumes: make one with") {
		t.Error(status, out, errOut)
	}
	signals <- syscall.SIGTERM
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the admin socket is still there: %v", err)
	}
	if !strings.Contains(log.String(), `"msg":"stopped"`) {
		t.Error(log.String())
	}
}

// await returns once the daemon answers on its socket.
func await(t *testing.T, socket string, ended <-chan error) {
	t.Helper()
	for {
		cl := node.NewClient(socket)
		_, err := cl.Version(t.Context())
		cl.Close()
		if err == nil {
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("the daemon ended: %v", err)
		default:
		}
	}
}

func TestServePortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, _ := writeConfig(t, "nbd: {listen: '"+l.Addr().String()+"'}\n")
	status, _, errOut := lockstep("serve", "--config", file)
	if status != exitFailure || !strings.Contains(errOut, "lockstep: NBD: address "+l.Addr().String()+" is in use by another program: stop that one, or set nbd.listen") {
		t.Error(status, errOut)
	}
}

func TestServeListsEveryConfigError(t *testing.T) {
	file, _ := writeConfig(t, "nbd: {listen: x}\nlogs: {}\n")
	status, _, errOut := lockstep("serve", "-c", file)
	if status != exitFailure || !strings.Contains(errOut, file+":5: nbd.listen") || !strings.Contains(errOut, file+`:6: unknown key "logs" (did you mean "log"?)`) {
		t.Error(status, errOut)
	}
	if status, _, errOut = lockstep("serve", "--config", file+".no"); status != exitFailure || !strings.Contains(errOut, "no such file") {
		t.Error(status, errOut)
	}
}

func TestServeCheck(t *testing.T) {
	file, _ := writeConfig(t, "")
	if status, out, errOut := lockstep("serve", "--check", "--config", file); status != exitOK || !strings.HasPrefix(out, "the configuration is good: node alpha") {
		t.Error(status, out, errOut)
	}
}
