package targettest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/lockstep-storage/lockstep/block"
)

func testSessionsSeeEachOther(b *bench) {
	one, two := b.attach(), b.attach()
	const n = 64 << 10
	for i := range 20 {
		want := pattern(n, byte(i))
		b.must(one, write(0, want))
		if !bytes.Equal(b.read(two, 0, n), want) {
			b.Fatalf("round %d: a completed write does not show in another session", i)
		}
		b.must(two, &block.Request{Op: block.OpFlush})
		one, two = two, one
	}
}

func testCloseEndsSession(b *bench) {
	s, other := b.attach(), b.attach()
	b.must(s, write(0, pattern(1<<16, 1)))
	s.Close()
	s.Close() // twice is allowed
	for _, r := range []*block.Request{
		write(0, pattern(1<<16, 2)), effect(block.OpTrim, 0, 1<<16), {Op: block.OpFlush},
	} {
		if err := b.do(s, r); !errors.Is(err, block.ErrSessionClosed) {
			b.Errorf("%v on a closed session: %v, want ErrSessionClosed", r.Op, err)
		}
	}
	if !bytes.Equal(b.read(other, 0, 1<<16), pattern(1<<16, 1)) {
		b.Error("a request on a closed session took effect")
	}
}

// No request of a closed session that had not been ordered takes effect; those
// that were ordered complete. Each is completed once, and its outcome is true.
func testCloseInFlight(b *bench) {
	const n = 16 << 10
	for round := range 20 {
		old := pattern(n, 0)
		other := b.attach()
		for i := range int64(32) {
			b.must(other, write(i*n, old))
		}
		s := b.attach()
		w := b.waiter()
		var batch []*block.Request
		for i := range int64(32) {
			batch = append(batch, write(i*n, pattern(n, byte(i+1))))
		}
		var submitting sync.WaitGroup
		submitting.Go(func() { w.submit(s, batch...) })
		s.Close()
		submitting.Wait()
		w.wait()

		fresh := b.attach() // everything before it is settled
		for i, r := range batch {
			want := pattern(n, byte(i+1))
			switch err := w.err(r); {
			case errors.Is(err, block.ErrSessionClosed):
				want = old
			case err != nil:
				b.Fatalf("round %d: write %d: %v", round, i, err)
			}
			if !bytes.Equal(b.read(fresh, r.Off, n), want) {
				b.Fatalf("round %d: write %d ended with %v, and the device says otherwise", round, i, w.err(r))
			}
		}
		fresh.Close()
		other.Close()
	}
}

// Several sessions work at once, each in a part of the device of its own, and
// each part is compared with a plain byte array.
func testModel(b *bench) {
	rng := b.rng()
	const workers = 4
	part := minSize / workers / b.info.SectorSize * b.info.SectorSize
	var all sync.WaitGroup
	for i := range int64(workers) {
		m := &model{
			b: b, s: b.attach(), start: i * part, bytes: make([]byte, part),
			rng: rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64())),
		}
		all.Go(m.work)
	}
	all.Wait()
}

type model struct {
	b     *bench
	s     block.Session
	rng   *rand.Rand
	start int64
	bytes []byte // what the part holds
}

func (m *model) work() {
	if err := m.b.do(m.s, write(m.start, m.bytes)); err != nil {
		m.b.Errorf("clear the part at %d: %v", m.start, err)
		return
	}
	for range 60 {
		if err := m.b.do(m.s, m.batch()...); err != nil {
			m.b.Errorf("batch in the part at %d: %v", m.start, err)
			return
		}
		off, n := m.span()
		got := make([]byte, n)
		if err := m.s.ReadAt(got, m.start+off); err != nil {
			m.b.Errorf("read of %d bytes at %d: %v", n, m.start+off, err)
			return
		}
		if !bytes.Equal(got, m.bytes[off:off+n]) {
			m.b.Errorf("%d bytes at %d are not what the model has", n, m.start+off)
			return
		}
		if sparse, ok := m.s.(block.Sparse); ok {
			if err := holds(sparse, m.start+off, m.bytes[off:off+n]); err != nil {
				m.b.Errorf("extents in the part at %d: %v", m.start, err)
				return
			}
		}
	}
}

// batch is a few requests that do not overlap, for what overlaps in flight may
// end either way. The model gets them too.
func (m *model) batch() []*block.Request {
	var rs []*block.Request
	for off := int64(0); ; {
		skip, n := m.span()
		off += skip / 4
		if off+n > int64(len(m.bytes)) {
			break
		}
		rs = append(rs, m.request(off, n))
		off += n
	}
	if m.rng.IntN(4) == 0 {
		rs = append(rs, &block.Request{Op: block.OpFlush})
	}
	return rs
}

func (m *model) request(off, n int64) *block.Request {
	var r *block.Request
	here := m.bytes[off : off+n]
	switch m.rng.IntN(8) {
	case 0:
		r = effect(block.OpWriteZeroes, m.start+off, n)
		r.NoHole = m.rng.IntN(2) == 0
		clear(here)
	default:
		for i := range here {
			here[i] = byte(m.rng.Uint32())
		}
		r = write(m.start+off, here)
	}
	r.FUA = m.rng.IntN(8) == 0
	return r
}

// span is a range within the part.
func (m *model) span() (off, n int64) {
	sectors := int64(len(m.bytes)) / m.b.info.SectorSize
	n = 1 + m.rng.Int64N(min(sectors, (64<<10)/m.b.info.SectorSize+1))
	off = m.rng.Int64N(sectors - n + 1)
	return off * m.b.info.SectorSize, n * m.b.info.SectorSize
}
