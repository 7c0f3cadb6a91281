package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// BlockSize is the unit, in bytes, in which contents are told apart.
const BlockSize = 4096

// A Model knows what an export may hold. Its methods may be called concurrently.
type Model struct {
	mu     sync.Mutex
	blocks []content
	values uint64 // drawn so far
	acks   uint64 // writes answered so far
	// flushed: the first so many answers are covered by an answered flush.
	flushed uint64
	limbo   []change // writes whose answer never came
}

// content is what a block holds by the last answered write: the number that its
// bytes are made of, 0 for zeroes; which answer that was; and whether it was
// durable by itself.
type content struct {
	value, ack uint64
	fua        bool
}

// A change is one write, trim or zeroing of consecutive blocks.
type change struct {
	first, count int
	value        uint64 // 0: zeroes
	fua          bool
}

// NewModel is the model of an export of so many bytes that reads as zeroes.
func NewModel(size int64) *Model { return &Model{blocks: make([]content, size/BlockSize)} }

// Blocks is the number of blocks.
func (m *Model) Blocks() int { return len(m.blocks) }

// newValue draws a number that no write had before.
func (m *Model) newValue() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values++
	return m.values
}

// answered notes that ch took place.
func (m *Model) answered(ch change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acks++
	m.settle(ch, m.acks)
}

func (m *Model) settle(ch change, ack uint64) {
	for i := range ch.count {
		m.blocks[ch.first+i] = content{ch.value, ack, ch.fua}
	}
}

// lost notes that nobody knows whether ch took place.
func (m *Model) lost(ch change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limbo = append(m.limbo, ch)
}

// flushing returns what a flush that is sent now will cover; flushedTo notes
// that it was answered.
func (m *Model) flushing() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acks
}

func (m *Model) flushedTo(ack uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushed = max(m.flushed, ack)
}

// Fill makes p, one block's bytes, of a block's number and a value.
func Fill(p []byte, block int, value uint64) {
	if value == 0 {
		clear(p)
		return
	}
	le := binary.LittleEndian
	x := value*0x9e3779b97f4a7c15 ^ uint64(block)
	for i := 16; i < len(p); i += 8 {
		// Xorshift: cheap, and unlike its neighbours.
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		le.PutUint64(p[i:], x)
	}
	le.PutUint64(p, value)
	le.PutUint64(p[8:], uint64(block))
}

// identify returns the value that p, read from a block, was made of.
func identify(p []byte, block int) (uint64, error) {
	value := binary.LittleEndian.Uint64(p)
	want := make([]byte, len(p))
	Fill(want, block, value)
	if slices.Equal(p, want) {
		return value, nil
	}
	if at := binary.LittleEndian.Uint64(p[8:]); value != 0 && at != uint64(block) {
		return 0, fmt.Errorf("block %d holds what was written to block %d", block, at)
	}
	return 0, fmt.Errorf("block %d is torn: its bytes are not those of any one write (it begins like write %d)", block, value)
}

// Verify reads the whole export with read and compares. Writes whose outcome
// was unknown are known afterwards: whatever was seen once must stay. No load
// may run meanwhile.
func (m *Model) Verify(read func(p []byte, off int64) error) error {
	seen, err := m.readAll(read)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ch := range m.limbo {
		now := seen[ch.first:][:ch.count]
		if !slices.ContainsFunc(now, func(v uint64) bool { return v != ch.value }) {
			m.settle(ch, m.acks)
		}
	}
	m.limbo = nil
	var errs []error
	for i, want := range m.blocks {
		if seen[i] == want.value {
			continue
		}
		covered := "acknowledged, not flushed"
		if want.fua || want.ack <= m.flushed {
			covered = "acknowledged and flushed"
		}
		if errs = append(errs, fmt.Errorf("block %d (offset %d): write %d, %s, is not there; write %d is",
			i, i*BlockSize, want.value, covered, seen[i])); len(errs) == 8 {
			errs = append(errs, errors.New("and perhaps more"))
			break
		}
	}
	return errors.Join(errs...)
}

// readAll returns each block's value.
func (m *Model) readAll(read func(p []byte, off int64) error) ([]uint64, error) {
	const chunk = 256 // blocks
	seen := make([]uint64, 0, len(m.blocks))
	p := make([]byte, chunk*BlockSize)
	var errs []error
	for len(seen) < len(m.blocks) {
		first := len(seen)
		n := min(chunk, len(m.blocks)-first)
		if err := read(p[:n*BlockSize], int64(first)*BlockSize); err != nil {
			return nil, fmt.Errorf("read block %d: %w", first, err)
		}
		for i := range n {
			v, err := identify(p[i*BlockSize:][:BlockSize], first+i)
			if err != nil {
				errs = append(errs, err)
			}
			seen = append(seen, v)
		}
	}
	return seen, errors.Join(errs[:min(8, len(errs))]...)
}

// expect compares blocks that were read during a load by the one worker that
// writes them.
func (m *Model) expect(p []byte, first int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range len(p) / BlockSize {
		v, err := identify(p[i*BlockSize:][:BlockSize], first+i)
		if err != nil {
			return err
		}
		if want := m.blocks[first+i].value; v != want {
			return fmt.Errorf("block %d: write %d was acknowledged, a read gives write %d", first+i, want, v)
		}
	}
	return nil
}
