package bitmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// pageOf is page number i of the file.
func pageOf(t *testing.T, dir disk.FS, i int64) []byte {
	t.Helper()
	var page []byte
	alter(t, dir, i, func(p []byte) { page = bytes.Clone(p) }, noSeal)
	return page
}

// A copy of the header that is stale, or is something else of the same file,
// gives way to the other one, which is brought into its place.
func TestStaleHeader(t *testing.T) {
	for copies, want := range map[int]Base{1: {LSN: 2}, 2: {LSN: 2}, 3: {LSN: 1}} { // as bits: which ones
		dir := fakedisk.New(seed)
		m, err := Create(dir, name, damageSize, Base{LSN: 1})
		must(t, err)
		old := pageOf(t, dir, 0)
		m.Set(0, 1)
		must(t, m.Flush())
		must(t, m.Reset(Base{LSN: 2}))
		must(t, m.Close())
		for i := range int64(headerPages) {
			if copies>>i&1 != 0 {
				alter(t, dir, i, func(p []byte) { copy(p, old) }, noSeal)
			}
		}
		for range 2 {
			m, err := Open(dir, name, damageSize)
			must(t, err)
			if m.Base() != want {
				t.Errorf("copies %b stale: base %v, want %v", copies, m.Base(), want)
			}
			// Both: two faults, of which nothing in the file can tell. The bits of
			// that time are in force again with the base of that time.
			if set := m.Test(0); set != (copies == 3) {
				t.Errorf("copies %b stale: the first block is set: %v", copies, set)
			}
			must(t, m.Close())
		}
	}
}

// A page of bits in the place of a copy of the header, and the other way round.
func TestPagesInEachOthersPlace(t *testing.T) {
	for i := range int64(headerPages) {
		dir := written(t)
		bits := pageOf(t, dir, headerPages)
		alter(t, dir, i, func(p []byte) { copy(p, bits) }, noSeal)
		mustBeWhole(t, dir)
	}
	for _, from := range []int64{0, headerPages, headerPages + 2} { // header, pages 0 and 2
		dir := written(t)
		other := pageOf(t, dir, from)
		to := int64(headerPages + 2)
		if from == to {
			to = headerPages
		}
		alter(t, dir, to, func(p []byte) { copy(p, other) }, noSeal)
		m, err := Open(dir, name, damageSize)
		must(t, err)
		if got := m.Damaged(); !slices.Equal(got, []int{int(to - headerPages)}) {
			t.Errorf("page %d in the place of %d: damaged %v", from, to, got)
		}
		must(t, m.Close())
	}
}

// Every field of a page of bits, flipped: all that the page may have said is set.
func TestDamagedPageFields(t *testing.T) {
	for field, at := range map[string]int{"CRC": 0, "page number": 4, "era": 8, "first word": 16, "last word": 4088} {
		for bit := range 8 {
			dir := written(t)
			alter(t, dir, headerPages+2, func(p []byte) { p[at] ^= 1 << bit }, noSeal)
			m, err := Open(dir, name, damageSize)
			must(t, err)
			if !slices.Equal(m.Damaged(), []int{2}) || m.Count() != BlockSize+PageBytes {
				t.Errorf("%s, bit %d: damaged %v, %d bytes", field, bit, m.Damaged(), m.Count())
			}
			must(t, m.Close())
		}
	}
}

// A page that is torn at any sector, between what it was and what it became, is
// damaged, or has what both say.
func TestPageTornAtEverySector(t *testing.T) {
	dir := fakedisk.New(seed)
	m, err := Create(dir, name, damageSize, damageBase)
	must(t, err)
	fill := func(from int64) []byte {
		for k := int64(0); k < pageBits; k += 1000 {
			m.Set((from+k)*BlockSize, 1)
		}
		must(t, m.Flush())
		return pageOf(t, dir, headerPages)
	}
	was, is := fill(0), fill(7)
	must(t, m.Close())
	for at := 512; at < pageSize; at += 512 {
		for _, torn := range [][]byte{append(bytes.Clone(was[:at]), is[at:]...), append(bytes.Clone(is[:at]), was[at:]...)} {
			alter(t, dir, headerPages, func(p []byte) { copy(p, torn) }, noSeal)
			left, err := Open(dir, name, damageSize)
			must(t, err)
			if !slices.Equal(left.Damaged(), []int{0}) || left.Count() != PageBytes {
				t.Errorf("torn at %d: damaged %v, %d bytes", at, left.Damaged(), left.Count())
			}
			must(t, left.Close())
		}
	}
}

// The write-intent bitmap: whatever happens to a page, all of its regions are
// marked; whatever happens to both headers is an error, and to one nothing.
func TestDamagedIntent(t *testing.T) {
	le := binary.LittleEndian
	made := func() *fakedisk.FS {
		dir, in := newTestIntent(t)
		in.Mark(3*regionSize, 1)
		in.Mark(pageBits*regionSize, 1)
		must(t, in.Flush())
		must(t, in.Close())
		return dir
	}
	const inPage = pageBits + 1 // and one of the other page
	for what, row := range map[string]struct {
		page   int64
		change func(p []byte)
		seal   int
		marked int
		err    error
	}{
		"nothing":                    {headerPages, func([]byte) {}, noSeal, 2, nil},
		"a bit flipped":              {headerPages, func(p []byte) { p[99] ^= 4 }, noSeal, inPage, nil},
		"CRC flipped":                {headerPages, func(p []byte) { p[0] ^= 4 }, noSeal, inPage, nil},
		"torn":                       {headerPages, func(p []byte) { p[2000] = 1 }, noSeal, inPage, nil},
		"of another place":           {headerPages, func(p []byte) { le.PutUint32(p[4:], 1) }, sealPage, inPage, nil},
		"of an era to come":          {headerPages, func(p []byte) { le.PutUint64(p[8:], 9) }, sealPage, inPage, nil},
		"a header's bit flipped":     {0, func(p []byte) { p[50] ^= 1 }, noSeal, 2, nil},
		"a header zeroed":            {1, func(p []byte) { clear(p) }, noSeal, 2, nil},
		"a header of a later format": {1, func(p []byte) { le.PutUint32(p[12:], 2) }, sealHeader, 0, ErrVersion},
		"a header of another kind":   {1, func(p []byte) { copy(p, outOfSyncMagic[:]) }, noSeal, 0, ErrMismatch},
	} {
		dir := made()
		alter(t, dir, row.page, row.change, row.seal)
		in, err := OpenIntent(dir, name, intentSize, regionSize)
		if !errors.Is(err, row.err) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil {
			continue
		}
		if got := len(slices.Collect(in.Regions())); got != row.marked {
			t.Errorf("%s: %d regions are marked, want %d", what, got, row.marked)
		}
		must(t, in.Flush())
		must(t, in.Close())
		in, err = OpenIntent(dir, name, intentSize, regionSize)
		must(t, err)
		if in.Damaged() != nil || len(slices.Collect(in.Regions())) != row.marked {
			t.Errorf("%s, flushed: damaged %v", what, in.Damaged())
		}
		must(t, in.Close())
	}
	for what, both := range map[string]func(p []byte){
		"flipped": func(p []byte) { p[24] ^= 1 }, "zeroed": func(p []byte) { clear(p) },
	} {
		dir := made()
		alter(t, dir, 0, both, noSeal)
		alter(t, dir, 1, both, noSeal)
		if _, err := OpenIntent(dir, name, intentSize, regionSize); !errors.Is(err, ErrDamaged) {
			t.Errorf("both headers %s: %v", what, err)
		}
	}
}
