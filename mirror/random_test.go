package mirror

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

const rigBlocks = rigSize / rigBlock

// A register is what a block may hold: the values that were ever submitted for
// it, in order, of which those before a floor are gone for good.
type register struct {
	values  []uint64 // 0: trimmed, or never written
	acked   int      // index of the newest that was acknowledged, or read
	flushed int      // and of the newest that a flush covers
}

// registers is the checker's idea of the volume. A block has one writer at a time.
type registers struct {
	t      testing.TB
	mu     sync.Mutex
	blocks [rigBlocks]register
	next   uint64
}

func newRegisters(t testing.TB) *registers {
	m := &registers{t: t}
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
		m.blocks[i].acked = len(m.blocks[i].values) - 1
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
			// The newest with this value: zeroes can be there more than once,
			// and no more may be concluded than from the oldest.
			for k > floor && value == 0 {
				k--
				if b.values[k] != 0 {
					continue
				}
			}
			b.acked = max(b.acked, k)
			return
		}
	}
	m.t.Errorf("block %d reads value %d; it may be one of %d (flushed: %d)", i, value, b.values[floor:], b.values[b.flushed])
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
		s, err := v.Attach(context.Background(), nil)
		if err != nil {
			m.t.Fatalf("attach to %s: %v\n%s", n.name, err, n.rig.describe())
		}
		rng := rand.New(rand.NewPCG(rng.Uint64(), uint64(w)))
		l.wg.Go(func() {
			defer s.Close()
			for l.running(v) && m.step(v, s, rng, w*rigBlocks/3, rigBlocks/3) {
			}
		})
	}
	return l
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

// A tossed is two nodes that things happen to.
type tossed struct {
	*rig
	rng  *rand.Rand
	m    *registers
	p, s *rigNode // who is Primary now, or is to be, and the other
	// synced: both were members when p was last known to be well, so that either
	// may go on alone.
	synced bool
}

// TestRandomFaults kills, restarts, cuts off, heals, promotes, demotes and replaces
// two nodes at random, under load. No flushed write is ever lost, no acknowledged
// one as long as a member kept its memory, nothing that was read is read
// differently; and whenever they are healed, both replicas are the same.
func TestRandomFaults(t *testing.T) {
	rounds := 30
	if underRace {
		rounds = 10
	}
	if v := os.Getenv("LOCKSTEP_FAULT_ROUNDS"); v != "" {
		var err error
		if rounds, err = strconv.Atoi(v); err != nil {
			t.Fatalf("LOCKSTEP_FAULT_ROUNDS=%q: %v", v, err)
		}
	}
	rng := seed(t)
	r := newFakeRig(t, func(o *Options) { o.PeerTimeout = 500 * time.Millisecond }, "a", "b")
	r.meet()
	x := &tossed{rig: r, rng: rng, m: newRegisters(t), p: r.node("a"), s: r.node("b")}
	x.p.promote(false)
	for round := range rounds {
		if x.rng.IntN(3) > 0 || round == rounds-1 {
			x.settle()
		}
		x.fault(round)
		if t.Failed() {
			t.Fatalf("round %d\n%s", round, r.describe())
		}
	}
	x.settle()
}

// settle waits until both are members, and checks everything.
func (x *tossed) settle() {
	x.t.Helper()
	x.members()
	c := x.p.attach()
	c.flush()
	for i := range rigBlocks {
		floor := x.m.floor(i)
		got := c.read(int64(i)*rigBlock, rigBlock)
		x.m.read(i, floor, got)
		x.m.settled(i, got)
	}
	x.inSync(x.p.name, x.s.name)
	x.synced = true
	c.s.Close()
}

func (x *tossed) work() { time.Sleep(time.Duration(x.rng.IntN(60)) * time.Millisecond) }

// fault does one thing to the two nodes while p serves clients.
func (x *tossed) fault(round int) {
	x.t.Helper()
	ofSecondary := []string{"kill secondary", "power off secondary", "isolate secondary", "replace secondary", "flood"}
	ofPrimary := []string{"kill primary, the other leads", "kill primary, it comes back", "power off primary, the other leads", "power off primary, it comes back",
		"hand over", "replace primary", "slow network", "both power off", "lone primary dies"}
	name := ofSecondary[x.rng.IntN(len(ofSecondary))]
	if x.synced && x.rng.IntN(2) == 0 {
		name = ofPrimary[x.rng.IntN(len(ofPrimary))]
	}
	x.t.Logf("round %d: %s (primary %s, synced %v)", round, name, x.p.name, x.synced)
	l := x.m.load(x.p, x.rng)
	x.work()
	p, s := x.p, x.s
	switch name {
	case "kill secondary":
		s.kill()
		x.work()
		s.start()
		x.synced = false
	case "power off secondary":
		s.powerLoss(fakedisk.KeepSome(x.rng.Uint64()))
		x.work()
		s.start()
		x.synced = false
	case "isolate secondary":
		s.isolate()
		x.work()
		s.heal()
		x.synced = false
	case "replace secondary":
		s.kill()
		s.createFake()
		x.work()
		s.start()
		x.synced = false
	case "flood":
		x.flood(l)
		return
	case "slow network":
		g := x.gate(p.name, s.name)
		if x.rng.IntN(2) == 0 {
			g = x.gate(s.name, p.name)
		}
		g.hold()
		time.Sleep(time.Duration(x.rng.IntN(800)) * time.Millisecond)
		g.open()
		x.synced = false
	case "hand over":
		p.demote()
		l.end()
		x.meet()
		s.promote(false)
		x.p, x.s = s, p
		return
	case "kill primary, the other leads":
		p.kill()
		l.end()
		s.promote(true)
		x.p, x.s = s, p
		p.start()
		x.synced = false
		return
	case "power off primary, the other leads":
		p.powerLoss(fakedisk.KeepSome(x.rng.Uint64()))
		l.end()
		s.promote(true)
		x.p, x.s = s, p
		p.start()
		x.synced = false
		return
	case "replace primary":
		p.kill()
		l.end()
		p.createFake()
		s.promote(true)
		x.p, x.s = s, p
		p.start()
		x.synced = false
		return
	case "kill primary, it comes back":
		p.kill()
		l.end()
		p.start()
		x.either()
		return
	case "power off primary, it comes back":
		p.powerLoss(fakedisk.KeepSome(x.rng.Uint64()))
		l.end()
		p.start()
		x.either()
		return
	case "both power off":
		for _, g := range x.gates {
			g.hold()
		}
		p.powerLoss(fakedisk.KeepSome(x.rng.Uint64()))
		s.powerLoss(fakedisk.KeepSome(x.rng.Uint64()))
		x.openGates()
		l.end()
		x.m.memoryLost()
		p.start()
		s.start()
		x.either()
		return
	case "lone primary dies":
		s.kill()
		x.work()
		p.kill()
		l.end()
		p.start()
		s.start()
		x.either()
		return
	}
	x.work()
	l.end()
}

// flood writes more than the journal holds while the Secondary is away.
func (x *tossed) flood(l *load) {
	l.end()
	x.s.kill()
	c := x.p.attach()
	for range 40 {
		first := x.rng.IntN(rigBlocks - 512)
		p := make([]byte, 512*rigBlock)
		fillValue(p, x.m.submit(first, 512, false))
		c.write(int64(first)*rigBlock, p)
		x.m.ack(first, 512)
	}
	c.s.Close()
	x.s.start()
	x.synced = false
}

// either promotes one of two Secondaries that meet, without force: the one that
// is ahead, or either.
func (x *tossed) either() {
	x.t.Helper()
	x.meet()
	if x.rng.IntN(2) == 0 {
		x.p, x.s = x.s, x.p
	}
	x.synced = false
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := x.p.vol.Promote(ctx, PromoteOptions{})
	if err == nil {
		return
	}
	var unsafe *UnsafePromotionError
	if !errors.As(err, &unsafe) {
		x.t.Fatalf("promote %s: %v\n%s", x.p.name, err, x.describe())
	}
	x.p, x.s = x.s, x.p
	if again := x.p.vol.Promote(ctx, PromoteOptions{}); again != nil {
		x.t.Fatalf("neither may be promoted: %v; %v\n%s", err, again, x.describe())
	}
}
