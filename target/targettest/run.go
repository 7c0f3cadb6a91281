package targettest

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
)

// minSize is the smallest device that the suite can work with, in bytes.
const minSize = 8 << 20

// Run puts devices through the suite. newDevice makes a device that serves, is
// writable, has at least 8 MiB, and is released by the test's Cleanup; every
// subtest asks for a new one. What it contains at first does not matter.
//
// Random tests log their seed; LOCKSTEP_SEED repeats one.
func Run(t *testing.T, newDevice func(t *testing.T) block.Device) {
	tests := []struct {
		name string
		run  func(*bench)
	}{
		{"Info", testInfo},
		{"WriteThenRead", testWriteThenRead},
		{"ZeroesAndTrim", testZeroesAndTrim},
		{"Extents", testExtents},
		{"FlagsAndFlush", testFlagsAndFlush},
		{"LargeRequests", testLargeRequests},
		{"CompletedBeforeSubmitted", testCompletedBeforeSubmitted},
		{"InFlightTogether", testInFlightTogether},
		{"AtomicWrites", testAtomicWrites},
		{"BufferStaysIntact", testBufferStaysIntact},
		{"OutOfRange", testOutOfRange},
		{"SessionsSeeEachOther", testSessionsSeeEachOther},
		{"CloseEndsSession", testCloseEndsSession},
		{"CloseWithRequestsInFlight", testCloseInFlight},
		{"RandomAgainstModel", testModel},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			d := newDevice(t)
			if d.Info().Size < minSize {
				t.Fatalf("the device has %d bytes, the suite needs %d", d.Info().Size, minSize)
			}
			tc.run(&bench{T: t, dev: d, info: d.Info()})
		})
	}
}

// bench is a device under test.
type bench struct {
	*testing.T
	dev  block.Device
	info block.Info
}

// attach begins a session that ends with the test.
func (b *bench) attach() block.Session {
	b.Helper()
	s, err := b.dev.Attach(b.Context(), func(reason error) { b.Logf("session revoked: %v", reason) })
	if err != nil {
		b.Fatalf("attach: %v", err)
	}
	b.Cleanup(s.Close)
	return s
}

// rng is seeded by LOCKSTEP_SEED or the clock, and logs which.
func (b *bench) rng() *rand.Rand {
	b.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LOCKSTEP_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			b.Fatalf("LOCKSTEP_SEED=%q is no number", s)
		}
		seed = n
	}
	b.Logf("LOCKSTEP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// waiter collects completions. It fails the test when a request is completed
// twice.
type waiter struct {
	b    *bench
	left sync.WaitGroup
	mu   sync.Mutex
	errs map[*block.Request]error
}

func (b *bench) waiter() *waiter {
	return &waiter{b: b, errs: make(map[*block.Request]error)}
}

func (w *waiter) Complete(r *block.Request, err error) {
	w.mu.Lock()
	_, twice := w.errs[r]
	w.errs[r] = err
	w.mu.Unlock()
	if twice {
		w.b.Errorf("%v of %d bytes at %d was completed twice", r.Op, r.Len, r.Off)
		return
	}
	w.left.Done()
}

// submit hands requests over without waiting.
func (w *waiter) submit(s block.Session, rs ...*block.Request) {
	for _, r := range rs {
		r.Done = w
	}
	w.left.Add(len(rs))
	s.Submit(rs)
}

func (w *waiter) wait() { w.left.Wait() }

// err is how a request ended; wait was called before.
func (w *waiter) err(r *block.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errs[r]
}

// do submits requests, waits for them, and returns their errors, joined.
func (b *bench) do(s block.Session, rs ...*block.Request) error {
	w := b.waiter()
	w.submit(s, rs...)
	w.wait()
	var errs []error
	for _, r := range rs {
		errs = append(errs, w.err(r))
	}
	return errors.Join(errs...)
}

func (b *bench) must(s block.Session, rs ...*block.Request) {
	b.Helper()
	if err := b.do(s, rs...); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) read(s block.Session, off, n int64) []byte {
	b.Helper()
	p := make([]byte, n)
	if err := s.ReadAt(p, off); err != nil {
		b.Fatalf("read of %d bytes at %d: %v", n, off, err)
	}
	return p
}

// write is a write of data. The request gets a pooled copy.
func write(off int64, data []byte) *block.Request {
	buf := block.Get(len(data))
	copy(buf.Bytes(), data)
	return &block.Request{Op: block.OpWrite, Off: off, Len: int64(len(data)), Buf: buf}
}

func effect(op block.Op, off, n int64) *block.Request {
	return &block.Request{Op: op, Off: off, Len: n}
}

// pattern is n bytes that tell where they belong and who wrote them.
func pattern(n int64, tag byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i>>9)*7 ^ byte(i) ^ tag
	}
	return p
}
