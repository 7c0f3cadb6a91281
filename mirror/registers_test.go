package mirror

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
)

const rigBlocks = rigSize / rigBlock

// A register is what a block may hold: the values that were ever submitted for
// it, in order, of which those before a floor are gone for good.
type register struct {
	values  []uint64 // 0: trimmed, or never written
	acked   int      // index of the newest that was acknowledged, or read
	flushed int      // and of the newest that a flush covers
	told    int      // as acked, and never forgiven
}

// registers is the checker's idea of the volume. A block has one writer at a time.
type registers struct {
	t          testing.TB
	writeCache bool
	mu         sync.Mutex
	blocks     [rigBlocks]register
	next       uint64
	// lost: something is gone that was acknowledged, and forgiven.
	lost bool
}

func newRegisters(t testing.TB, writeCache bool) *registers {
	m := &registers{t: t, writeCache: writeCache}
	for i := range m.blocks {
		m.blocks[i].values = []uint64{0}
	}
	return m
}

// submit notes a change of n blocks from first on, and returns its value.
func (m *registers) submit(first, n int, trim bool) (value uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !trim {
		m.next++
		value = m.next
	}
	for i := first; i < first+n; i++ {
		m.blocks[i].values = append(m.blocks[i].values, value)
	}
	return value
}

func (m *registers) ack(first, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := first; i < first+n; i++ {
		b := &m.blocks[i]
		b.acked = len(b.values) - 1
		b.told = b.acked
		if !m.writeCache { // what is acknowledged is durable
			b.flushed = b.acked
		}
	}
}

// flush returns what a flush that is submitted now covers, for flushed.
func (m *registers) flush() (covers []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.blocks {
		covers = append(covers, m.blocks[i].acked)
	}
	return covers
}

func (m *registers) flushed(covers []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.blocks {
		m.blocks[i].flushed = max(m.blocks[i].flushed, covers[i])
	}
}

// memoryLost: what was acknowledged and not flushed may be gone.
func (m *registers) memoryLost() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.blocks {
		m.blocks[i].acked = m.blocks[i].flushed
	}
}

func (m *registers) floor(i int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.blocks[i].acked, m.blocks[i].flushed)
}

// read checks what block i reads, where floor was asked for before the read.
func (m *registers) read(i, floor int, got []byte) {
	value := binary.LittleEndian.Uint64(got)
	want := make([]byte, rigBlock)
	fillValue(want, value)
	if !bytes.Equal(got, want) {
		m.t.Errorf("block %d is torn: it begins with value %d", i, value)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &m.blocks[i]
	for k := len(b.values) - 1; k >= floor; k-- {
		if b.values[k] == value {
			m.lost = m.lost || k < b.told
			// The newest with this value: zeroes can be there more than once,
			// and no more may be concluded than from the oldest.
			for k > floor && value == 0 {
				k--
				if b.values[k] != 0 {
					continue
				}
			}
			b.acked = max(b.acked, k)
			b.told = max(b.told, k)
			return
		}
	}
	m.t.Errorf("block %d reads value %d; it may be one of %d (flushed: %d)", i, value, b.values[floor:], b.values[b.flushed])
}

// check reads every block, once everything is flushed.
func (m *registers) check(c *client) {
	m.t.Helper()
	for i := range rigBlocks {
		floor := m.floor(i)
		got := c.read(int64(i)*rigBlock, rigBlock)
		m.read(i, floor, got)
		m.settled(i, got)
	}
}

// settled: the block is known to hold what was read, durably everywhere.
func (m *registers) settled(i int, got []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks[i] = register{values: []uint64{binary.LittleEndian.Uint64(got)}}
}

func fillValue(p []byte, value uint64) {
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, value)
	}
}

// A load is a few clients that write, trim, flush and read until they are
// stopped, or their volume goes away.
type load struct {
	stop chan struct{}
	wg   sync.WaitGroup
}

func (m *registers) load(n *rigNode, rng *rand.Rand) *load {
	l := &load{stop: make(chan struct{})}
	v := n.vol
	for w := range 3 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), uint64(w)))
		l.wg.Go(func() {
			s, err := l.attach(v)
			if err != nil {
				return
			}
			defer s.Close()
			for l.running(v) && m.step(v, s, rng, w*rigBlocks/3, rigBlocks/3) {
			}
		})
	}
	return l
}

// attach waits until the volume admits a client, which it may do only once enough
// replicas are in sync again.
func (l *load) attach(v *Volume) (block.Session, error) {
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	go func() {
		select {
		case <-l.stop:
		case <-ctx.Done():
		}
		cancel()
	}()
	return v.Attach(ctx, nil)
}

func (l *load) running(v *Volume) bool {
	select {
	case <-l.stop:
		return false
	case <-v.ctx.Done():
		return false
	default:
		return true
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// step is one request of a client of its own blocks; false ends the client.
func (m *registers) step(v *Volume, s block.Session, rng *rand.Rand, from, blocks int) bool {
	n := 1 + rng.IntN(8)
	if rng.IntN(50) == 0 {
		n = 300
	}
	first := from + rng.IntN(blocks-n)
	r := &block.Request{Off: int64(first) * rigBlock, Len: int64(n) * rigBlock}
	switch k := rng.IntN(20); {
	case k == 0:
		covers := m.flush()
		ok := m.do(v, s, &block.Request{Op: block.OpFlush})
		if ok {
			m.flushed(covers)
		}
		return ok
	case k < 6:
		floor := m.floor(first)
		p := make([]byte, rigBlock)
		if err := s.ReadAt(p, r.Off); err != nil {
			return false
		}
		m.read(first, floor, p)
		return true
	case k == 6:
		r.Op = block.OpTrim
		m.submit(first, n, true)
	default:
		r.Op, r.Buf = block.OpWrite, block.Get(n*rigBlock)
		fillValue(r.Buf.Bytes(), m.submit(first, n, false))
	}
	if !m.do(v, s, r) {
		return false
	}
	m.ack(first, n)
	return true
}

// do reports whether the request was acknowledged.
func (m *registers) do(v *Volume, s block.Session, r *block.Request) bool {
	w := make(waitDone, 1)
	r.Done = w
	s.Submit([]*block.Request{r})
	select {
	case err := <-w:
		return err == nil
	case <-v.ctx.Done():
		return false
	case <-time.After(30 * time.Second):
		m.t.Errorf("a %v hangs", r.Op)
		return false
	}
}
