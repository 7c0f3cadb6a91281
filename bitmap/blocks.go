package bitmap

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// BlockSize is how many bytes of the volume one bit of an out-of-sync bitmap
// stands for.
const BlockSize = 4096

// groupPages is how many pages a group has. Groups keep a bitmap that is
// almost clear small, and quick to search.
const groupPages = 512

type group [groupPages]*page // nil is all clear, fullPage all set

// Blocks is a set of a volume's blocks, in memory. What it takes is in
// proportion to what is neither clear nor set for long: 4 KiB for each 127.5 MiB
// of the volume with a mixture, beside 8 bytes for each 64 GiB. All methods may
// be called concurrently.
type Blocks struct {
	size   int64 // of the volume, bytes
	blocks int64

	mu     sync.RWMutex
	groups []*group // nil is all clear
	count  int64    // blocks set
	spare  *page    // clear; the next one to be used
	// changes is kept for a Map, and nil otherwise.
	changes *changes
}

// changes is what happened since the last flush.
type changes struct {
	// all: everything was set, and pages holds only what changed since.
	all   bool
	pages map[int64]struct{}
}

// NewBlocks returns the empty set for a volume of size bytes, 1 to MaxSize. It
// panics on another size.
func NewBlocks(size int64) *Blocks {
	if err := checkGeometry(size, BlockSize); err != nil {
		panic(fmt.Sprintf("bitmap: %v", err))
	}
	blocks := ceil(size, BlockSize)
	groups := ceil(blocks, pageBits*groupPages)
	return &Blocks{size: size, blocks: blocks, groups: make([]*group, groups)}
}

// Size of the volume, bytes.
func (b *Blocks) Size() int64 { return b.size }

// Set adds every block of which the range of n bytes at off has a byte. What
// lies outside of the volume is left out.
func (b *Blocks) Set(off, n int64) {
	start, end := clip(b.size, off, n)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.update(start/BlockSize, ceil(end, BlockSize), true)
}

// Clear removes the blocks of which the range has every byte that the volume
// has.
func (b *Blocks) Clear(off, n int64) {
	start, end := clip(b.size, off, n)
	first, last := ceil(start, BlockSize), end/BlockSize
	if end == b.size {
		last = b.blocks
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.update(first, last, false)
}

// SetAll adds every block.
func (b *Blocks) SetAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.update(0, b.blocks, true)
	if b.changes != nil {
		b.changes.all = true
		clear(b.changes.pages)
	}
}

// Merge adds the blocks of other, which is one of the same volume.
func (b *Blocks) Merge(other *Blocks) {
	for off, n, ok := other.Next(0); ok; off, n, ok = other.Next(off + n) {
		b.Set(off, n)
	}
}

// Test reports whether the block that has byte off is in the set.
func (b *Blocks) Test(off int64) bool {
	if off < 0 || off >= b.size {
		return false
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.test(off / BlockSize)
}

// Next is the first run of bytes of blocks in the set at or after byte from. It
// begins at from if that is inside of a run, and ends at the volume's end at
// the latest.
func (b *Blocks) Next(from int64) (off, n int64, ok bool) {
	from = max(from, 0)
	b.mu.RLock()
	defer b.mu.RUnlock()
	first := b.find(from/BlockSize, true)
	if first >= b.blocks || from >= b.size {
		return 0, 0, false
	}
	off = max(first*BlockSize, from)
	return off, min(b.find(first, false)*BlockSize, b.size) - off, true
}

// Count is how many bytes of the volume are in the set, whole blocks but for
// the volume's last.
func (b *Blocks) Count() int64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	n := b.count * BlockSize
	if b.test(b.blocks - 1) {
		n -= b.blocks*BlockSize - b.size
	}
	return n
}

// Snapshot is a copy, which no later change of b touches.
func (b *Blocks) Snapshot() *Blocks {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := &Blocks{size: b.size, blocks: b.blocks, count: b.count, groups: slices.Clone(b.groups)}
	for i, g := range s.groups {
		if g == nil {
			continue
		}
		copied := *g
		for k, p := range copied {
			if p != nil && p != fullPage {
				q := *p
				copied[k] = &q
			}
		}
		s.groups[i] = &copied
	}
	return s
}

// clip returns the part of a range that lies in a volume of size bytes, as
// first byte and first byte behind; both are 0 if there is none.
func clip(size, off, n int64) (start, end int64) {
	if off < 0 && n > 0 {
		off, n = 0, n+off
	}
	if n <= 0 || off >= size {
		return 0, 0
	}
	return off, off + min(n, size-off)
}

// update sets or clears the blocks from … end-1. b.mu is held.
func (b *Blocks) update(from, end int64, set bool) {
	for from < end {
		i := from / pageBits
		next := min(end, (i+1)*pageBits)
		if b.updatePage(i, int(from-i*pageBits), int(next-i*pageBits), set) && b.changes != nil {
			b.changes.pages[i] = struct{}{}
		}
		from = next
	}
}

// updatePage sets or clears the bits from … end-1 of page i, and reports
// whether any changed.
func (b *Blocks) updatePage(i int64, from, end int, set bool) bool {
	p := b.page(i)
	total, delta := 0, 0
	if p != nil {
		total, delta = p.set, -p.count(from, end)
	}
	if set {
		delta += end - from
	}
	if delta == 0 {
		return false
	}
	b.count += int64(delta)
	switch total += delta; total {
	case 0:
		b.put(i, nil)
	case pageBits:
		b.put(i, fullPage)
	default:
		if p == nil || p == fullPage {
			p = b.mixed(p)
			b.put(i, p)
		}
		p.fill(from, end, set)
		p.set = total
	}
	return true
}

// mixed returns a page that may be changed, all clear or, from fullPage, all
// set.
func (b *Blocks) mixed(from *page) *page {
	p := b.spare
	if p == nil {
		p = new(page)
	}
	b.spare = nil
	if from != nil {
		*p = *from
	}
	return p
}

func (b *Blocks) page(i int64) *page {
	if g := b.groups[i/groupPages]; g != nil {
		return g[i%groupPages]
	}
	return nil
}

func (b *Blocks) put(i int64, p *page) {
	g := b.groups[i/groupPages]
	if g == nil {
		g = new(group)
		b.groups[i/groupPages] = g
	}
	if old := g[i%groupPages]; old != nil && old != fullPage && old != p {
		*old = page{}
		b.spare = old
	}
	g[i%groupPages] = p
}

func (b *Blocks) test(block int64) bool {
	p := b.page(block / pageBits)
	k := block % pageBits
	return p != nil && p.words[k/64]>>(k%64)&1 != 0
}

// find is the first block at or after from that is set, or clear; b.blocks if
// there is none. b.mu is held.
func (b *Blocks) find(from int64, set bool) int64 {
	for from < b.blocks {
		i := from / pageBits
		p := b.page(i)
		switch {
		case p == nil && !set, p == fullPage && set:
			return from
		case p != nil && p != fullPage:
			if at := p.find(int(from-i*pageBits), set); at < pageBits {
				return min(i*pageBits+int64(at), b.blocks)
			}
		}
		i++
		if b.groups[(i-1)/groupPages] == nil {
			i += -i & (groupPages - 1) // to the next group
		}
		from = i * pageBits
	}
	return b.blocks
}

// takeChanges returns what changed since the last call.
func (b *Blocks) takeChanges() (all bool, pages []int64) {
	all, pages = b.changes.all, slices.Collect(maps.Keys(b.changes.pages))
	b.changes.all = false
	clear(b.changes.pages)
	return all, pages
}
