package journal

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
)

// content is a file whose bytes are given, and whose reads past broken fail.
type content struct {
	disk.File
	p      []byte
	broken int64
	reads  atomic.Int64
}

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	c.reads.Add(1)
	if off+int64(len(p)) > c.broken {
		return 0, errBroken
	}
	return copy(p, c.p[off:]), nil
}

// Whatever is asked for in whatever order comes out right, and what is asked for in
// order is read once.
func TestStream(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int64{5000, streamPiece, 17*streamPiece + 7000} {
		c := &content{p: make([]byte, size), broken: size}
		for i := range c.p {
			c.p[i] = byte(rng.Uint32())
		}
		var s stream
		check := func(off int64, n int) {
			t.Helper()
			got, err := s.at(off, n)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, c.p[off:off+int64(n)]) {
				t.Fatalf("other bytes at %d+%d of %d", off, n, size)
			}
		}
		s.begin(c, size)
		for off := int64(0); off < size; { // as a scan does, headers and payloads
			n := min(64, size-off)
			if rng.IntN(8) == 0 {
				n = min(1+rng.Int64N(MaxPayload), size-off)
			}
			check(off, int(n))
			off += n
			if rng.IntN(4) == 0 {
				off = min(padded(off), size)
			}
		}
		if want := (size + streamPiece - 1) / streamPiece; c.reads.Load() != want {
			t.Errorf("%d bytes in order took %d reads, want %d", size, c.reads.Load(), want)
		}
		s.begin(c, size)
		for range 100 {
			off := rng.Int64N(size)
			check(off, int(1+rng.Int64N(min(MaxPayload, size-off))))
		}
		s.stop()
	}
}

// What cannot be read is an error for whoever asks for it, and for nobody else.
func TestStreamReadsAheadOfAnError(t *testing.T) {
	const size, broken = 8 * streamPiece, 4 * streamPiece
	c := &content{p: make([]byte, size), broken: broken}
	var s stream
	defer s.stop()
	s.begin(c, size)
	for off := int64(0); off < broken; off += 4096 {
		if _, err := s.at(off, 4096); err != nil {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	for range 2 {
		if _, err := s.at(broken, 4096); err != errBroken {
			t.Fatalf("what is broken was read: %v", err)
		}
	}
}
