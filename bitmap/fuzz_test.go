package bitmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// fuzzFile puts data under name on a fake disk. The CRCs of its pages are made
// right if seal says so, so that the fuzzer gets past them.
func fuzzFile(t *testing.T, data []byte, seal bool) *fakedisk.FS {
	dir := fakedisk.New(1)
	f, err := dir.Create(name)
	must(t, err)
	_, err = f.WriteAt(data, 0)
	must(t, err)
	for i := range int64(len(data) / pageSize) {
		if at := sealPage; seal {
			if i < headerPages {
				at = sealHeader
			}
			alter(t, dir, i, func([]byte) {}, at)
		}
	}
	must(t, f.Datasync())
	must(t, f.Close())
	return dir
}

func fuzzSeed(m magic, unit int64) []byte {
	p := make([]byte, 4*pageSize)
	h := header{seq: 1, size: fuzzSize, unit: unit, era: 1}
	h.encode(p[:pageSize], m)
	h.encode(p[pageSize:2*pageSize], m)
	encodePage(p[2*pageSize:3*pageSize], 0, 1, []uint64{1, 2, 3})
	encodePage(p[3*pageSize:], 1, 1, []uint64{4})
	return p
}

const fuzzSize = PageBytes + 7*BlockSize - 5

// FuzzOpen: any bytes are an error or a bitmap that is coherent, that opens
// again as the same, and that takes no more memory than its file.
func FuzzOpen(f *testing.F) {
	whole := fuzzSeed(outOfSyncMagic, BlockSize)
	f.Add(whole, false)
	f.Add(whole, true)
	f.Add(whole[:3*pageSize+7], false)
	f.Add([]byte{}, false)
	f.Add(bytes.Repeat([]byte{0xff}, 3*pageSize), true)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if len(data) > 64*pageSize {
			return
		}
		dir := fuzzFile(t, data, seal)
		m, err := Open(dir, name, fuzzSize)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrMismatch) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		n := int64(0)
		for _, r := range runsOf(m.Blocks) {
			n += r[1]
		}
		if n != m.Count() || n > fuzzSize {
			t.Fatalf("runs of %d bytes, Count is %d", n, m.Count())
		}
		must(t, m.Flush())
		again, err := Open(dir.CrashClone(fakedisk.LoseAll), name, fuzzSize)
		must(t, err)
		if again.Count() != n || again.Base() != m.Base() {
			t.Fatalf("opened again: %d bytes, base %v; they were %d, %v", again.Count(), again.Base(), n, m.Base())
		}
	})
}

// FuzzOpenIntent: the same for a write-intent bitmap.
func FuzzOpenIntent(f *testing.F) {
	whole := fuzzSeed(writeIntentMagic, BlockSize)
	f.Add(whole, false)
	f.Add(whole, true)
	f.Add(whole[:2*pageSize], true)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if len(data) > 64*pageSize {
			return
		}
		dir := fuzzFile(t, data, seal)
		in, err := OpenIntent(dir, name, fuzzSize, 0)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrMismatch) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		n := 0
		for r := range in.Regions() {
			if int64(r)*in.RegionSize() >= fuzzSize {
				t.Fatalf("region %d of %d bytes each is marked", r, in.RegionSize())
			}
			n++
		}
		must(t, in.Flush())
		again, err := OpenIntent(dir.CrashClone(fakedisk.LoseAll), name, fuzzSize, in.RegionSize())
		must(t, err)
		for range again.Regions() {
			n--
		}
		if n != 0 {
			t.Fatalf("%d more regions before than after", n)
		}
	})
}

// FuzzHeader: a header that is accepted is encoded to the same bytes. data is
// what follows magic and CRC; the rest of the page is zeroes.
func FuzzHeader(f *testing.F) {
	f.Add(fuzzSeed(outOfSyncMagic, BlockSize)[12:80])
	f.Add(fuzzSeed(writeIntentMagic, DefaultRegionSize)[12:80])
	f.Fuzz(func(t *testing.T, data []byte) {
		p := make([]byte, pageSize)
		copy(p, outOfSyncMagic[:])
		copy(p[12:], data)
		binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p[12:], castagnoli))
		var h header
		if h.decode(p, outOfSyncMagic) != nil {
			return
		}
		again := make([]byte, pageSize)
		if h.encode(again, outOfSyncMagic); !bytes.Equal(p, again) {
			t.Fatalf("%+v is encoded to other bytes", h)
		}
	})
}
