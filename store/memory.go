package store

import (
	"fmt"
	"sync"
)

// chunkSize is the piece, in bytes, in which memory is taken and given back.
const chunkSize = 64 << 10

// Memory keeps a replica's bytes in memory, taking only what was written. It
// forgets everything with the process. All methods may be called concurrently.
type Memory struct {
	size int64

	mu     sync.RWMutex
	chunks map[int64]*[chunkSize]byte // by number; absent is zeroes
	closed bool
}

// NewMemory returns a store of size bytes, at least 1, that reads as zeroes.
func NewMemory(size int64) *Memory {
	if size <= 0 {
		panic(fmt.Sprintf("store: memory of %d bytes", size))
	}
	return &Memory{size: size, chunks: map[int64]*[chunkSize]byte{}}
}

// Size in bytes.
func (m *Memory) Size() int64 { return m.size }

// ReadAt fills p from byte off. It is all of p or an error.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	for n := 0; n < len(p); {
		number, at := (off+int64(n))/chunkSize, (off+int64(n))%chunkSize
		part := p[n:min(len(p), n+int(chunkSize-at))]
		if c := m.chunks[number]; c != nil {
			copy(part, c[at:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p), nil
}

// TryReadAt is ReadAt: memory never waits for a disk.
func (m *Memory) TryReadAt(p []byte, off int64) (bool, error) {
	_, err := m.ReadAt(p, off)
	return true, err
}

// WriteAt writes p at byte off. It is all of p or an error.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	m.write(p, off)
	return len(p), nil
}

// WritevAt writes bufs one after the other from byte off on, all or an error.
// It neither keeps nor changes bufs.
func (m *Memory) WritevAt(bufs [][]byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, vectorLen(bufs)); err != nil {
		return err
	}
	for _, b := range bufs {
		m.write(b, off)
		off += int64(len(b))
	}
	return nil
}

func (m *Memory) write(p []byte, off int64) {
	for len(p) > 0 {
		number, at := off/chunkSize, off%chunkSize
		c := m.chunks[number]
		if c == nil {
			c = new([chunkSize]byte)
			m.chunks[number] = c
		}
		n := copy(c[at:], p)
		p, off = p[n:], off+int64(n)
	}
}

// Zero makes n bytes at off read as zeroes; with punch whole chunks of them are
// given back.
func (m *Memory) Zero(off, n int64, punch bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(off, n); err != nil {
		return err
	}
	for end := off + n; off < end; {
		number, at := off/chunkSize, off%chunkSize
		part := min(end-off, chunkSize-at)
		if c := m.chunks[number]; c != nil {
			clear(c[at : at+part])
		}
		if punch && part == chunkSize {
			delete(m.chunks, number)
		}
		off += part
	}
	return nil
}

// Sync succeeds: what memory has it has.
func (m *Memory) Sync() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.check(0, 0)
}

// WriteBack does nothing.
func (m *Memory) WriteBack(off, n int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.check(off, n)
}

// Extents reports which parts of the range were written and which were not, in
// order. report may use the store. An error of report ends it and is returned.
func (m *Memory) Extents(off, n int64, report func(off, n int64, data bool) error) error {
	m.mu.RLock()
	err := m.check(off, n)
	m.mu.RUnlock()
	for end := off + n; err == nil && off < end; {
		next, data := m.extent(off, end)
		err = report(off, next-off, data)
		off = next
	}
	return err
}

// extent is where the data, or the hole, that begins at off ends.
func (m *Memory) extent(off, end int64) (next int64, data bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	data = m.chunks[off/chunkSize] != nil
	for next = off; next < end && (m.chunks[next/chunkSize] != nil) == data; {
		next = (next/chunkSize + 1) * chunkSize
	}
	return min(next, end), data
}

// Close forgets everything.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chunks, m.closed = nil, true
	return nil
}

func (m *Memory) check(off, n int64) error {
	if m.closed {
		return ErrClosed
	}
	return checkRange(off, n, m.size)
}
