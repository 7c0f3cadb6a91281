package iscsi

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/iscsi"
	"github.com/lockstep-storage/lockstep/target/memory"
)

func TestServe(t *testing.T) {
	var x target.Exports
	if err := x.Add(target.Export{Name: "data", Device: memory.Sized(100 << 20)}); err != nil {
		t.Fatal(err)
	}
	s, err := iscsi.NewServer(&x, iscsi.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddTarget(iscsi.Target{Export: "data", VolumeID: [16]byte{1, 2, 3}}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:3261")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	time.Sleep(500 * time.Second)
	s.Shutdown(context.Background())
}
