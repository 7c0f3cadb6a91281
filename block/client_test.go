package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// A program that reads and writes a device without knowing its requests.
func ExampleOpen() {
	dev := memory.Sized(1 << 20)
	c, err := block.Open(context.Background(), dev, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	sector := bytes.Repeat([]byte("lockstep"), 512)
	if _, err := c.WriteAt(sector, 8192); err != nil {
		log.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		log.Fatal(err)
	}
	got := make([]byte, len(sector))
	if _, err := c.ReadAt(got, 8192); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", got[:16])
	// Output: locksteplockstep
}

func open(t *testing.T, size int64) *block.Client {
	c, err := block.Open(context.Background(), memory.Sized(size), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestClientAgainstAnArray: at random, from several goroutines that each have a part of
// the device, and whose writes may complete in another order.
func TestClientAgainstAnArray(t *testing.T) {
	const part, sector, goroutines = 64 << 10, 512, 4
	c := open(t, goroutines*part)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for g := range int64(goroutines) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			want, base := make([]byte, part), g*part
			for range 300 {
				off := rng.Int64N(part/sector) * sector
				n := min(part-off, (1+rng.Int64N(16))*sector)
				switch rng.IntN(5) {
				case 0, 1:
					p := make([]byte, n)
					for i := range p {
						p[i] = byte(rng.Uint32())
					}
					copy(want[off:], p)
					if got, err := c.WriteAt(p, base+off); err != nil || got != len(p) {
						t.Errorf("write of %d: %d, %v", n, got, err)
					}
					clear(p) // ours again
				case 2:
					clear(want[off : off+n])
					zero := c.Trim
					if rng.IntN(2) == 0 {
						zero = c.WriteZeroes
					}
					if err := zero(base+off, n); err != nil {
						t.Error(err)
					}
				case 3:
					if err := c.Flush(); err != nil {
						t.Error(err)
					}
				default:
					p := make([]byte, n)
					if _, err := c.ReadAt(p, base+off); err != nil || !bytes.Equal(p, want[off:off+n]) {
						t.Errorf("%d bytes at %d are not what was written, or: %v", n, base+off, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestClientRefuses: what no device takes, and the end of the device.
func TestClientRefuses(t *testing.T) {
	c := open(t, 8192)
	p := make([]byte, 1024)
	for what, err := range map[string]error{
		"a write past the end":   second(c.WriteAt(p, 8192-512)),
		"a write before it":      second(c.WriteAt(p, -512)),
		"a read before it":       second(c.ReadAt(p, -512)),
		"a trim past the end":    c.Trim(8192, 512),
		"an offset near 2^63":    c.WriteZeroes(1<<63-512, 512),
		"a length below nothing": c.Trim(0, -512),
	} {
		if !errors.Is(err, block.ErrOutOfRange) {
			t.Errorf("%s: %v, ErrOutOfRange is wanted", what, err)
		}
	}
	for what, err := range map[string]error{
		"half a sector":        second(c.WriteAt(p[:100], 0)),
		"beside a sector":      second(c.ReadAt(p[:512], 100)),
		"zeroes on its border": c.WriteZeroes(256, 512),
	} {
		if err == nil {
			t.Errorf("%s: it is taken", what)
		}
	}
	if n, err := c.ReadAt(p, 8192-512); n != 512 || err != io.EOF {
		t.Errorf("a read over the end: %d, %v", n, err)
	}
	if n, err := c.ReadAt(p, 8192); n != 0 || err != io.EOF {
		t.Errorf("a read past the end: %d, %v", n, err)
	}
}

// TestClientWritesInParts: more than a buffer holds.
func TestClientWritesInParts(t *testing.T) {
	c := open(t, block.MaxBuffer+8192)
	p := make([]byte, block.MaxBuffer+4096)
	p[0], p[len(p)-1] = 1, 2
	if n, err := c.WriteAt(p, 4096); err != nil || n != len(p) {
		t.Fatalf("%d, %v", n, err)
	}
	got := make([]byte, len(p))
	if _, err := c.ReadAt(got, 4096); err != nil || !bytes.Equal(got, p) {
		t.Errorf("not what was written, or: %v", err)
	}
}

func second(_ int, err error) error { return err }
