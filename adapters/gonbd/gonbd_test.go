package gonbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/server"

	"github.com/lockstep-storage/lockstep/adapters/gonbd"
	"github.com/lockstep-storage/lockstep/adapters/internal/pair"
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// A program built on go-nbd serves a device in place of a file; a mirror.Volume that is
// Primary is one.
func Example() {
	backend, err := gonbd.Open(context.Background(), memory.Sized(1<<20), gonbd.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Close()
	exports := []*server.Export{{Name: "data", Backend: backend}}
	options := &server.Options{MinimumBlockSize: uint32(backend.Info().SectorSize)}
	serve := func(conn net.Conn) error { return server.Handle(conn, exports, options) }
	_ = serve // for each connection that a listener accepts
	size, _ := backend.Size()
	fmt.Println(size)
	// Output: 1048576
}

// TestVolumeOverGoNBD: what qemu's client writes through go-nbd's server is on both
// replicas, and is read back.
func TestVolumeOverGoNBD(t *testing.T) {
	const size = 16 << 20
	p := pair.New(t, size)
	backend, err := gonbd.Open(t.Context(), p.Primary, gonbd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			err = server.Handle(conn, []*server.Export{{Name: "data", Backend: backend}},
				&server.Options{MinimumBlockSize: uint32(backend.Info().SectorSize), SupportsMultiConn: true})
			conn.Close()
			t.Logf("a connection ended: %v", err)
		}
	}()
	url := "nbd://" + l.Addr().String() + "/data"
	noise, want := pair.Noise(t, size)
	back := filepath.Join(t.TempDir(), "back")
	pair.Run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", noise, url)
	pair.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", noise, url)
	pair.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", url, back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is read back is something else, or: %v", err)
	}
	l.Close()
	<-served
	if err := backend.Sync(); err != nil {
		t.Fatal(err)
	}
	backend.Close()
	if !bytes.Equal(p.Image(t), want) {
		t.Error("the other replica has something else")
	}
}

// TestDurable: with that option a write is flushed before it is answered.
func TestDurable(t *testing.T) {
	for _, durable := range []bool{false, true} {
		flushes := 0
		dev := memory.New(memory.Options{Info: memory.Sized(8192).Info(), Fault: func(a memory.Access) error {
			if a.Op == block.OpFlush {
				flushes++
				return errors.New("the disk fails")
			}
			return nil
		}})
		b, err := gonbd.Open(t.Context(), dev, gonbd.Options{Durable: durable})
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.WriteAt(make([]byte, 512), 0)
		if flushed := flushes == 1; flushed != durable || (err != nil) != durable {
			t.Errorf("durable: %v; flushes %d, error %v", durable, flushes, err)
		}
		b.Close()
	}
}
