package fakedisk

import (
	"bytes"
	"encoding/binary"
	"maps"
)

const (
	pageSize   = 4096
	sectorSize = 512 // the unit that a power loss does not tear
)

// A page never changes once it is in an image, so images share pages.
type page [pageSize]byte

// image is a file's content at one moment. Pages that are missing are zeroes.
type image struct {
	pages map[int64]*page
	size  int64
}

func (m *image) clone() image { return image{pages: maps.Clone(m.pages), size: m.size} }

// read fills p from off with what the file holds there, and zeroes past its end.
func (m *image) read(p []byte, off int64) {
	for len(p) > 0 {
		at := off % pageSize
		n := min(int64(len(p)), pageSize-at)
		if pg := m.pages[off/pageSize]; pg != nil {
			copy(p[:n], pg[at:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
}

// holds reports whether the file has p at off. p lies in one page.
func (m *image) holds(p []byte, off int64) bool {
	if off+int64(len(p)) > m.size {
		return false
	}
	if pg := m.pages[off/pageSize]; pg != nil {
		return bytes.Equal(pg[off%pageSize:][:len(p)], p)
	}
	return isZero(p)
}

// write stores p at off, and keeps it: nobody may write to it any more.
func (m *image) write(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	m.size = max(m.size, off+int64(len(p)))
	for len(p) > 0 {
		at := off % pageSize
		n := min(int64(len(p)), pageSize-at)
		old := m.pages[off/pageSize]
		if old != nil || !isZero(p[:n]) {
			m.pages[off/pageSize] = old.with(p[:n], at)
		}
		p, off = p[n:], off+n
	}
}

// with returns the page, zeroes if it is nil, with p at the offset at.
func (pg *page) with(p []byte, at int64) *page {
	if len(p) == pageSize {
		return (*page)(p)
	}
	changed := new(page)
	if pg != nil {
		*changed = *pg
	}
	copy(changed[at:], p)
	return changed
}

// truncate sets the size; what a file that grows again shows there is zeroes.
func (m *image) truncate(size int64) {
	for i := range m.pages {
		if i*pageSize >= size {
			delete(m.pages, i)
		}
	}
	if pg := m.pages[size/pageSize]; pg != nil {
		kept := *pg
		clear(kept[size%pageSize:])
		m.pages[size/pageSize] = &kept
	}
	m.size = size
}

// zeroes is what is shared of writes that write nothing else: a journal that is
// made is megabytes of them.
var zeroes [256 << 10]byte

// isZero says whether all of p is zero. Most of what is written is not from its first
// byte on; for the rest the race detector, which looks at that byte, is spared, or a
// journal that is made would cost more than the test that it is made for.
func isZero(p []byte) bool { return len(p) == 0 || p[0] == 0 && restIsZero(p) }

//go:norace
func restIsZero(p []byte) bool {
	for ; len(p) >= 8; p = p[8:] {
		if binary.NativeEndian.Uint64(p) != 0 {
			return false
		}
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// copyOf returns a copy of p, which nobody may write to.
func copyOf(p []byte) []byte {
	if len(p) <= len(zeroes) && isZero(p) {
		return zeroes[:len(p)]
	}
	return bytes.Clone(p)
}
