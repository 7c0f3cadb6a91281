package snapshot

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/store"
)

// Random overwrites, and the process ends now and then.
func TestImage(t *testing.T) {
	rng := seeded(t)
	for range 20 {
		s, err := newScene(rng, 1+rng.IntN(600), 0)
		must(t, err)
		for range 40 {
			must(t, s.overwrite())
			s.mustBeWhole(t)
			if rng.IntN(8) == 0 {
				must(t, s.reopen(0))
			}
		}
		must(t, s.snap.Verify())
		must(t, s.snap.Restore(s.store))
		p := make([]byte, s.size)
		_, err = s.store.ReadAt(p, 0)
		must(t, err)
		must(t, s.compare("the restored store", p))
		rep, err := Check(s.dir, name, s.size)
		must(t, err)
		if rep.Preserved != s.snap.Preserved() || rep.Used != s.snap.Used() || string(rep.Note) != "a note" {
			t.Errorf("Check found %+v; %d bytes are preserved, in %d", rep, s.snap.Preserved(), s.snap.Used())
		}
		must(t, s.snap.Discard())
		if _, err := Open(s.dir, name, s.size, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Discard: %v", err)
		}
	}
}

// A batch holds more than its limits only by being several: long data, and many
// entries.
func TestLargePreserve(t *testing.T) {
	const size = 96 << 20
	dir := fakedisk.New(1)
	st := store.NewMemory(size)
	p := bytes.Repeat([]byte{7}, 20<<20)
	_, err := st.WriteAt(p, 3*BlockSize)
	must(t, err)
	one := make([]byte, BlockSize)
	one[0] = 1
	for off := int64(24 << 20); off < 24<<20+40000*BlockSize && off < size; off += 2 * BlockSize { // data and zeroes in turn
		_, err := st.WriteAt(one, off)
		must(t, err)
	}
	s, err := Create(dir, name, sampleInfo(size), 0)
	must(t, err)
	before := make([]byte, size)
	_, err = st.ReadAt(before, 0)
	must(t, err)
	must(t, s.Preserve(st, []Range{{0, size}}))
	if s.Preserved() != size {
		t.Errorf("%d bytes preserved of %d", s.Preserved(), size)
	}
	must(t, st.Zero(0, size, true))
	must(t, s.Close())
	s, err = Open(dir, name, size, 0)
	must(t, err)
	got := make([]byte, size)
	must(t, s.ReadAt(st, got, 0))
	if !bytes.Equal(got, before) {
		t.Error("the image differs")
	}
}

// Each block is preserved once, whole, and zeroes without data.
func TestWhatIsPreserved(t *testing.T) {
	dir := fakedisk.New(1)
	const size = 64 << 20
	st := store.NewMemory(size)
	_, err := st.WriteAt([]byte{1}, 5*BlockSize)
	must(t, err)
	s, err := Create(dir, name, sampleInfo(size), 0)
	must(t, err)
	if _, err := Create(dir, name, sampleInfo(size), 0); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	for _, c := range []struct {
		ranges    []Range
		preserved int64 // then
		grows     int64 // the file
	}{
		{[]Range{{5*BlockSize + 100, 1}}, BlockSize, 2 * BlockSize},
		{[]Range{{5 * BlockSize, BlockSize}}, BlockSize, 0},
		{[]Range{{5*BlockSize - 1, 2}, {4 * BlockSize, 7}, {5*BlockSize - 3, 1}}, 2 * BlockSize, BlockSize},
		{[]Range{{7 * BlockSize, 0}}, 2 * BlockSize, 0},
		{[]Range{{0, size}}, size, BlockSize}, // holes, for a header's worth of entries
		{[]Range{{3, size - 3}}, size, 0},
	} {
		used := s.Used()
		must(t, s.Preserve(st, c.ranges))
		if s.Preserved() != c.preserved || s.Used()-used != c.grows {
			t.Errorf("%v: %d bytes preserved, the file grew by %d; want %d and %d", c.ranges, s.Preserved(), s.Used()-used, c.preserved, c.grows)
		}
	}
	must(t, s.Close())
	if err := s.Preserve(st, []Range{{0, 1}}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := Open(dir, name, 2*size, 0); !errors.Is(err, ErrMismatch) {
		t.Errorf("a volume of another size: %v", err)
	}
}

// At its limit nothing is overwritten, the image stays, and under a higher limit
// it goes on.
func TestLimit(t *testing.T) {
	rng := seeded(t)
	s, err := newScene(rng, 64, firstBatch+40*BlockSize)
	must(t, err)
	for err == nil {
		if s.snap.Used() > firstBatch+40*BlockSize {
			t.Fatalf("the file has %d bytes", s.snap.Used())
		}
		err = s.overwrite()
	}
	if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	s.mustBeWhole(t)
	must(t, s.reopen(0))
	for range 40 {
		must(t, s.overwrite())
	}
	s.mustBeWhole(t)

	s, err = newScene(rng, 64, 1<<20)
	must(t, err)
	if err := s.snap.Reserve(1 << 20); !errors.Is(err, ErrFull) {
		t.Errorf("more than the limit reserved: %v", err)
	}
	must(t, s.snap.Reserve(1<<19))
	must(t, s.overwrite())
}

// A disk that is full, when space is taken or when it is written to, is no
// failure: once there is space it goes on.
func TestFullDisk(t *testing.T) {
	for _, op := range []fakedisk.Op{fakedisk.OpReserve, fakedisk.OpWrite} {
		s, err := newScene(seeded(t), 64, 0)
		must(t, err)
		full := false
		s.dir.OnOp(func(o fakedisk.Op, file string) error {
			if full && o == op && strings.HasPrefix(file, name) {
				return syscall.ENOSPC
			}
			return nil
		})
		must(t, s.overwrite())
		s.snap.reserved = 0
		full = true
		if err := s.snap.Preserve(s.store, []Range{{0, s.size}}); !errors.Is(err, ErrFull) || errors.Is(err, ErrFailed) {
			t.Fatalf("%v fails with ENOSPC: %v", op, err)
		}
		if op == fakedisk.OpReserve {
			if err := s.snap.Reserve(1 << 30); !errors.Is(err, ErrFull) {
				t.Errorf("Reserve: %v", err)
			}
		}
		must(t, s.imageOn(s.dir.KillClone()))
		full = false
		for range 20 {
			must(t, s.overwrite())
		}
		s.mustBeWhole(t)
		must(t, s.imageOn(s.dir.CrashClone(fakedisk.LoseAll)))
	}
}

// Readers see the image while two writers overwrite the store, the same blocks
// among them.
func TestReadsWhileOverwritten(t *testing.T) {
	const blocks = 512
	dir := fakedisk.New(1)
	st := store.NewMemory(blocks * BlockSize)
	image := make([]byte, blocks*BlockSize)
	rng := seeded(t)
	for i := range image {
		image[i] = byte(rng.Uint32() & 1 * 7)
	}
	_, err := st.WriteAt(image, 0)
	must(t, err)
	s, err := Create(dir, name, sampleInfo(blocks*BlockSize), 0)
	must(t, err)
	var wg sync.WaitGroup
	for w := range uint64(2) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1+w))
			for range 400 {
				r := Range{rng.Int64N(blocks-8) * BlockSize, (1 + rng.Int64N(8)) * BlockSize}
				if err := s.Preserve(st, []Range{r}); err != nil {
					t.Error(err)
					return
				}
				_, _ = st.WriteAt(bytes.Repeat([]byte{0xee}, int(r.N)), r.Off)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	p := make([]byte, 64*BlockSize)
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		off := rng.Int64N(blocks*BlockSize - int64(len(p)))
		if err := s.ReadAt(st, p, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, image[off:off+int64(len(p))]) {
			t.Fatalf("read at %d sees what was written later", off)
		}
	}
	if err := s.ReadAt(st, p, blocks*BlockSize-1); err == nil {
		t.Error("read past the end")
	}
}

// TestIndex compares it with a plain array.
func TestIndex(t *testing.T) {
	rng := seeded(t)
	const blocks = 3 * regionSize / BlockSize
	ix, model := newIndex(), make([]bool, blocks)
	for range 4000 {
		off, n := rng.Int64N(blocks), 1+rng.Int64N(30)
		if rng.IntN(40) == 0 {
			n = 1 + rng.Int64N(blocks/8)
		}
		n = min(n, blocks-off)
		gaps := ix.missing([]Range{{off*BlockSize + rng.Int64N(BlockSize), (n-1)*BlockSize + 1}, {(off + n/2) * BlockSize, 1}}, blocks*BlockSize)
		var want int64
		for i := off; i < min(off+n+1, blocks); i++ {
			covered := false
			for _, g := range gaps {
				covered = covered || i*BlockSize >= g.Off && i*BlockSize < g.Off+g.N
			}
			if covered && (model[i] || i > off+n) || !covered && !model[i] && i < off+n {
				t.Fatalf("block %d of %d+%d: missing %v, in the model %v", i, off, n, covered, model[i])
			}
		}
		for _, g := range gaps {
			if !ix.insert(extent{off: g.Off, n: g.N}) || ix.insert(extent{off: g.Off, n: BlockSize}) {
				t.Fatalf("insert of %v", g)
			}
			for i := g.Off / BlockSize; i < (g.Off+g.N)/BlockSize; i++ {
				model[i] = true
			}
		}
		for _, set := range model {
			if set {
				want += BlockSize
			}
		}
		if ix.bytes != want {
			t.Fatalf("%d bytes, in the model %d", ix.bytes, want)
		}
	}
	last := int64(-1)
	must(t, ix.all(func(x extent) error {
		if x.off < last || x.off/regionSize != (x.end()-1)/regionSize {
			t.Fatalf("extent at %d with %d bytes after %d", x.off, x.n, last)
		}
		last = x.end()
		return nil
	}))
}

// overtaken is a store that is overwritten in the moment in which it is read.
type overtaken struct {
	*store.Memory
	before func()
}

func (o *overtaken) ReadAt(p []byte, off int64) (int, error) {
	if f := o.before; f != nil {
		o.before = nil
		f()
	}
	return o.Memory.ReadAt(p, off)
}

// A block that was not preserved when a read looked, and is overwritten before it
// reads, is read as it was.
func TestReadIsOvertaken(t *testing.T) {
	st := store.NewMemory(4 * BlockSize)
	old := bytes.Repeat([]byte{1}, 4*BlockSize)
	_, err := st.WriteAt(old, 0)
	must(t, err)
	s, err := Create(fakedisk.New(1), name, sampleInfo(4*BlockSize), 0)
	must(t, err)
	src := &overtaken{Memory: st, before: func() {
		must(t, s.Preserve(st, []Range{{BlockSize, 1}}))
		_, err := st.WriteAt([]byte{2}, BlockSize)
		must(t, err)
	}}
	p := make([]byte, 4*BlockSize)
	must(t, s.ReadAt(src, p, 0))
	if !bytes.Equal(p, old) {
		t.Error("the read saw what was written later")
	}
}

// On a real file system, which refuses to reserve nothing: a resync that has all that
// it overwrites already asks for that.
func TestReserveNothing(t *testing.T) {
	dir, err := disk.OS(t.TempDir())
	must(t, err)
	s, err := Create(dir, "s", Info{ID: ID{1}, Size: 1 << 20, Created: time.Now()}, 0)
	must(t, err)
	must(t, s.Reserve(0))
	must(t, s.Reserve(1<<20))
	must(t, s.Close())
}
