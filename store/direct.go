//go:build linux

package store

import (
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"

	"github.com/lockstep-storage/lockstep/disk"
)

// bounceSize is the largest piece, in bytes, in which what is not aligned is
// read and written. No block is larger.
const bounceSize = 256 << 10

// direct reads and writes a file that is open with O_DIRECT, for callers who
// know nothing of alignment. A call whose buffers, offset and lengths all are
// aligned goes straight to the kernel; any other goes through an aligned buffer
// of bounceSize, for which the blocks at its two edges are read first if it does
// not cover them.
//
// Invariant: while a call writes a block, no other one writes it (writing). So
// of two writes to different bytes of one block neither takes the other back.
// Reads take no lock: what a call writes into a block beside its own bytes is
// what is there.
type direct struct {
	f  *os.File
	fd int
	// mem is what a buffer's address is a multiple of, block what the offset and
	// the length are; bytes, powers of two.
	mem, block int64
	// zeroUnit is a multiple of block: only whole units are zeroed by the file
	// system, which may do parts of its own blocks through the page cache.
	zeroUnit int64

	bounce  sync.Pool // of *[]byte, bounceSize long and aligned
	writing spans
}

func newDirect(f *os.File, mem, block, zeroUnit int64) *direct {
	d := &direct{f: f, fd: int(f.Fd()), mem: mem, block: block, zeroUnit: max(zeroUnit, block)}
	d.bounce.New = func() any {
		p := make([]byte, bounceSize+mem)
		skip := -int64(uintptr(unsafe.Pointer(&p[0]))) & (mem - 1)
		p = p[skip : skip+bounceSize]
		return &p
	}
	d.writing.free.L = &d.writing.mu
	return d
}

// straight reports whether the kernel takes bufs as they are. Some look
// at the address of an empty one too, so those are not given to it.
func (d *direct) straight(bufs [][]byte, off int64) bool {
	bits := off & (d.block - 1)
	for _, b := range bufs {
		if len(b) == 0 {
			return false
		}
		bits |= int64(len(b))&(d.block-1) | int64(uintptr(unsafe.Pointer(&b[0])))&(d.mem-1)
	}
	return bits == 0
}

func (d *direct) down(off int64) int64 { return off &^ (d.block - 1) }
func (d *direct) up(off int64) int64   { return d.down(off + d.block - 1) }

// ReadAt fills p; io.EOF means that the file ends before.
func (d *direct) ReadAt(p []byte, off int64) (n int, err error) {
	if d.straight([][]byte{p}, off) {
		return d.f.ReadAt(p, off)
	}
	piece := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(piece)
	for n < len(p) {
		from := d.down(off)
		b := (*piece)[:min(d.up(off+int64(len(p)-n))-from, bounceSize)]
		if _, err := d.f.ReadAt(b, from); err != nil {
			return n, err
		}
		k := copy(p[n:], b[off-from:])
		n, off = n+k, off+int64(k)
	}
	return n, nil
}

// WriteAt writes all of p, or returns an error.
func (d *direct) WriteAt(p []byte, off int64) (int, error) {
	if err := d.WritevAt([][]byte{p}, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WritevAt writes all of bufs, or returns an error.
func (d *direct) WritevAt(bufs [][]byte, off int64) error {
	end := off + vectorLen(bufs)
	if off == end {
		return nil
	}
	defer d.writing.done(d.writing.begin(d.down(off), d.up(end)))
	return d.write(bufs, off, end)
}

// write is WritevAt once nobody else writes the blocks.
func (d *direct) write(bufs [][]byte, off, end int64) error {
	if d.straight(bufs, off) {
		return disk.WriteVector(d.f, d.fd, bufs, off)
	}
	piece := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(piece)
	src := gather{bufs: bufs}
	for off < end {
		from := d.down(off)
		to := min(d.up(end), from+bounceSize)
		b, own := (*piece)[:to-from], min(end, to)
		first, last := b[:d.block], b[int64(len(b))-d.block:]
		if off > from {
			if err := d.edge(first, from); err != nil {
				return err
			}
		}
		if own < to && (off == from || len(b) > len(first)) {
			if err := d.edge(last, to-d.block); err != nil {
				return err
			}
		}
		src.fill(b[off-from : own-from])
		if _, err := d.f.WriteAt(b, from); err != nil {
			return err
		}
		off = own
	}
	return nil
}

// edge reads a block of which a write covers a part.
func (d *direct) edge(b []byte, off int64) error {
	_, err := d.f.ReadAt(b, off)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // somebody cut the file
	}
	if err != nil {
		return fmt.Errorf("read the block at offset %d, of which a part is to be written: %w", off, err)
	}
	return nil
}

// Zero makes n bytes at off zeroes: whole units by way of whole, which gets
// their range, the rest by writing.
func (d *direct) Zero(off, n int64, whole func(off, n int64) error) error {
	end := off + n
	defer d.writing.done(d.writing.begin(d.down(off), d.up(end)))
	from := (off + d.zeroUnit - 1) &^ (d.zeroUnit - 1)
	to := end &^ (d.zeroUnit - 1)
	if from >= to {
		return d.writeZeroes(off, end)
	}
	err := whole(from, to-from)
	if cannotZero(err) {
		err = d.writeZeroes(from, to)
	}
	if err == nil {
		err = d.writeZeroes(off, from)
	}
	if err == nil {
		err = d.writeZeroes(to, end)
	}
	return err
}

func (d *direct) writeZeroes(off, end int64) error {
	for off < end {
		k := min(end-off, int64(len(zeroes)))
		if err := d.write([][]byte{zeroes[:k]}, off, off+k); err != nil {
			return err
		}
		off += k
	}
	return nil
}

// gather reads buffers one after the other.
type gather struct {
	bufs [][]byte
	at   int // in bufs[0]
}

// fill fills p with the next bytes; there are as many.
func (g *gather) fill(p []byte) {
	for len(p) > 0 {
		n := copy(p, g.bufs[0][g.at:])
		p = p[n:]
		if g.at += n; g.at == len(g.bufs[0]) {
			g.bufs, g.at = g.bufs[1:], 0
		}
	}
}

// spans are ranges of which no two that overlap are held at once. There are as
// many as there are calls under way.
type spans struct {
	mu   sync.Mutex
	free sync.Cond
	held []span
}

type span struct{ off, end int64 }

// begin waits until nothing that is held overlaps, and holds the range.
func (s *spans) begin(off, end int64) span {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.overlaps(off, end) {
		s.free.Wait()
	}
	s.held = append(s.held, span{off, end})
	return span{off, end}
}

func (s *spans) overlaps(off, end int64) bool {
	for _, h := range s.held {
		if off < h.end && h.off < end {
			return true
		}
	}
	return false
}

func (s *spans) done(x span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.held {
		if h == x { // no two are equal, for they would overlap
			last := len(s.held) - 1
			s.held[i] = s.held[last]
			s.held = s.held[:last]
			break
		}
	}
	s.free.Broadcast()
}
