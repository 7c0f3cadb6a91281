package bitmap

import (
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/disk"
)

// A Report is what CheckMap or CheckIntent found.
type Report struct {
	Unit int64 // bytes of the volume per bit
	Bits int64 // that the volume has
	Set  int64 // of them
	Base Base  // zero in a write-intent bitmap
	// Worn are the copies of the header, 0 or 1, that are lost or older than the
	// other. Open mends them.
	Worn []int
	// Damaged are the pages of bits that cannot be read: torn by a crash, or
	// damaged. All of their bits count as set, and the next Flush writes them.
	Damaged []int
}

// HeaderOffset is where copy number i of the header lies in the file, PageOffset
// where page number i of the bits does; bytes.
func HeaderOffset(i int) int64 { return int64(i) * pageSize }
func PageOffset(i int) int64   { return (headerPages + int64(i)) * pageSize }

// CheckMap reads an out-of-sync bitmap as Open does, and changes nothing. Its
// error is the one that Open would give. Nobody may have the bitmap open.
func CheckMap(dir disk.FS, name string, size int64) (Report, error) {
	return check(dir, name, outOfSyncMagic, size, BlockSize)
}

// CheckIntent reads a write-intent bitmap as OpenIntent does, and changes
// nothing. Its error is the one that OpenIntent would give. Nobody may have the
// bitmap open.
func CheckIntent(dir disk.FS, name string, size int64) (Report, error) {
	return check(dir, name, writeIntentMagic, size, 0)
}

func check(dir disk.FS, name string, m magic, size, unit int64) (r Report, err error) {
	p := &pageFile{path: fmt.Sprintf("%v/%s", dir, name), magic: m}
	if p.f, err = dir.Open(name); err != nil {
		return r, fmt.Errorf("open bitmap %s: %w", p.path, err)
	}
	defer func() { err = errors.Join(err, p.f.Close()) }()
	if r.Worn, err = p.findHeader(size, unit); err != nil {
		return r, fmt.Errorf("open bitmap %s: %w", p.path, err)
	}
	if err := checkRegions(&p.h); m == writeIntentMagic && err != nil {
		return r, fmt.Errorf("open bitmap %s: %w: %w", p.path, ErrDamaged, err)
	}
	r.Unit, r.Bits, r.Base = p.h.unit, ceil(size, p.h.unit), p.h.base
	r.Damaged, err = p.load(func(i int64, _ pageState, words *[pageWords]uint64) {
		bits := page{words: *words}
		r.Set += int64(bits.count(0, int(min(pageBits, r.Bits-i*pageBits))))
	})
	return r, err
}
