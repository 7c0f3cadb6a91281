package iscsi

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/iscsi"
	"github.com/lockstep-storage/lockstep/target/memory"
)

const size = 100 << 20

// serve offers a device in memory, and returns the URL of its unit.
func serve(t *testing.T, initiators ...iscsi.Initiator) (portal, target string) {
	exports := exported(t)
	s, err := iscsi.NewServer(exports, iscsi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddTarget(iscsi.Target{Export: "data", VolumeID: [16]byte{1, 2, 3}, Initiators: initiators}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(l)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		<-served
		if st := s.Stats(); st != (iscsi.Stats{}) {
			t.Errorf("left behind: %+v", st)
		}
	})
	return l.Addr().String(), iscsi.NamePrefix + "data"
}

func exported(t *testing.T) *target.Exports {
	x := new(target.Exports)
	if err := x.Add(target.Export{Name: "data", Device: memory.Sized(size)}); err != nil {
		t.Fatal(err)
	}
	return x
}
