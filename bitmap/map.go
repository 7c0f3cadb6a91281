package bitmap

import (
	"sync"

	"github.com/lockstep-storage/lockstep/disk"
)

// A Base names the record that an out-of-sync bitmap is relative to: its bits
// say in what a peer that has everything up to there, and nothing else, differs
// from us (replication.md 7).
type Base struct {
	Generation [16]byte
	LSN        uint64
}

// A Map is the out-of-sync bitmap for one peer, in a file. What its Blocks say
// is durable once [Map.Flush] has returned. All methods may be called
// concurrently.
type Map struct {
	*Blocks
	damaged []int // as Open found them

	// base is the newest that was set; guarded by Blocks.mu.
	base Base

	// flush is held by whatever writes the file. Taken before Blocks.mu.
	flush sync.Mutex
	file  *pageFile
	words [pageWords]uint64 // of the page that is written
	// rewrite are pages that are damaged on disk: Reset, which leaves old pages
	// where they are, has to write these.
	rewrite map[int64]bool
}

// Create makes the bitmap of a volume of size bytes, with no bit set, durably.
// It fails with fs.ErrExist if the file is there.
func Create(dir disk.FS, name string, size int64, base Base) (*Map, error) {
	f, err := createFile(dir, name, outOfSyncMagic, header{size: size, unit: BlockSize, base: base})
	if err != nil {
		return nil, err
	}
	return newMap(f), nil
}

// Open reads the bitmap of a volume of size bytes. The errors wrap
// fs.ErrNotExist, ErrDamaged, ErrVersion or ErrMismatch; damaged pages are none
// (see Damaged). The bits that it finds are durable for certain only after the
// next Flush, which writes them again.
func Open(dir disk.FS, name string, size int64) (*Map, error) {
	f, err := openFile(dir, name, outOfSyncMagic, size, BlockSize)
	if err != nil {
		return nil, err
	}
	m := newMap(f)
	if err := m.load(); err != nil {
		f.close()
		return nil, err
	}
	return m, nil
}

func newMap(f *pageFile) *Map {
	b := NewBlocks(f.h.size)
	b.changes = &changes{pages: map[int64]struct{}{}}
	return &Map{Blocks: b, file: f, base: f.h.base, rewrite: map[int64]bool{}}
}

func (m *Map) load() (err error) {
	m.damaged, err = m.file.load(func(i int64, state pageState, words *[pageWords]uint64) {
		m.loadPage(i, words)
		if state != pageVoid {
			m.changes.pages[i] = struct{}{}
		}
		if state == pageDamaged {
			m.rewrite[i] = true
		}
	})
	return err
}

// loadPage takes over the bits of a page. Bits behind the volume's end mean
// nothing.
func (m *Map) loadPage(i int64, words *[pageWords]uint64) {
	p := page{words: *words}
	if end := int(min(m.blocks-i*pageBits, pageBits)); end < pageBits {
		p.fill(end, pageBits, false)
	}
	p.set = p.count(0, pageBits)
	switch m.count += int64(p.set); p.set {
	case 0:
	case pageBits:
		m.put(i, fullPage)
	default:
		mixed := p
		m.put(i, &mixed)
	}
}

// Damaged lists the pages that could not be read when the bitmap was opened.
// All of their blocks are in the set; page i has the PageBytes bytes of the
// volume at i×PageBytes.
func (m *Map) Damaged() []int { return m.damaged }

// PageBytes is how many bytes of the volume one page of an out-of-sync bitmap
// describes.
const PageBytes = pageBits * BlockSize

// Base is what the bits are relative to.
func (m *Map) Base() Base {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.base
}

// SetBase changes what the bits are relative to. Whatever bits the new base
// needs must have been set before.
func (m *Map) SetBase(base Base) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base = base
}

// Flush makes bits and base, as they were when it was called, durable. Later
// changes may be in it or not. It returns at once if nothing changed. The first
// failure is final.
//
// The bits are durable before a new base is written: a base that is ahead of
// its bits would hide what they say. SetAll costs one write, whatever the size.
func (m *Map) Flush() error {
	m.flush.Lock()
	defer m.flush.Unlock()
	return m.file.try(func() error {
		m.mu.Lock()
		all, pages := m.takeChanges()
		h := m.file.h
		h.base = m.base
		m.mu.Unlock()
		if all {
			// The header says it all, so old pages are void from here on, and
			// nothing is hidden by a new base in the same write.
			h.era, h.fill = h.era+1, fillSet
			if err := m.file.commit(h); err != nil {
				return err
			}
		}
		if err := m.file.writePages(pages, m.copyPage); err != nil {
			return err
		}
		for _, i := range pages {
			delete(m.rewrite, i)
		}
		if h.base == m.file.h.base {
			return nil
		}
		return m.file.commit(h)
	})
}

// copyPage gives the words of page i as they are now.
func (m *Map) copyPage(i int64) []uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.page(i)
	if p == nil {
		return nil
	}
	m.words = p.words
	return m.words[:]
}

// Reset clears every bit and changes the base, durably: the peer has all that
// we have up to base. One commit of the header does both, so that a crash
// leaves the old bits with the old base, or none with the new one. The old
// pages are void by their era, not overwritten.
//
// Bits that are set while it runs stay set. If it fails the old bits are back,
// in memory, and the bitmap has failed.
func (m *Map) Reset(base Base) error {
	m.flush.Lock()
	defer m.flush.Unlock()
	return m.file.try(func() error {
		old, oldBase := m.swap(NewBlocks(m.size), base)
		h := m.file.h
		h.era, h.fill, h.base = h.era+1, fillClear, base
		if err := m.file.commit(h); err != nil {
			m.Merge(old)
			m.SetBase(oldBase)
			return err
		}
		return nil
	})
}

// swap puts the set and the base in the place of those in force, which it
// returns.
func (m *Map) swap(b *Blocks, base Base) (*Blocks, Base) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := &Blocks{size: m.size, blocks: m.blocks, groups: m.groups, count: m.count}
	oldBase := m.base
	m.groups, m.count, m.base = b.groups, b.count, base
	m.changes.all = false
	clear(m.changes.pages)
	for i := range m.rewrite {
		m.changes.pages[i] = struct{}{}
	}
	return old, oldBase
}

// Close closes the file without flushing. Closing twice is no error.
func (m *Map) Close() error {
	m.flush.Lock()
	defer m.flush.Unlock()
	return m.file.close()
}
