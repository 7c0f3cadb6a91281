package store

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/store/storetest"
)

// createDirect makes a file store and opens it past the page cache.
func createDirect(t testing.TB, opts FileOptions) *File {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "data")
	opts.Direct = true
	err := CreateFile(path, testSize, opts)
	if errors.Is(err, errNotDirect) {
		t.Skipf("%v: set TMPDIR to a directory on a disk", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return openDirect(t, path)
}

func openDirect(t testing.TB, path string) *File {
	t.Helper()
	s, err := OpenFile(path, FileOptions{Size: testSize, Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestDirect(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return createDirect(t, FileOptions{}) })
}

func TestDirectPreallocated(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return createDirect(t, FileOptions{Preallocate: true}) })
}

func TestDirectBlockDevice(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return openDirect(t, loopDevice(t)) })
}

// With blocks of 4096 bytes more of what the suite does is not aligned.
func TestDirectInLargeBlocks(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		s := createDirect(t, FileOptions{})
		for _, n := range []int64{s.direct.block, s.direct.mem} {
			if n > 4096 {
				t.Skipf("the file wants an alignment of %d already", n)
			}
		}
		s.direct = newDirect(s.f, 4096, 4096, 64<<10)
		return s
	})
}

// Of writes to different bytes of one block all survive, and zeroes too.
func TestDirectNeighboursInOneBlock(t *testing.T) {
	s := createDirect(t, FileOptions{})
	// Blocks of 4096 bytes, so that there is room for neighbours of every kind.
	s.direct = newDirect(s.f, max(s.direct.mem, 4096), max(s.direct.block, 4096), s.direct.zeroUnit)
	const writers, rounds, part, at = 8, 200, 500, 8192
	var wg sync.WaitGroup
	for w := range int64(writers) {
		wg.Go(func() {
			off := at + w*part
			for i := range rounds {
				p := bytes.Repeat([]byte{byte(1 + i)}, part)
				if i%4 == 3 {
					clear(p)
				}
				var err error
				switch {
				case i%4 == 3:
					err = s.Zero(off, part, i%8 == 3)
				case i%2 == 0:
					_, err = s.WriteAt(p, off)
				default:
					err = s.WritevAt([][]byte{p[:7], p[7:]}, off)
				}
				got := make([]byte, part)
				if _, rerr := s.ReadAt(got, off); err != nil || rerr != nil || !bytes.Equal(got, p) {
					t.Errorf("writer %d, round %d: what it wrote is taken back by a neighbour: % x…, not % x…; %v, %v", w, i, got[:4], p[:4], err, rerr)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A write of a whole block, which goes straight, is not taken back by a write of
// a part of it that read the block before: the bytes that only the former has
// are its own.
func TestDirectWholeBlockBesideAPart(t *testing.T) {
	s := createDirect(t, FileOptions{})
	n := s.direct.block
	buf := s.direct.bounce.Get().(*[]byte)
	whole := (*buf)[:n]
	if !s.direct.straight([][]byte{whole}, 0) {
		t.Fatal("a whole block does not go straight")
	}
	part := make([]byte, n)
	for i := range 1000 {
		for j := range whole {
			whole[j] = byte(1 + i)
		}
		// What a write of the first byte does, with the other one in its middle.
		held := s.direct.writing.begin(0, n)
		if err := s.direct.edge(part, 0); err != nil {
			t.Fatal(err)
		}
		part[0] = 0xff
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.WriteAt(whole, 0); err != nil {
				t.Error(err)
			}
		})
		if err := s.direct.write([][]byte{part}, 0, n); err != nil {
			t.Fatal(err)
		}
		s.direct.writing.done(held)
		wg.Wait()
		got := make([]byte, n)
		if _, err := s.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[1:], whole[1:]) {
			t.Fatalf("round %d: bytes that nobody else wrote are %#x, not %#x", i, got[1], whole[1])
		}
	}
}

// What is read, written and zeroed leaves nothing in the page cache, of whatever
// alignment it is.
func TestDirectLeavesThePageCacheEmpty(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) *File{
		"file":   func(t *testing.T) *File { return createDirect(t, FileOptions{}) },
		"device": func(t *testing.T) *File { return openDirect(t, loopDevice(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			if s.device { // whoever looked at the new device may have read it
				if err := unix.Fadvise(s.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
					t.Fatal(err)
				}
			}
			traffic(t, s)
			if n := cached(t, s.path); n != 0 {
				t.Errorf("%d pages are in the page cache", n)
			}
		})
	}
	// And it can be told: the same through the page cache is in it.
	if s := create(t, t.TempDir(), FileOptions{}); !s.memory {
		traffic(t, s)
		if cached(t, s.path) == 0 {
			t.Error("what went through the page cache does not show there")
		}
	}
}

// traffic is calls of every kind and alignment.
func traffic(t *testing.T, s *File) {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("LOCKSTEP_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("LOCKSTEP_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	buf := block.Get(512 << 10)
	defer buf.Unref()
	for range 100 {
		off, n := r.Int64N(testSize-512<<10), r.Int64N(512<<10)
		if r.IntN(2) == 0 {
			off, n = off&^4095, n&^4095
		}
		p := buf.Bytes()[:n]
		_, err := s.WriteAt(p, off)
		_, rerr := s.ReadAt(p, off)
		zerr := s.Zero(off+n/4, n/2, r.IntN(2) == 0)
		if err := errors.Join(err, rerr, zerr); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

// cached is how many of a file's pages are in the page cache.
func cached(t *testing.T, path string) (pages int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := unix.Mmap(int(f.Fd()), 0, testSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(p); err != nil {
			t.Error(err)
		}
	}()
	in := make([]byte, (testSize+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&p[0])), testSize, uintptr(unsafe.Pointer(&in[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, b := range in {
		pages += int(b & 1)
	}
	return pages
}

func TestDirectHasNoCacheToTry(t *testing.T) {
	s := createDirect(t, FileOptions{})
	p := make([]byte, 4096)
	if _, err := s.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if done, err := s.TryReadAt(p, 0); done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
}

// Every buffer that requests are made of goes straight where its offset does.
// Were it otherwise all would still be right, but copied.
func TestDirectTakesPooledBuffersAsTheyAre(t *testing.T) {
	s := createDirect(t, FileOptions{})
	for n := 4096; n <= block.MaxBuffer; n *= 2 {
		for range 3 { // not the first of a span only
			b := block.Get(n)
			defer b.Unref()
			if !s.direct.straight([][]byte{b.Bytes()}, 4096) {
				t.Errorf("a buffer of %d bytes at %p is copied, the file wants memory aligned to %d", n, b.Bytes(), s.direct.mem)
			}
		}
	}
}

// An empty buffer may lie anywhere.
func TestDirectEmptyBuffers(t *testing.T) {
	s := createDirect(t, FileOptions{})
	b := block.Get(8192)
	defer b.Unref()
	p := b.Bytes()
	for i := range p {
		p[i] = byte(1 + i/4096)
	}
	for _, bufs := range [][][]byte{{p[:4096], {}, p[4096:]}, {p[:4096], p[1:1], p[4096:]}, {p[7:7], p}, {p, nil}, {nil}, {}} {
		if err := s.WritevAt(bufs, 4096); err != nil {
			t.Errorf("%d buffers: %v", len(bufs), err)
		}
	}
	got := make([]byte, len(p))
	if _, err := s.ReadAt(got, 4096); err != nil || !bytes.Equal(got, p) {
		t.Errorf("it reads %d and %d: %v", got[0], got[4096], err)
	}
}

func TestDirectRefusals(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	err := CreateFile(odd, 1<<20+1, FileOptions{Direct: true})
	if errors.Is(err, errNotDirect) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "has 1048577 bytes, and direct I/O wants a multiple of") {
		t.Errorf("an odd size: %v", err)
	}
	if _, err := os.Lstat(odd); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CreateFile left its file: %v", err)
	}

	dir, err = os.MkdirTemp("/dev/shm", "store")
	if err != nil {
		t.Skipf("no tmpfs to try: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "data")
	if err := CreateFile(path, testSize, FileOptions{Direct: true}); err == nil || !strings.Contains(err.Error(), "leave direct off") {
		t.Errorf("create on tmpfs: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CreateFile left its file: %v", err)
	}
	if err := CreateFile(path, testSize, FileOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(path, FileOptions{Direct: true}); err == nil || !strings.Contains(err.Error(), "leave direct off") {
		t.Errorf("open on tmpfs: %v", err)
	}
	if s, err := OpenFile(path, FileOptions{}); err != nil {
		t.Errorf("a refusal keeps the file: %v", err)
	} else {
		s.Close()
	}
}
