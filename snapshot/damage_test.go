package snapshot

import (
	"bytes"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/store"
)

const damageSize = 1 << 20

// threeBatches is the file of a process that was killed after three batches: blocks
// 0 and 1 with data; block 2, zeroes; block 3 with data.
func threeBatches(t testing.TB) (file []byte, image []byte) {
	t.Helper()
	dir := fakedisk.New(1)
	st := store.NewMemory(damageSize)
	image = make([]byte, damageSize)
	for i := range 4 * BlockSize {
		if i/BlockSize != 2 {
			image[i] = byte(i/BlockSize + 1)
		}
	}
	_, err := st.WriteAt(image, 0)
	must(t, err)
	s, err := Create(dir, name, sampleInfo(damageSize), 0)
	must(t, err)
	for _, r := range []Range{{0, 2 * BlockSize}, {2 * BlockSize, 1}, {3 * BlockSize, BlockSize}} {
		must(t, s.Preserve(st, []Range{r}))
	}
	return fileOf(t, dir), image
}

// Where the batches of threeBatches begin.
const (
	first  = firstBatch
	second = first + 3*BlockSize
	third  = second + BlockSize
	behind = third + 2*BlockSize
)

// TestDamage is what each kind of damage comes to.
func TestDamage(t *testing.T) {
	whole, _ := threeBatches(t)
	const all = 4 * BlockSize
	for what, c := range map[string]struct {
		change    func(p []byte) []byte
		err       error // of Open
		preserved int64 // without one
		verify    error
	}{
		"nothing":                          {func(p []byte) []byte { return p }, nil, all, nil},
		"a copy of the header":             {flip(20), nil, all, nil},
		"the other copy":                   {flip(headerSize + 60), nil, all, nil},
		"both copies":                      {flip(20, headerSize+20), ErrDamaged, 0, nil},
		"a newer version":                  {newer, ErrVersion, 0, nil},
		"magic of the first batch":         {flip(first), ErrDamaged, 0, nil},
		"id of the first batch":            {flip(first + 16), ErrDamaged, 0, nil},
		"number of entries":                {flip(first + 12), ErrDamaged, 0, nil},
		"an entry of the first batch":      {flip(first + batchFixed), ErrDamaged, 0, nil},
		"magic of the second batch":        {flip(second), ErrDamaged, 0, nil},
		"data of the first batch":          {flip(first + BlockSize + 5), nil, all, ErrDamaged},
		"magic of the last batch":          {flip(third), nil, 3 * BlockSize, nil}, // torn: it was never relied on
		"data of the last batch":           {flip(third + BlockSize), nil, 3 * BlockSize, nil},
		"the last batch's header is gone":  {zero(third, BlockSize), nil, 3 * BlockSize, nil},
		"the file ends in the last batch":  {cut(behind - 1), nil, 3 * BlockSize, nil},
		"the file ends in its header":      {cut(third + 100), nil, 3 * BlockSize, nil},
		"the file ends in the first batch": {cut(first + BlockSize), nil, 0, nil},
		"the file ends in the header":      {cut(50), ErrDamaged, 0, nil},
		"the file is empty":                {cut(0), ErrDamaged, 0, nil},
		"garbage behind":                   {func(p []byte) []byte { return append(p, bytes.Repeat([]byte{0xa5}, 9000)...) }, nil, all, nil},
		"the last batch twice":             {func(p []byte) []byte { return append(p, p[third:]...) }, ErrDamaged, 0, nil},
		"the second batch is skipped":      {func(p []byte) []byte { return append(p[:second], p[third:]...) }, ErrDamaged, 0, nil},
	} {
		t.Run(what, func(t *testing.T) {
			dir := withFile(t, c.change(bytes.Clone(whole)))
			before := fileOf(t, dir)
			_, checked := Check(dir, name, damageSize)
			if !bytes.Equal(fileOf(t, dir), before) {
				t.Error("Check changed the file")
			}
			s, err := Open(dir, name, damageSize, 0)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("Open: %v", err)
			}
			if err != nil {
				if !errors.Is(checked, c.err) || !bytes.Equal(fileOf(t, dir), before) {
					t.Errorf("Check: %v; Open changed the file: %v", checked, !bytes.Equal(fileOf(t, dir), before))
				}
				return
			}
			defer s.Close()
			if s.Preserved() != c.preserved {
				t.Errorf("%d bytes are preserved", s.Preserved())
			}
			if err := s.Verify(); !errors.Is(err, c.verify) || !errors.Is(checked, c.verify) {
				t.Errorf("Verify: %v, Check: %v", err, checked)
			}
			if c.verify == nil {
				return
			}
			p := make([]byte, BlockSize)
			st := store.NewMemory(damageSize)
			if err := errors.Join(s.ReadAt(st, p, 0)); !errors.Is(err, c.verify) {
				t.Errorf("read of damaged data: %v", err)
			}
			if err := s.Restore(st); !errors.Is(err, c.verify) {
				t.Errorf("Restore of damaged data: %v", err)
			}
			if err := s.ReadAt(st, p, 3*BlockSize); err != nil {
				t.Errorf("read of other data: %v", err)
			}
		})
	}
}

// Once a start has vouched for the last batch, damage of it is no torn end.
func TestDamageOfWhatWasVouchedFor(t *testing.T) {
	whole, _ := threeBatches(t)
	for _, close := range []bool{false, true} {
		dir := withFile(t, whole)
		s, err := Open(dir, name, damageSize, 0)
		must(t, err)
		if close {
			must(t, s.Close())
		}
		must(t, dir.Flip(name, third, 8, 3))
		if _, err := Open(dir, name, damageSize, 0); !errors.Is(err, ErrDamaged) {
			t.Errorf("closed %v: %v", close, err)
		}
	}
}

func flip(at ...int) func([]byte) []byte {
	return func(p []byte) []byte {
		for _, i := range at {
			p[i] ^= 0x10
		}
		return p
	}
}

func zero(at, n int) func([]byte) []byte {
	return func(p []byte) []byte { clear(p[at : at+n]); return p }
}

func cut(n int) func([]byte) []byte {
	return func(p []byte) []byte { return p[:n] }
}

func newer(p []byte) []byte {
	le.PutUint32(p[12:], version+1)
	le.PutUint32(p[8:], crc32.Checksum(p[12:headerSize], castagnoli))
	return p
}

var update = flag.Bool("update", false, "write testdata anew")

// The bytes on disk are those of the example. A format that was released never
// changes.
func TestGolden(t *testing.T) {
	const path = "testdata/snapshot-v1.bin"
	got, image := threeBatches(t)
	if *update {
		must(t, os.MkdirAll("testdata", 0o777))
		must(t, os.WriteFile(path, got, 0o666))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the file differs from the example")
	}
	s, err := Open(withFile(t, want), name, damageSize, 0)
	must(t, err)
	p := make([]byte, 4*BlockSize)
	must(t, s.ReadAt(store.NewMemory(damageSize), p, 0))
	if !bytes.Equal(p, image[:len(p)]) {
		t.Error("the example's image differs")
	}
	if i := s.Info(); i.ID != sampleInfo(0).ID || string(i.Note) != "a note" || !i.Created.Equal(sampleInfo(0).Created) {
		t.Errorf("%+v", i)
	}
}

// FuzzOpen reads any bytes behind a good header: it fails with an error of a
// known kind, or what is found is in the volume and found again.
func FuzzOpen(f *testing.F) {
	whole, _ := threeBatches(f)
	f.Add(whole[firstBatch:second], true)
	f.Add(whole[firstBatch:], false)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		p := append(bytes.Clone(whole[:firstBatch]), data...)
		if seal && len(data) >= BlockSize { // get past the CRC
			n := batchHeader(int(min(le.Uint32(data[12:]), maxEntries)))
			if b := p[firstBatch:]; int64(len(b)) >= n {
				le.PutUint32(b[8:], crc32.Checksum(b[12:n], castagnoli))
			}
		}
		dir := withFile(t, p)
		s, err := Open(dir, name, damageSize, 0)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if s.Preserved() > damageSize {
			t.Fatalf("%d bytes are preserved of %d", s.Preserved(), damageSize)
		}
		_ = s.Verify() // damage of data is none of Open's
		st := store.NewMemory(damageSize)
		must(t, s.Preserve(st, []Range{{0, damageSize}}))
		must(t, s.Close())
		again, err := Open(dir, name, damageSize, 0)
		must(t, err)
		if again.Preserved() != damageSize {
			t.Fatalf("%d bytes are found again", again.Preserved())
		}
	})
}

// FuzzBatch: a batch's header that is accepted is encoded to the same bytes, and
// its entries lie in the volume. data is what follows magic, CRC, and number of
// entries, which its length gives.
func FuzzBatch(f *testing.F) {
	whole, _ := threeBatches(f)
	f.Add(whole[first+16 : first+batchFixed+entrySize])
	f.Add(whole[second+16 : second+batchFixed+entrySize])
	f.Fuzz(func(t *testing.T, data []byte) {
		n := max(0, len(data)-(batchFixed-16)) / entrySize
		p := make([]byte, batchHeader(min(n, maxEntries)))
		copy(p, batchMagic)
		le.PutUint32(p[12:], uint32(min(n, maxEntries)))
		copy(p[16:], data)
		le.PutUint32(p[8:], crc32.Checksum(p[12:], castagnoli))
		length, ok := claims(p[:BlockSize], ID(p[16:32]))
		if !ok || length != int64(len(p)) {
			t.Fatalf("a header of %d bytes claims %d", len(p), length)
		}
		var b batch
		if b.decode(p, firstBatch, damageSize) != nil {
			return
		}
		for _, x := range b.entries {
			if x.n <= 0 || x.off < 0 || x.end() > damageSize || !x.zero() && x.n > maxEntry {
				t.Fatalf("entry %+v", x)
			}
		}
		if !bytes.Equal(b.encode(), p) {
			t.Fatalf("%+v is encoded to other bytes", b)
		}
	})
}
