package iscsi

import (
	"math/bits"
	"sync"
)

// footprint is the memory that n bytes take: block.Get's classes are powers of
// two, from 4 KiB.
func footprint(n int) int64 {
	if n == 0 {
		return 0
	}
	return 1 << max(12, bits.Len64(uint64(n)-1))
}

// memory is what all sessions share. Whoever finds too little waits in line,
// and holds nothing of it meanwhile: the first in line gets what becomes free,
// unless his own session has its limit in use.
type memory struct {
	mu   sync.Mutex
	free int64
	line []*task
}

func (m *memory) left() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free
}

// reserve takes n bytes if they are there and nobody waits.
func (m *memory) reserve(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.free || len(m.line) > 0 {
		return false
	}
	m.free -= n
	return true
}

// acquire takes t.charge for a task, or puts it in line and reports false.
func (m *memory) acquire(t *task) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.line) == 0 && m.take(t) {
		return true
	}
	m.line = append(m.line, t)
	return false
}

func (m *memory) take(t *task) bool {
	if t.charge > m.free || t.conn.bytes+t.charge > t.conn.srv.opt.MaxBytes {
		return false
	}
	m.free -= t.charge
	t.conn.bytes += t.charge
	t.charged = true
	return true
}

// leave takes a task out of the line; false: it is not in it.
func (m *memory) leave(t *task) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, o := range m.line {
		if o == t {
			m.line = append(m.line[:i], m.line[i+1:]...)
			return true
		}
	}
	return false
}

// release gives n bytes back, of which a session's large commands had large, and
// begins what can begin now.
func (m *memory) release(c *conn, n, large int64) {
	m.mu.Lock()
	m.free += n
	c.bytes -= large
	var begin []*task
	rest := m.line[:0]
	short := false // somebody waits for the server's memory: later ones do not overtake
	for _, t := range m.line {
		if !short && m.take(t) {
			begin = append(begin, t)
			continue
		}
		short = short || t.charge > m.free
		rest = append(rest, t)
	}
	clear(m.line[len(rest):])
	m.line = rest
	m.mu.Unlock()
	for _, t := range begin {
		t.conn.granted(t)
	}
}
