package nbdclient_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd"
	"github.com/lockstep-storage/lockstep/target/nbd/nbdclient"
)

// serve exports dev as "disk" and gives the server's address.
func serve(t *testing.T, dev block.Device) string {
	t.Helper()
	var x target.Exports
	if err := x.Add(target.Export{Name: "disk", Description: "for tests", Device: dev}); err != nil {
		t.Fatal(err)
	}
	srv, err := nbd.NewServer(&x, nbd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Shutdown(context.Background()) })
	return l.Addr().String()
}

func dial(t *testing.T, addr string) *nbdclient.Client {
	t.Helper()
	c, err := nbdclient.Dial(t.Context(), "tcp", addr, "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestListAndQuery(t *testing.T) {
	addr := serve(t, memory.Sized(1<<20))
	list, err := nbdclient.List(t.Context(), "tcp", addr)
	if err != nil || !slices.Equal(list, []nbdclient.Export{{Name: "disk", Description: "for tests"}}) {
		t.Errorf("List: %v, %v", list, err)
	}
	info, err := nbdclient.Query(t.Context(), "tcp", addr, "disk")
	want := nbdclient.Info{
		Name: "disk", Description: "for tests", Size: 1 << 20, Flush: true, FUA: true, Trim: true, WriteZeroes: true,
		MultiConn: true, MinBlock: 512, PreferredBlock: 4096, MaxPayload: 32 << 20,
	}
	if err != nil || info != want {
		t.Errorf("Query: %+v, %v", info, err)
	}
	if _, err := nbdclient.Query(t.Context(), "tcp", addr, "nosuch"); !errors.Is(err, nbdclient.ErrRefused) {
		t.Errorf("Query of no export: %v", err)
	}
	if _, err := nbdclient.Dial(t.Context(), "tcp", addr, "nosuch"); !errors.Is(err, nbdclient.ErrRefused) {
		t.Errorf("Dial to no export: %v", err)
	}
}

func TestReadWrite(t *testing.T) {
	dev := memory.Sized(80 << 20)
	c := dial(t, serve(t, dev))
	data := make([]byte, 70<<20) // three payloads
	for i := range data {
		data[i] = byte(i>>12) ^ byte(i)
	}
	if n, err := c.WriteAt(data, 512); n != len(data) || err != nil {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
	got := make([]byte, len(data))
	if n, err := c.ReadAt(got, 512); n != len(got) || err != nil || !bytes.Equal(got, data) {
		t.Fatalf("ReadAt: %d, %v", n, err)
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	if err := c.WriteZeroes(512, 1024, nbdclient.FUA|nbdclient.NoHole); err != nil {
		t.Error(err)
	}
	if err := c.Trim(2048, 512, 0); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(dev.Snapshot(512, 1024), make([]byte, 1024)) {
		t.Error("not zeroes")
	}
	if n, err := c.ReadAt(got[:1024], 80<<20-512); n != 512 || err != io.EOF {
		t.Errorf("read across the end: %d, %v", n, err)
	}
	_, err := c.WriteAt(data[:1024], 80<<20-512)
	var e *nbdclient.Error
	if !errors.As(err, &e) || e.Errno != nbdclient.ENOSPC || !errors.Is(err, nbdclient.ENOSPC) {
		t.Errorf("write across the end: %v", err)
	}
}

func TestManyInFlightOutOfOrder(t *testing.T) {
	dev := memory.Sized(1 << 20)
	c := dial(t, serve(t, dev))
	dev.Hold()
	const n = 60
	var all sync.WaitGroup
	for i := range int64(n) {
		all.Go(func() {
			if _, err := c.Write(bytes.Repeat([]byte{byte(i)}, 512), i*512, nbdclient.FUA); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	dev.AwaitHeld(n)
	dev.Release(func(rs []*block.Request) { slices.Reverse(rs) })
	all.Wait()
	for i := range int64(n) {
		all.Go(func() {
			p := make([]byte, 512)
			if _, err := c.ReadAt(p, i*512); err != nil || p[511] != byte(i) {
				t.Errorf("read %d: %v, %d", i, err, p[511])
			}
		})
	}
	all.Wait()
}

func TestCloseFailsWhatIsInFlight(t *testing.T) {
	dev := memory.Sized(1 << 20)
	c := dial(t, serve(t, dev))
	dev.Hold()
	defer dev.Release(nil)
	flushed := make(chan error, 1)
	go func() { flushed <- c.Flush() }()
	dev.AwaitHeld(1)
	c.Close()
	if err := <-flushed; !errors.Is(err, nbdclient.ErrClosed) {
		t.Errorf("flush in flight: %v", err)
	}
	if err := c.Flush(); !errors.Is(err, nbdclient.ErrClosed) {
		t.Errorf("flush after Close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close twice: %v", err)
	}
}

// A server that talks nonsense gets an error, not a hang or a panic.
func TestBadServers(t *testing.T) {
	greeting := "NBDMAGICIHAVEOPT\x00\x03"
	ack := "\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00"
	export := "\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x01"
	for name, says := range map[string]string{
		"nothing":        "",
		"http":           "HTTP/1.1 400 Bad Request\r\n\r\n",
		"oldstyle":       "NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00",
		"not fixed":      "NBDMAGICIHAVEOPT\x00\x00",
		"no answer":      greeting,
		"wrong answer":   greeting + "01234567890123456789",
		"no export info": greeting + ack,
		"4 GiB answer":   greeting + ack[:16] + "\xff\xff\xff\xff",
		"short info":     greeting + export[:19] + "\x02\x00\x00" + ack,
		"huge export":    greeting + export[:22] + "\xff\xff\xff\xff\xff\xff\xff\xff\x00\x01" + ack,
		"bad reply":      greeting + export + ack + "0123456789abcdef",
		"wrong cookie":   greeting + export + ack + "\x67\x44\x66\x98\x00\x00\x00\x00abcdefgh",
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			go func() {
				io.WriteString(theirs, says)
				theirs.Close()
			}()
			c, err := nbdclient.New(t.Context(), ours, "disk")
			if err != nil {
				return
			}
			defer c.Close()
			if err := c.Flush(); err == nil {
				t.Error("a flush succeeded")
			}
		})
	}
}

func TestDialGivesUp(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nbdclient.New(ctx, ours, "disk"); !errors.Is(err, context.Canceled) {
		t.Errorf("a silent server: %v", err)
	}
}

func FuzzServer(f *testing.F) {
	f.Add([]byte("NBDMAGICIHAVEOPT\x00\x03\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, says []byte) {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		go func() {
			theirs.Write(says)
			theirs.Close()
		}()
		if c, err := nbdclient.New(t.Context(), ours, ""); err == nil {
			c.ReadAt(make([]byte, 512), 0)
			c.Close()
		}
	})
}
