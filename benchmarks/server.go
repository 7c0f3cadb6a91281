package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/peer"
	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/daemon"
)

func startNbdkit(ctx context.Context, dir string, size int64) (*peer.Server, error) {
	file, addr, err := backing(dir, "nbdkit", size)
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(addr, ":")
	return peer.Start(ctx, peer.Server{Name: "nbdkit", Version: report.FirstLine("nbdkit", "--version"), URI: "nbd://" + addr + "/"}, "tcp", addr,
		"nbdkit", "-f", "-i", host, "-p", port, "file", file)
}

func startQemuNBD(ctx context.Context, dir string, size int64) (*peer.Server, error) {
	file, addr, err := backing(dir, "qemu-nbd", size)
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(addr, ":")
	return peer.Start(ctx, peer.Server{Name: "qemu-nbd", Version: report.FirstLine("qemu-nbd", "--version"), URI: "nbd://" + addr + "/data"}, "tcp", addr,
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
func startLockstep(ctx context.Context, bin, dir string, size int64) (*peer.Server, error) {
	addr, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	between, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	n, err := daemon.New(daemon.Config{Bin: bin, Dir: filepath.Join(dir, "single"), Name: "single", NBD: addr, Peer: between})
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
	return &peer.Server{Name: "lockstep", Version: report.FirstLine(bin, "version"), URI: "nbd://" + addr + "/data", Close: n.Close}, nil
}

// startMirror serves a volume that is mirrored to a peer, to and from which
// everything takes oneWay; 0 is without a relay between them.
func startMirror(ctx context.Context, bin, dir string, size int64, oneWay time.Duration) (*peer.Server, error) {
	p, err := daemon.NewPair(bin, dir, daemon.PairOptions{Relayed: oneWay > 0, OneWay: oneWay})
	if err != nil {
		return nil, err
	}
	if err := p.Create(ctx, "data", size); err != nil {
		p.Close()
		return nil, err
	}
	return &peer.Server{Name: "mirror", Version: report.FirstLine(bin, "version"), URI: "nbd://" + p.Alpha.NBD + "/data", Close: p.Close}, nil
}
