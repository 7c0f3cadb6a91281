package bitmap

import (
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/disk"
)

// DefaultRegionSize is how many bytes of the volume one bit of a write-intent
// bitmap stands for unless told otherwise.
const DefaultRegionSize = 16 << 20

// maxRegions bounds what a write-intent bitmap takes: four bits in memory for
// each region.
const maxRegions = 1 << 28

// An Intent is a write-intent bitmap: the regions that a lost journal would
// leave in doubt (invariant 1). All methods may be called concurrently, but for
// what ClearIdle says.
type Intent struct {
	size    int64 // of the volume, bytes
	unit    int64 // region size, bytes
	regions int
	damaged []int

	// settled are the regions that are marked and durably so. It is what the
	// path of a write looks at; written under mu.
	settled []atomic.Uint64
	// busy are the regions that Mark named since the last ClearIdle.
	busy []atomic.Uint64

	mu      sync.Mutex
	marked  []uint64           // as they shall be on disk
	onDisk  []uint64           // as they certainly are on disk
	changed map[int64]struct{} // pages to write

	// flush is held by whatever writes the file. Taken before mu.
	flush sync.Mutex
	file  *pageFile
}

// CreateIntent makes a write-intent bitmap with no region marked, durably.
// size and regionSize are bytes; regionSize is a multiple of BlockSize, 0 is
// DefaultRegionSize. It fails with fs.ErrExist if the file is there.
func CreateIntent(dir disk.FS, name string, size, regionSize int64) (*Intent, error) {
	return createIntent(dir, name, header{size: size, unit: regionSize, fill: fillClear})
}

// CreateMarkedIntent makes one with every region marked, durably and at once:
// for an owner whose bitmap is lost, and who has to presume the worst.
func CreateMarkedIntent(dir disk.FS, name string, size, regionSize int64) (*Intent, error) {
	return createIntent(dir, name, header{size: size, unit: regionSize, fill: fillSet})
}

func createIntent(dir disk.FS, name string, h header) (*Intent, error) {
	if h.unit == 0 {
		h.unit = DefaultRegionSize
	}
	if err := checkRegions(&h); err != nil {
		return nil, fmt.Errorf("create bitmap %v/%s: %w", dir, name, err)
	}
	f, err := createFile(dir, name, writeIntentMagic, h)
	if err != nil {
		return nil, err
	}
	return loadIntent(f)
}

// OpenIntent reads a write-intent bitmap. A regionSize of 0 accepts that of the
// file. Its marks count as durable only after the next Flush. The errors wrap fs.ErrNotExist, ErrDamaged, ErrVersion or ErrMismatch;
// damaged pages are none (see Damaged).
func OpenIntent(dir disk.FS, name string, size, regionSize int64) (*Intent, error) {
	f, err := openFile(dir, name, writeIntentMagic, size, regionSize)
	if err != nil {
		return nil, err
	}
	if err := checkRegions(&f.h); err != nil {
		f.close()
		return nil, fmt.Errorf("open bitmap %s: %w: %w", f.path, ErrDamaged, err)
	}
	return loadIntent(f)
}

// loadIntent takes over f, also if it fails.
func loadIntent(f *pageFile) (*Intent, error) {
	in := newIntent(f)
	if err := in.load(); err != nil {
		f.close()
		return nil, err
	}
	return in, nil
}

func checkRegions(h *header) error {
	if err := checkGeometry(h.size, h.unit); err != nil {
		return err
	}
	if n := ceil(h.size, h.unit); n > maxRegions {
		return fmt.Errorf("%d regions, the limit is %d: make them larger", n, maxRegions)
	}
	return nil
}

func newIntent(f *pageFile) *Intent {
	regions := ceil(f.h.size, f.h.unit)
	words := ceil(regions, 64)
	return &Intent{
		size: f.h.size, unit: f.h.unit, regions: int(regions), file: f,
		settled: make([]atomic.Uint64, words), busy: make([]atomic.Uint64, words),
		marked: make([]uint64, words), onDisk: make([]uint64, words), changed: map[int64]struct{}{},
	}
}

func (in *Intent) load() (err error) {
	in.damaged, err = in.file.load(func(i int64, _ pageState, words *[pageWords]uint64) {
		copy(in.part(in.marked, i), words[:])
		in.changed[i] = struct{}{}
	})
	if tail := in.regions % 64; tail != 0 {
		in.marked[len(in.marked)-1] &= 1<<tail - 1
	}
	return err
}

// part is what page i has of words.
func (in *Intent) part(words []uint64, i int64) []uint64 {
	return words[i*pageWords : min((i+1)*pageWords, int64(len(words)))]
}

func (in *Intent) settle(w int) { in.settled[w].Store(in.marked[w] & in.onDisk[w]) }

// RegionSize is how many bytes of the volume a region has.
func (in *Intent) RegionSize() int64 { return in.unit }

// Damaged lists the pages that could not be read when the bitmap was opened.
// All of their regions, 32640 each, are marked.
func (in *Intent) Damaged() []int { return in.damaged }

// Need reports whether some region of the n bytes at off is not durably marked:
// then a record of that range needs Mark and Flush. It costs one atomic load
// for each 64 regions.
func (in *Intent) Need(off, n int64) bool {
	from, end := in.span(off, n)
	for w := from / 64; w*64 < end; w++ {
		if m := mask(w, from, end); in.settled[w].Load()&m != m {
			return true
		}
	}
	return false
}

// Mark marks every region of which the n bytes at off have one, in memory, and
// reports whether any was not marked before. What lies outside of the volume is
// left out. It costs two atomic loads for each 64 regions once they are marked.
func (in *Intent) Mark(off, n int64) (changed bool) {
	from, end := in.span(off, n)
	for w := from / 64; w*64 < end; w++ {
		if m := mask(w, from, end); in.busy[w].Load()&m != m {
			in.busy[w].Or(m)
		}
	}
	if !in.Need(off, n) {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for w := from / 64; w*64 < end; w++ {
		if m := mask(w, from, end); in.marked[w]&m != m {
			changed = true
			in.change(w, in.marked[w]|m)
		}
	}
	return changed
}

// change gives word w its new marks. in.mu is held.
func (in *Intent) change(w int, marks uint64) {
	in.marked[w] = marks
	in.settle(w)
	if marks != in.onDisk[w] {
		in.changed[int64(w/pageWords)] = struct{}{}
	}
}

// span is the regions of a range, as first and first behind.
func (in *Intent) span(off, n int64) (from, end int) {
	start, last := clip(in.size, off, n)
	return int(start / in.unit), int(ceil(last, in.unit))
}

// ClearIdle takes the mark from every region that no Mark named since the last
// ClearIdle (the first time: since the bitmap was opened or made), in memory; the
// next Flush takes that to the disk.
//
// The caller sees to it that no Mark runs meanwhile: one that finds its region
// marked would lose it.
func (in *Intent) ClearIdle() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for w, marks := range in.marked {
		if rest := marks & in.busy[w].Swap(0); rest != marks {
			in.change(w, rest)
		}
	}
}

// Count is how many bytes of the volume the marked regions have, as of now.
func (in *Intent) Count() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := int64(0)
	for _, marks := range in.marked {
		n += int64(bits.OnesCount64(marks)) * in.unit
	}
	if last := in.regions - 1; in.marked[last/64]>>(last%64)&1 != 0 {
		n -= int64(in.regions)*in.unit - in.size
	}
	return n
}

// Regions yields the number of each region that is marked, in order. Region r
// has the RegionSize bytes at r×RegionSize. Marks may change meanwhile.
func (in *Intent) Regions() iter.Seq[int] {
	return func(yield func(int) bool) {
		for w := range in.marked {
			in.mu.Lock()
			marks := in.marked[w]
			in.mu.Unlock()
			for ; marks != 0; marks &= marks - 1 {
				if !yield(w*64 + bits.TrailingZeros64(marks)) {
					return
				}
			}
		}
	}
}

// Flush makes the marks, as they were when it was called, durable. Later ones
// may be in it or not. It costs two locks if nothing changed. The first failure
// is final.
func (in *Intent) Flush() error {
	in.flush.Lock()
	defer in.flush.Unlock()
	return in.file.try(func() error {
		pages := in.take()
		if len(pages) == 0 {
			return nil
		}
		written := make(map[int64][]uint64, len(pages))
		err := in.file.writePages(pages, func(i int64) []uint64 {
			written[i] = in.image(i)
			return written[i]
		})
		if err == nil {
			in.durable(written)
		}
		return err
	})
}

// take returns the pages that changed.
func (in *Intent) take() (pages []int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	pages = slices.Collect(maps.Keys(in.changed))
	clear(in.changed)
	return pages
}

// image copies the marks of page i, to be written. What is about to be cleared
// on disk is not certain to be there any more: a Mark from now on needs another
// Flush.
func (in *Intent) image(i int64) []uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	image := slices.Clone(in.part(in.marked, i))
	for k, w := range image {
		at := int(i)*pageWords + k
		in.onDisk[at] &= w
		in.settle(at)
	}
	delete(in.changed, i)
	return image
}

// durable notes that those pages are on disk.
func (in *Intent) durable(written map[int64][]uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, image := range written {
		for k, w := range image {
			at := int(i)*pageWords + k
			in.onDisk[at] = w
			in.change(at, in.marked[at])
		}
	}
}

// Close closes the file without flushing. Closing twice is no error.
func (in *Intent) Close() error {
	in.flush.Lock()
	defer in.flush.Unlock()
	return in.file.close()
}
