package main

import (
	"context"
	"net"
	"path/filepath"

	"github.com/lockstep-storage/lockstep/benchmarks/peer"
	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/daemon"
)

// nbdkit serves a file, on a unix socket where its client is on the same node, else
// over TCP.
func (b *bench) nbdkit(ctx context.Context, name, file string, local bool) (*peer.Server, error) {
	s := peer.Server{Name: name, Version: report.FirstLine("nbdkit", "--version")}
	b.report.Versions["nbdkit"] = s.Version
	if local {
		socket := filepath.Join(b.dir, name+".sock")
		s.URI = "nbd+unix:///?socket=" + socket
		return peer.Start(ctx, s, "unix", socket, "nbdkit", "-f", "-U", socket, "file", file)
	}
	addr, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	s.URI = "nbd://" + addr
	return peer.Start(ctx, s, "tcp", addr, "nbdkit", "-f", "-i", host, "-p", port, "file", file)
}
