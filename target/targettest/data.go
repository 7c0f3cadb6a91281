package targettest

import (
	"bytes"
	"errors"
	"math"
	"math/bits"
	"sync"

	"github.com/lockstep-storage/lockstep/block"
)

func testInfo(b *bench) {
	i := b.info
	if bits.OnesCount64(uint64(i.SectorSize)) != 1 {
		b.Errorf("SectorSize %d is no power of two", i.SectorSize)
	}
	if i.Size%max(i.SectorSize, 1) != 0 {
		b.Errorf("Size %d is not in whole sectors of %d", i.Size, i.SectorSize)
	}
	if i.PreferredSize%max(i.SectorSize, 1) != 0 {
		b.Errorf("PreferredSize %d is not in whole sectors of %d", i.PreferredSize, i.SectorSize)
	}
	if i.AtomicWrite < 0 || i.AtomicWrite > block.MaxBuffer || i.AtomicWrite%max(i.SectorSize, 1) != 0 {
		b.Errorf("AtomicWrite %d is not in whole sectors of %d, at most %d", i.AtomicWrite, i.SectorSize, block.MaxBuffer)
	}
	b.attach()
	if again := b.dev.Info(); again != i {
		b.Errorf("Info changed with a session attached: %+v, then %+v", i, again)
	}
}

func testWriteThenRead(b *bench) {
	s := b.attach()
	sector := b.info.SectorSize
	last := b.info.Size - sector
	for _, at := range []struct{ off, n int64 }{
		{0, sector}, {sector, 3 * sector}, {1<<20 - sector, 2 * sector}, {2 << 20, 1 << 20}, {last, sector},
	} {
		n := (at.n + sector - 1) / sector * sector
		want := pattern(n, 1)
		b.must(s, write(at.off, want))
		if !bytes.Equal(b.read(s, at.off, n), want) {
			b.Fatalf("%d bytes at %d: what was read is not what was written", n, at.off)
		}
		got := make([]byte, n)
		done, err := s.TryReadAt(got, at.off)
		if err != nil {
			b.Fatalf("TryReadAt of %d bytes at %d: %v", n, at.off, err)
		}
		if done && !bytes.Equal(got, want) {
			b.Fatalf("TryReadAt of %d bytes at %d is not what was written", n, at.off)
		}
	}
}

func testZeroesAndTrim(b *bench) {
	s := b.attach()
	const off, n = 1 << 20, 1 << 20
	for _, r := range []*block.Request{
		effect(block.OpWriteZeroes, off, n),
		{Op: block.OpWriteZeroes, Off: off, Len: n, NoHole: true},
		effect(block.OpTrim, off, n),
	} {
		around := pattern(3*n, 2)
		b.must(s, write(0, around))
		b.must(s, r)
		clear(around[off : off+n])
		if !bytes.Equal(b.read(s, 0, 3*n), around) {
			b.Errorf("after %v of %d bytes at %d (NoHole %v) these are not zeroes, or others are", r.Op, n, off, r.NoHole)
		}
	}
}

func testFlagsAndFlush(b *bench) {
	s := b.attach()
	w := write(0, pattern(1<<16, 3))
	w.FUA = true
	z := effect(block.OpWriteZeroes, 1<<20, 1<<16)
	z.FUA = true
	tr := effect(block.OpTrim, 2<<20, 1<<16)
	tr.FUA = true
	b.must(s, w, z, tr)
	b.must(s, &block.Request{Op: block.OpFlush})
	b.must(s, &block.Request{Op: block.OpFlush}, &block.Request{Op: block.OpFlush}) // nothing new, and two at once
	if !bytes.Equal(b.read(s, 0, 1<<16), pattern(1<<16, 3)) {
		b.Error("a write with FUA does not read back")
	}
}

func testLargeRequests(b *bench) {
	s := b.attach()
	n := min(b.info.Size, 8<<20) // above any record or buffer size, not a power of two
	n -= b.info.SectorSize
	want := pattern(n, 4)
	b.must(s, write(0, want))
	if !bytes.Equal(b.read(s, 0, n), want) {
		b.Fatalf("a write of %d bytes does not read back", n)
	}
	b.must(s, effect(block.OpWriteZeroes, 0, b.info.Size)) // the whole device at once
	if got := b.read(s, 0, n); !bytes.Equal(got, make([]byte, n)) {
		b.Fatal("write-zeroes of the whole device left something")
	}
}

// One that is submitted after another completed takes effect after it.
func testCompletedBeforeSubmitted(b *bench) {
	s := b.attach()
	const n = 64 << 10
	for i := range 50 {
		want := pattern(n, byte(i))
		b.must(s, write(0, pattern(n, byte(100+i))))
		b.must(s, write(0, want))
		if !bytes.Equal(b.read(s, 0, n), want) {
			b.Fatalf("round %d: the later write does not show", i)
		}
		b.must(s, effect(block.OpTrim, 0, n))
		if !bytes.Equal(b.read(s, 0, n), make([]byte, n)) {
			b.Fatalf("round %d: the trim after the write does not show", i)
		}
	}
}

// Writes that are in flight together may take effect in any order, but each
// sector is one or the other's.
func testInFlightTogether(b *bench) {
	s := b.attach()
	n := 16 * b.info.SectorSize
	var batch []*block.Request
	for i := range 64 {
		batch = append(batch, write(0, bytes.Repeat([]byte{byte(i + 1)}, int(n))))
		batch = append(batch, write(int64(i+1)*n, pattern(n, byte(i))))
	}
	batch = append(batch, &block.Request{Op: block.OpFlush})
	b.must(s, batch...)
	got := b.read(s, 0, n)
	for off := int64(0); off < n; off += b.info.SectorSize {
		sector := got[off : off+b.info.SectorSize]
		if v := sector[0]; v < 1 || v > 64 || !bytes.Equal(sector, bytes.Repeat([]byte{v}, len(sector))) {
			b.Fatalf("the sector at %d is a mixture: % x…", off, sector[:min(16, len(sector))])
		}
	}
	for i := range 64 {
		if !bytes.Equal(b.read(s, int64(i+1)*n, n), pattern(n, byte(i))) {
			b.Fatalf("write %d of the batch does not read back", i)
		}
	}
}

// Of writes of the size that is atomic over a crash one is there in whole, also
// where they are in flight together; a mixture would be neither of them. The
// crash itself is no matter for this suite.
func testAtomicWrites(b *bench) {
	n := min(b.info.AtomicWrite, b.info.Size)
	if n == 0 {
		b.Log("the device promises nothing")
		return
	}
	one, other := b.attach(), b.attach()
	off := b.info.Size - n
	for i := range 4 {
		w := b.waiter()
		mine, theirs := byte(2*i+1), byte(2*i+2)
		var wg sync.WaitGroup
		wg.Go(func() { w.submit(one, write(off, bytes.Repeat([]byte{mine}, int(n)))) })
		wg.Go(func() { w.submit(other, write(off, bytes.Repeat([]byte{theirs}, int(n)))) })
		wg.Wait()
		w.wait()
		for r, err := range w.errs {
			if err != nil {
				b.Fatalf("%v of %d bytes at %d: %v", r.Op, n, off, err)
			}
		}
		got := b.read(one, off, n)
		if v := got[0]; v != mine && v != theirs || bytes.Count(got, got[:1]) != len(got) {
			b.Fatalf("of two writes of %d bytes neither is there in whole: it begins with %d and has %d bytes of that", n, v, bytes.Count(got, got[:1]))
		}
	}
}

// The device may keep a buffer, but it does not change it.
func testBufferStaysIntact(b *bench) {
	s := b.attach()
	r := write(0, pattern(128<<10, 5))
	buf := r.Buf
	buf.Ref(1)
	defer buf.Unref()
	b.must(s, r)
	b.must(s, write(0, pattern(128<<10, 6)), &block.Request{Op: block.OpFlush})
	if !bytes.Equal(buf.Bytes(), pattern(128<<10, 5)) {
		b.Error("the device wrote into a request's buffer")
	}
}

func testOutOfRange(b *bench) {
	s := b.attach()
	sector, size := b.info.SectorSize, b.info.Size
	before := b.read(s, size-sector, sector)
	for _, off := range []int64{size, size - sector, size + sector, math.MaxInt64 / sector * sector, -sector} {
		n := 2 * sector
		if err := s.ReadAt(make([]byte, n), off); !errors.Is(err, block.ErrOutOfRange) {
			b.Errorf("read of %d bytes at %d: %v, want ErrOutOfRange", n, off, err)
		}
		if done, err := s.TryReadAt(make([]byte, n), off); done && !errors.Is(err, block.ErrOutOfRange) {
			b.Errorf("TryReadAt of %d bytes at %d: %v, want ErrOutOfRange", n, off, err)
		}
		for _, r := range []*block.Request{
			write(off, make([]byte, n)), effect(block.OpTrim, off, n), effect(block.OpWriteZeroes, off, n),
		} {
			if err := b.do(s, r); !errors.Is(err, block.ErrOutOfRange) {
				b.Errorf("%v of %d bytes at %d: %v, want ErrOutOfRange", r.Op, n, off, err)
			}
		}
	}
	if !bytes.Equal(b.read(s, size-sector, sector), before) {
		b.Error("a write that reaches beyond the end changed the last sector")
	}
}
