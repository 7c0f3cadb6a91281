package snapshot

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/store"
)

const (
	name     = "undo"
	dataName = "data"
)

// seed of every random test: LOCKSTEP_SEED, or a new one.
var seed uint64

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if seed, err = strconv.ParseUint(os.Getenv("LOCKSTEP_SEED"), 10, 64); err != nil {
		seed = rand.Uint64()
	}
	os.Exit(m.Run())
}

func seeded(t testing.TB) *rand.Rand {
	t.Logf("LOCKSTEP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sampleInfo(size int64) Info {
	return Info{ID: ID{1, 2, 3}, Size: size, Created: time.Unix(1700000000, 5), Note: []byte("a note")}
}

// A scene is a store of some blocks on a fake disk, and a snapshot of it.
type scene struct {
	dir   *fakedisk.FS
	store *store.Disk
	snap  *Snapshot
	image []byte // of the snapshot
	rng   *rand.Rand
	size  int64
}

// newScene has a store in which about half of the blocks are zeroes.
func newScene(rng *rand.Rand, blocks int, limit int64) (*scene, error) {
	s := &scene{dir: fakedisk.New(rng.Uint64()), rng: rng, size: int64(blocks) * BlockSize}
	f, err := s.dir.Create(dataName)
	if err != nil {
		return nil, err
	}
	s.image = make([]byte, s.size)
	for off := 0; off < len(s.image); off += BlockSize {
		if rng.IntN(2) == 0 {
			s.scribble(s.image[off : off+BlockSize])
		}
	}
	if _, err := f.WriteAt(s.image, 0); err != nil {
		return nil, err
	}
	s.store = store.OnDisk(f, s.size)
	if err := s.store.Sync(); err != nil {
		return nil, err
	}
	s.snap, err = Create(s.dir, name, sampleInfo(s.size), limit)
	return s, err
}

// scribble writes something into each sector of p.
func (s *scene) scribble(p []byte) {
	for i := 0; i < len(p); i += 512 {
		p[i] = byte(1 + s.rng.IntN(255))
	}
}

// overwrite preserves some ranges and then writes to them.
func (s *scene) overwrite() error {
	var ranges []Range
	for range 1 + s.rng.IntN(4) {
		off := s.rng.Int64N(s.size)
		ranges = append(ranges, Range{off, 1 + s.rng.Int64N(min(5*BlockSize, s.size-off))})
	}
	if err := s.snap.Preserve(s.store, ranges); err != nil {
		return err
	}
	for _, r := range ranges {
		var err error
		if s.rng.IntN(4) == 0 {
			err = s.store.Zero(r.Off, r.N, true)
		} else {
			p := make([]byte, r.N)
			s.scribble(p)
			_, err = s.store.WriteAt(p, r.Off)
		}
		if err != nil {
			return err
		}
	}
	if s.rng.IntN(3) == 0 {
		return s.store.Sync()
	}
	return nil
}

// reopen ends the process and begins another.
func (s *scene) reopen(limit int64) error {
	if err := s.snap.Close(); err != nil {
		return err
	}
	var err error
	s.snap, err = Open(s.dir, name, s.size, limit)
	return err
}

// read is the image as the snapshot gives it.
func (s *scene) read() ([]byte, error) {
	p := make([]byte, s.size)
	return p, s.snap.ReadAt(s.store, p, 0)
}

// mustBeWhole: the image reads as it was.
func (s *scene) mustBeWhole(t testing.TB) {
	t.Helper()
	p, err := s.read()
	must(t, err)
	if !bytes.Equal(p, s.image) {
		t.Fatal("the image is not the one that was begun")
	}
}

// openStore opens the store on another disk.
func openStore(dir disk.FS, size int64) (*store.Disk, error) {
	f, err := dir.Open(dataName)
	if err != nil {
		return nil, err
	}
	return store.OnDisk(f, size), nil
}

// fileOf is the snapshot's file.
func fileOf(t testing.TB, dir disk.FS) []byte {
	t.Helper()
	f, err := dir.Open(name)
	must(t, err)
	defer f.Close()
	n, err := f.Size()
	must(t, err)
	p := make([]byte, n)
	if k, err := f.ReadAt(p, 0); int64(k) < n {
		t.Fatal(err)
	}
	return p
}

// withFile is a disk with nothing but a snapshot's file.
func withFile(t testing.TB, p []byte) *fakedisk.FS {
	t.Helper()
	dir := fakedisk.New(1)
	f, err := dir.Create(name)
	must(t, err)
	_, err = f.WriteAt(p, 0)
	must(t, err)
	must(t, f.Datasync())
	must(t, f.Close())
	must(t, dir.SyncDir())
	return dir
}
