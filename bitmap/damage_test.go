package bitmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

const (
	damageSize = 3*PageBytes + BlockSize
	name       = "peer.bitmap"
)

var damageBase = Base{Generation: [16]byte{1, 2, 3}, LSN: 77}

// written makes a bitmap of four pages with a block set in pages 0 and 2, and
// one of an earlier era in page 1.
func written(t *testing.T) *fakedisk.FS {
	t.Helper()
	dir := fakedisk.New(seed)
	m, err := Create(dir, name, damageSize, Base{LSN: 1})
	must(t, err)
	m.Set(PageBytes, 1)
	must(t, m.Flush())
	must(t, m.Reset(damageBase))
	m.Set(0, 1)
	m.Set(2*PageBytes, 1)
	must(t, m.Flush())
	must(t, m.Close())
	return dir
}

func must(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// alter changes page number i of a file. With seal its CRC is made right again;
// where says where the CRC is and what it covers.
func alter(t *testing.T, dir disk.FS, i int64, change func(p []byte), crcAt int) {
	t.Helper()
	f, err := dir.Open(name)
	must(t, err)
	defer f.Close()
	p := make([]byte, pageSize)
	_, err = f.ReadAt(p, i*pageSize)
	must(t, err)
	change(p)
	if crcAt >= 0 {
		binary.LittleEndian.PutUint32(p[crcAt:], crc32.Checksum(p[crcAt+4:], castagnoli))
	}
	_, err = f.WriteAt(p, i*pageSize)
	must(t, err)
}

const (
	noSeal     = -1
	sealHeader = 8
	sealPage   = 0
)

// Every field of the header: damaged in both copies it is an error that says
// what is wrong; in one copy, whichever, nothing is lost and it is mended.
func TestDamagedHeader(t *testing.T) {
	le := binary.LittleEndian
	flip := func(at int) func([]byte) { return func(p []byte) { p[at] ^= 0x10 } }
	put := func(at int, v uint64) func([]byte) { return func(p []byte) { le.PutUint64(p[at:], v) } }
	for _, test := range []struct {
		field  string
		change func(p []byte)
		seal   int
		want   error
	}{
		{"magic", flip(3), noSeal, ErrDamaged},
		{"magic of a write-intent bitmap", func(p []byte) { copy(p, writeIntentMagic[:]) }, noSeal, ErrMismatch},
		{"CRC", flip(8), noSeal, ErrDamaged},
		{"version", flip(12), noSeal, ErrDamaged},
		{"version of a later Lockstep", func(p []byte) { le.PutUint32(p[12:], 2) }, sealHeader, ErrVersion},
		{"sequence number", flip(16), noSeal, ErrDamaged},
		{"size", flip(24), noSeal, ErrDamaged},
		{"size of another volume", put(24, damageSize+BlockSize), sealHeader, ErrMismatch},
		{"size zero", put(24, 0), sealHeader, ErrDamaged},
		{"size that cannot be", put(24, MaxSize+1), sealHeader, ErrDamaged},
		{"size negative", put(24, 1<<63), sealHeader, ErrDamaged},
		{"unit", flip(32), noSeal, ErrDamaged},
		{"unit zero", put(32, 0), sealHeader, ErrDamaged},
		{"unit of parts of a block", put(32, 4095), sealHeader, ErrDamaged},
		{"unit negative", put(32, 1<<63), sealHeader, ErrDamaged},
		{"unit of regions", put(32, 1<<20), sealHeader, ErrMismatch},
		{"era", flip(40), noSeal, ErrDamaged},
		{"fill", flip(48), noSeal, ErrDamaged},
		{"fill that has no meaning", put(48, 2), sealHeader, ErrDamaged},
		{"base generation", flip(56), noSeal, ErrDamaged},
		{"base LSN", flip(72), noSeal, ErrDamaged},
		{"what has no meaning", flip(100), noSeal, ErrDamaged},
		{"what has no meaning, sealed", flip(100), sealHeader, ErrDamaged},
		{"never written", func(p []byte) { clear(p) }, noSeal, ErrDamaged},
	} {
		t.Run(test.field, func(t *testing.T) {
			both := written(t)
			alter(t, both, 0, test.change, test.seal)
			alter(t, both, 1, test.change, test.seal)
			before := both.Count(fakedisk.AnyChange)
			_, err := Open(both, name, damageSize)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), name) {
				t.Errorf("in both copies: %v", err)
			}
			if both.Count(fakedisk.AnyChange) != before {
				t.Error("Open changed what it does not understand")
			}
			if test.want != ErrDamaged {
				return // a good copy of something else is never passed over
			}
			for i := range int64(headerPages) {
				dir := written(t)
				alter(t, dir, i, test.change, test.seal)
				mustBeWhole(t, dir)
				alter(t, dir, 1-i, test.change, test.seal) // the other, once the first was mended
				mustBeWhole(t, dir)
			}
		})
	}
}

func mustBeWhole(t *testing.T, dir disk.FS) {
	t.Helper()
	m, err := Open(dir, name, damageSize)
	must(t, err)
	defer m.Close()
	want := [][2]int64{{0, BlockSize}, {2 * PageBytes, BlockSize}}
	if got := runsOf(m.Blocks); !slices.Equal(got, want) || m.Base() != damageBase || m.Damaged() != nil {
		t.Errorf("runs %v, base %v, damaged %v", got, m.Base(), m.Damaged())
	}
}

// Whatever happens to a page of bits, all that it may have said is set.
func TestDamagedPage(t *testing.T) {
	le := binary.LittleEndian
	for _, test := range []struct {
		name    string
		change  func(p []byte)
		seal    int
		damaged bool
		dirty   int64 // bytes in the page's part of the volume afterwards
	}{
		{"CRC", func(p []byte) { p[0] ^= 1 }, noSeal, true, PageBytes},
		{"a bit", func(p []byte) { p[4095] ^= 0x80 }, noSeal, true, PageBytes},
		{"torn", func(p []byte) { clear(p[2048:]); p[1000] = 1 }, noSeal, true, PageBytes},
		{"first sector lost", func(p []byte) { p[600] = 1; clear(p[:512]) }, noSeal, true, PageBytes},
		{"of another place", func(p []byte) { le.PutUint32(p[4:], 3) }, sealPage, true, PageBytes},
		{"of an era to come", func(p []byte) { le.PutUint64(p[8:], 2) }, sealPage, true, PageBytes},
		{"of an era gone by", func(p []byte) { le.PutUint64(p[8:], 0) }, sealPage, false, 0},
		{"never written", func(p []byte) { clear(p) }, noSeal, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := written(t)
			alter(t, dir, headerPages+2, test.change, test.seal)
			m, err := Open(dir, name, damageSize)
			must(t, err)
			if got := len(m.Damaged()) == 1 && m.Damaged()[0] == 2; got != test.damaged {
				t.Errorf("damaged pages: %v", m.Damaged())
			}
			if got := m.Count(); got != BlockSize+test.dirty {
				t.Errorf("%d bytes are set", got)
			}
			must(t, m.Flush())
			must(t, m.Close())
			m, err = Open(dir, name, damageSize)
			must(t, err)
			if m.Damaged() != nil || m.Count() != BlockSize+test.dirty {
				t.Errorf("after Flush: damaged %v, %d bytes", m.Damaged(), m.Count())
			}
		})
	}
}

// A page that was damaged before a Reset says nothing after it, once flushed.
func TestResetMendsDamagedPages(t *testing.T) {
	dir := written(t)
	alter(t, dir, headerPages+1, func(p []byte) { p[17] ^= 1 }, noSeal)
	m, err := Open(dir, name, damageSize)
	must(t, err)
	must(t, m.Reset(Base{LSN: 100}))
	must(t, m.Flush())
	must(t, m.Close())
	m, err = Open(dir, name, damageSize)
	must(t, err)
	if m.Count() != 0 || m.Damaged() != nil {
		t.Errorf("%d bytes, damaged %v", m.Count(), m.Damaged())
	}
}

func TestShortFile(t *testing.T) {
	dir := written(t)
	f, err := dir.Open(name)
	must(t, err)
	must(t, f.Truncate((headerPages+1)*pageSize+100))
	must(t, f.Close())
	m, err := Open(dir, name, damageSize)
	must(t, err)
	if !slices.Equal(m.Damaged(), []int{1, 2, 3}) || m.Count() != damageSize-PageBytes+BlockSize {
		t.Errorf("damaged %v, %d bytes", m.Damaged(), m.Count())
	}
	f, err = dir.Open(name)
	must(t, err)
	must(t, f.Truncate(50))
	if _, err := Open(dir, name, damageSize); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file of 50 bytes: %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	dir := fakedisk.New(seed)
	_, err := Open(dir, name, damageSize)
	_, intentErr := OpenIntent(dir, name, damageSize, 0)
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(intentErr, fs.ErrNotExist) {
		t.Errorf("%v; %v", err, intentErr)
	}
}

// The bytes of format version 1, which stay readable for ever.
func TestFormatVersion1(t *testing.T) {
	for file, test := range map[string]struct {
		magic magic
		h     header
	}{
		"out-of-sync-v1": {outOfSyncMagic, header{seq: 3, size: 1 << 30, unit: BlockSize, era: 2, fill: 1,
			base: Base{Generation: [16]byte{0xaa, 15: 0xbb}, LSN: 0x1234}}},
		"write-intent-v1": {writeIntentMagic, header{seq: 1, size: 1 << 30, unit: DefaultRegionSize}},
	} {
		p := make([]byte, pageSize)
		test.h.encode(p, test.magic)
		golden(t, file, p)
		var again header
		if err := again.decode(p, test.magic); err != nil || again != test.h {
			t.Errorf("%+v: %v", again, err)
		}
	}
	p := make([]byte, pageSize)
	encodePage(p, 7, 2, []uint64{1, 1 << 63})
	golden(t, "page-v1", p)
}

// golden compares p with testdata/name.bin. LOCKSTEP_GOLDEN=1 writes it; a format
// that was released never changes.
func golden(t *testing.T, name string, p []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".bin")
	if os.Getenv("LOCKSTEP_GOLDEN") != "" {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, p, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(p, want) {
		t.Errorf("%s:\n got %x\nwant %x", path, p, want)
	}
}
