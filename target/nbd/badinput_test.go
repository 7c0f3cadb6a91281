package nbd

import (
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// Bad requests are answered, and the connection goes on.
func TestBadRequestsAreAnswered(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.attach()
	for i, tc := range []struct {
		req   wire.Request
		errno uint32
	}{
		{wire.Request{Type: 0xffff, Len: 4096}, wire.EINVAL},
		{wire.Request{Type: 7, Off: 1 << 63, Len: math.MaxUint32}, wire.EINVAL},
		{wire.Request{Type: wire.CmdRead, Len: math.MaxUint32}, wire.EINVAL},
		{wire.Request{Type: wire.CmdRead, Off: testSize - 512, Len: 1024}, wire.EINVAL},
		{wire.Request{Type: wire.CmdRead, Off: math.MaxInt64 - 511, Len: 512}, wire.EINVAL},
		{wire.Request{Type: wire.CmdRead, Off: math.MaxUint64 - 511, Len: 512}, wire.EINVAL},
		{wire.Request{Type: wire.CmdTrim, Off: 0, Len: math.MaxUint32}, wire.EINVAL},
		{wire.Request{Type: wire.CmdWriteZeroes, Off: 512, Len: math.MaxUint32 - 511}, wire.ENOSPC},
		{wire.Request{Type: wire.CmdWrite, Off: 1 << 63, Len: 4096}, wire.ENOSPC},
		{wire.Request{Type: wire.CmdWrite, Off: testSize, Len: 9 << 20}, wire.ENOSPC},
		{wire.Request{Type: wire.CmdFlush, Flags: 0xffff}, wire.EINVAL},
	} {
		tc.req.Cookie = uint64(i)
		var payload []byte
		if tc.req.Type == wire.CmdWrite {
			payload = make([]byte, tc.req.Len)
		}
		p.request(tc.req, payload...)
		p.expect(uint64(i), tc.errno)
	}
	r.works()
}

func TestBadStreamsHangUp(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	for name, b := range map[string][]byte{
		"wrong magic":   make([]byte, wire.RequestSize),
		"4 GiB payload": wire.Request{Type: wire.CmdWrite, Len: math.MaxUint32}.Append(nil),
		"text":          []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			p := r.attach()
			p.send(b...)
			p.closed()
		})
	}
	r.works()
}

// Random bytes, in both phases, from many clients: the server lives, and holds
// no memory for them.
func TestRandomBytes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LOCKSTEP_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("LOCKSTEP_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t, memory.Sized(testSize), Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 200 {
		p := r.dial()
		if i%2 == 0 {
			p.Close()
			p = r.attach()
		}
		b := make([]byte, rng.IntN(2000))
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		if i%4 == 0 { // sound magic, random rest
			b = append(wire.Request{Type: wire.CmdRead, Off: rng.Uint64(), Len: uint64(rng.Uint32())}.Append(nil), b...)
		}
		p.Write(b)
		p.Close()
	}
	r.works()
	until(t, "the server has nothing in hand", func() bool { return r.srv.Stats() == Stats{} })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 64<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}
