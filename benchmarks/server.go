package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/daemon"
)

// A server serves one export of the benchmark's size, until it is closed.
type server struct {
	name    string
	version string
	uri     string
	close   func()
}

// process starts a foreign server and waits until it accepts connections.
func process(ctx context.Context, name, version, addr, export string, args ...string) (*server, error) {
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	stop := func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return &server{name, version, "nbd://" + addr + "/" + export, stop}, nil
		}
		select {
		case <-ctx.Done():
			stop()
			return nil, fmt.Errorf("%s does not come up (%w): %s", name, err, &stderr)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func startNbdkit(ctx context.Context, dir string, size int64) (*server, error) {
	file, addr, err := backing(dir, "nbdkit", size)
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(addr, ":")
	return process(ctx, "nbdkit", report.FirstLine("nbdkit", "--version"), addr, "",
		"nbdkit", "-f", "-i", host, "-p", port, "file", file)
}

func startQemuNBD(ctx context.Context, dir string, size int64) (*server, error) {
	file, addr, err := backing(dir, "qemu-nbd", size)
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(addr, ":")
	return process(ctx, "qemu-nbd", report.FirstLine("qemu-nbd", "--version"), addr, "data",
		"qemu-nbd", "-t", "-e", "8", "-f", "raw", "--cache=writeback", "--aio=threads", "-x", "data", "-b", host, "-p", port, file)
}

// backing makes the file that a foreign server serves and finds it a port.
func backing(dir, name string, size int64) (file, addr string, err error) {
	file = filepath.Join(dir, name+".img")
	f, err := os.Create(file)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return "", "", err
	}
	addr, err = daemon.FreeAddress()
	return file, addr, err
}

// startLockstep serves one volume without peers.
func startLockstep(ctx context.Context, bin, dir string, size int64) (*server, error) {
	addr, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	peer, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	n, err := daemon.New(daemon.Config{Bin: bin, Dir: filepath.Join(dir, "single"), Name: "single", NBD: addr, Peer: peer})
	if err != nil {
		return nil, err
	}
	if err = n.Start(ctx); err == nil {
		_, err = n.CLI(ctx, "create", "data", "--size", fmt.Sprint(size))
	}
	if err == nil {
		_, err = n.CLI(ctx, "promote", "data")
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	return &server{"lockstep", report.FirstLine(bin, "version"), "nbd://" + addr + "/data", n.Close}, nil
}

// startMirror serves a volume that is mirrored to a peer, to and from which
// everything takes oneWay; 0 is without a relay between them.
func startMirror(ctx context.Context, bin, dir string, size int64, oneWay time.Duration) (*server, error) {
	p, err := daemon.NewPair(bin, dir, daemon.PairOptions{Relayed: oneWay > 0, OneWay: oneWay})
	if err != nil {
		return nil, err
	}
	if err := p.Create(ctx, "data", size); err != nil {
		p.Close()
		return nil, err
	}
	return &server{"mirror", report.FirstLine(bin, "version"), "nbd://" + p.Alpha.NBD + "/data", p.Close}, nil
}
