package nbd

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// seen notes what reaches a device.
type seen struct {
	mu  sync.Mutex
	all []memory.Access
}

func (s *seen) fault(a memory.Access) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, a)
	return nil
}

func TestCommandsReachTheDevice(t *testing.T) {
	var s seen
	dev := memory.New(memory.Options{Info: block.Info{Size: testSize, SectorSize: 512}, Fault: s.fault})
	r := newRig(t, dev, Options{})
	p := r.attach()
	data := bytes.Repeat([]byte{0xa5}, 1024)
	for i, q := range []wire.Request{
		{Type: wire.CmdWrite, Off: 512, Len: 1024},
		{Type: wire.CmdWrite, Off: 2048, Len: 1024, Flags: wire.CmdFlagFUA},
		{Type: wire.CmdTrim, Off: 4096, Len: 512, Flags: wire.CmdFlagFUA},
		{Type: wire.CmdWriteZeroes, Off: 8192, Len: 512},
		{Type: wire.CmdWriteZeroes, Off: 8192, Len: 512, Flags: wire.CmdFlagNoHole},
		{Type: wire.CmdFlush},
	} {
		q.Cookie = uint64(i)
		if q.Type == wire.CmdWrite {
			p.request(q, data...)
		} else {
			p.request(q)
		}
		p.expect(q.Cookie, wire.OK)
	}
	want := []block.Request{
		{Op: block.OpWrite, Off: 512, Len: 1024},
		{Op: block.OpWrite, Off: 2048, Len: 1024, FUA: true},
		{Op: block.OpTrim, Off: 4096, Len: 512, FUA: true},
		{Op: block.OpWriteZeroes, Off: 8192, Len: 512},
		{Op: block.OpWriteZeroes, Off: 8192, Len: 512, NoHole: true},
		{Op: block.OpFlush},
	}
	s.mu.Lock()
	all := s.all
	s.mu.Unlock()
	for i, a := range all {
		got := block.Request{Op: a.Op, FUA: a.FUA, NoHole: a.NoHole, Off: a.Off, Len: a.Len}
		if i >= len(want) || got != want[i] {
			t.Errorf("request %d: %+v", i, got)
		}
	}
	p.request(wire.Request{Type: wire.CmdRead, Cookie: 9, Off: 512, Len: 1024})
	p.expect(9, wire.OK)
	if !bytes.Equal(p.want(1024), data) {
		t.Error("what was read is not what was written")
	}
}

// Each error becomes an errno, has no payload, and the connection lives on.
func TestDeviceErrors(t *testing.T) {
	var next atomic.Pointer[error]
	dev := memory.New(memory.Options{
		Info:  block.Info{Size: testSize, SectorSize: 512},
		Fault: func(memory.Access) error { return *next.Load() },
	})
	r := newRig(t, dev, Options{})
	p := r.attach()
	cookie := uint64(0)
	for _, tc := range []struct {
		err  error
		want uint32
	}{
		{errors.New("bad sector"), wire.EIO}, {block.ErrNoSpace, wire.ENOSPC},
		{block.ErrReadOnly, wire.EPERM}, {block.ErrOutOfRange, wire.EINVAL}, {nil, wire.OK},
	} {
		next.Store(&tc.err)
		for _, cmd := range []uint16{wire.CmdWrite, wire.CmdTrim, wire.CmdWriteZeroes, wire.CmdRead} {
			cookie++
			var payload []byte
			if cmd == wire.CmdWrite {
				payload = make([]byte, 512)
			}
			p.request(wire.Request{Type: cmd, Cookie: cookie, Len: 512}, payload...)
			p.expect(cookie, tc.want)
		}
	}
	p.want(512) // of the last read, the only one that succeeded
}

func TestRepliesOutOfOrder(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{})
	p := r.attach()
	dev.Hold()
	const n = 20
	var all []byte
	for i := range uint64(n) {
		q := wire.Request{Type: wire.CmdWrite, Cookie: i, Off: i * 512, Len: 512}
		all = append(q.Append(all), bytes.Repeat([]byte{byte(i)}, 512)...)
	}
	p.send(all...)
	dev.AwaitHeld(n)
	dev.Release(func(rs []*block.Request) { slices.Reverse(rs) })
	for i := range uint64(n) {
		p.expect(n-1-i, wire.OK)
	}
	for i := range int64(n) {
		if dev.Snapshot(i*512, 1)[0] != byte(i) {
			t.Errorf("write %d went elsewhere", i)
		}
	}
}

// A cold read stalls neither the requests after it nor their replies.
func TestColdReadStallsNobody(t *testing.T) {
	var hold sync.WaitGroup
	hold.Add(1)
	dev := memory.New(memory.Options{
		Info: block.Info{Size: testSize, SectorSize: 512}, ColdReads: true,
		Fault: func(a memory.Access) error {
			if a.Read {
				hold.Wait()
			}
			return nil
		},
	})
	const workers = 4
	r := newRig(t, dev, Options{ReadWorkers: workers})
	p := r.attach()
	for i := range uint64(3 * workers) { // also more than there are workers
		p.request(wire.Request{Type: wire.CmdRead, Cookie: 100 + i, Len: 512})
	}
	p.request(wire.Request{Type: wire.CmdFlush, Cookie: 1})
	p.expect(1, wire.OK)
	hold.Done()
	got := make(map[uint64]bool)
	for range 3 * workers {
		got[p.reply().Cookie] = true
		p.want(512)
	}
	if len(got) != 3*workers {
		t.Errorf("%d different replies of %d", len(got), 3*workers)
	}
}

// Payloads larger than the read buffer, split at every awkward place.
func TestPayloadsInPieces(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{})
	p := r.attach()
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i>>8) ^ byte(i)
	}
	var stream []byte
	stream = append(wire.Request{Type: wire.CmdWrite, Cookie: 1, Off: 0, Len: 1 << 20}.Append(stream), data...)
	stream = append(wire.Request{Type: wire.CmdWrite, Cookie: 2, Off: 1 << 40, Len: 1 << 20}.Append(stream), data...) // refused, skipped
	stream = append(wire.Request{Type: wire.CmdWrite, Cookie: 3, Off: 1 << 20, Len: 512}.Append(stream), data[:512]...)
	go func() {
		for i, n := 0, 1; i < len(stream); i, n = i+n, n*3%70001+1 {
			p.Write(stream[i:min(i+n, len(stream))])
		}
	}()
	p.expectInAnyOrder(map[uint64]uint32{1: wire.OK, 2: wire.ENOSPC, 3: wire.OK})
	if !bytes.Equal(dev.Snapshot(0, 1<<20), data) || !bytes.Equal(dev.Snapshot(1<<20, 512), data[:512]) {
		t.Error("the device holds something else")
	}
	p.request(wire.Request{Type: wire.CmdRead, Cookie: 4, Len: 1 << 20})
	p.expect(4, wire.OK)
	if !bytes.Equal(p.want(1<<20), data) {
		t.Error("a large read gives something else")
	}
}

// More requests than may be in flight: the reader waits, and all are answered.
func TestBoundsHoldTheReader(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{MaxRequests: 4})
	p := r.attach()
	dev.Hold()
	var all []byte
	for i := range uint64(40) {
		all = wire.Request{Type: wire.CmdTrim, Cookie: i, Len: 512}.Append(all)
	}
	p.send(all...)
	dev.AwaitHeld(4)
	if n := r.srv.Stats().Requests; n != 4 {
		t.Errorf("%d requests in flight, 4 are allowed", n)
	}
	dev.Release(nil)
	// What comes after the release may overtake what was held.
	want := make(map[uint64]uint32)
	for i := range uint64(40) {
		want[i] = wire.OK
	}
	p.expectInAnyOrder(want)
}

// The memory of all connections together is bounded; who waits for it is served
// when another is done.
func TestMemoryIsShared(t *testing.T) {
	dev := memory.Sized(64 << 20)
	r := newRig(t, dev, Options{MaxBytes: 32 << 20, MaxMemory: 32 << 20})
	a, b := r.attach(), r.attach()
	dev.Hold()
	payload := make([]byte, 32<<20)
	q := wire.Request{Type: wire.CmdWrite, Cookie: 1, Len: 32 << 20}
	go a.Write(append(q.Append(nil), payload...))
	dev.AwaitHeld(1)
	sent := make(chan struct{})
	go func() {
		b.Write(append(q.Append(nil), payload...))
		close(sent)
	}()
	if n := r.srv.Stats().Bytes; n > 32<<20 {
		t.Errorf("%d bytes in flight", n)
	}
	dev.Release(nil)
	a.expect(1, wire.OK)
	<-sent
	b.expect(1, wire.OK)
}

// isFree reports whether a buffer has gone back to its pool.
func isFree(b *block.Buffer) (free bool) {
	defer func() { free = recover() != nil }()
	b.Ref(1)
	b.Unref()
	return
}

// Replies that are ready are not held back by a request behind them that has to
// wait for a disk inside of Submit.
func TestRepliesDoNotWaitForASync(t *testing.T) {
	for name, q := range map[string]wire.Request{
		"flush": {Type: wire.CmdFlush, Cookie: 2},
		"FUA":   {Type: wire.CmdTrim, Flags: wire.CmdFlagFUA, Cookie: 2, Len: 512},
	} {
		t.Run(name, func(t *testing.T) {
			synced := make(chan struct{})
			dev := memory.New(memory.Options{
				Info: block.Info{Size: testSize, SectorSize: 512, WriteCache: true},
				Fault: func(a memory.Access) error {
					if a.FUA || a.Op == block.OpFlush {
						<-synced
					}
					return nil
				},
			})
			p := newRig(t, dev, Options{}).attach()
			p.send(q.Append(wire.Request{Type: wire.CmdRead, Cookie: 1, Len: 512}.Append(nil))...)
			p.expect(1, wire.OK)
			p.want(512)
			close(synced)
			p.expect(2, wire.OK)
		})
	}
}

// A client dies with requests in flight: they are dropped where they had not
// been ordered, their buffers go back, and the server lives.
func TestClientDeath(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{})
	p := r.attach()
	dev.Hold()
	const n = 50
	for i := range uint64(n) {
		p.request(wire.Request{Type: wire.CmdWrite, Cookie: i, Off: i * 512, Len: 512}, bytes.Repeat([]byte{1}, 512)...)
		p.request(wire.Request{Type: wire.CmdRead, Cookie: n + i, Len: 4096})
	}
	dev.AwaitHeld(n)
	// Half a request more, and gone.
	p.send(wire.Request{Type: wire.CmdWrite, Len: 4096}.Append(nil)...)
	p.Close()
	until(t, "the device's session is closed", func() bool { return dev.Sessions() == 0 })
	dev.Release(nil)
	until(t, "the server has nothing in hand", func() bool { return r.srv.Stats() == Stats{} })
	if got := dev.Snapshot(0, n*512); !bytes.Equal(got, make([]byte, n*512)) {
		t.Error("a write of the dead client took effect after its session was closed")
	}
	r.works()
}

// bufferSpy keeps the buffers that it sees.
type bufferSpy struct {
	block.Session
	mu   sync.Mutex
	bufs []*block.Buffer
}

func (s *bufferSpy) Submit(batch []*block.Request) {
	s.mu.Lock()
	for _, r := range batch {
		if r.Buf != nil {
			s.bufs = append(s.bufs, r.Buf)
		}
	}
	s.mu.Unlock()
	s.Session.Submit(batch)
}

type spyDevice struct {
	*memory.Device
	spy *bufferSpy
}

func (d spyDevice) Attach(ctx context.Context, revoked func(error)) (block.Session, error) {
	s, err := d.Device.Attach(ctx, revoked)
	d.spy.Session = s
	return d.spy, err
}

func TestBuffersGoBack(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	spy := new(bufferSpy)
	r.add("spied", "", spyDevice{r.dev, spy})
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	if k := p.last(wire.OptGo, wire.GoData("spied")); k != wire.RepAck {
		t.Fatalf("GO: %#x", k)
	}
	r.dev.Hold()
	for i := range uint64(30) {
		p.request(wire.Request{Type: wire.CmdWrite, Cookie: i, Off: i << 16, Len: 1 << 16}, make([]byte, 1<<16)...)
	}
	r.dev.AwaitHeld(30)
	p.Close()
	r.dev.Release(nil)
	if err := r.exports.Remove(t.Context(), "spied"); err != nil { // waits for the connection's end
		t.Fatal(err)
	}
	for i, b := range spy.bufs {
		if !isFree(b) {
			t.Errorf("the buffer of write %d is still held", i)
		}
	}
	if len(spy.bufs) != 30 {
		t.Errorf("%d buffers seen", len(spy.bufs))
	}
}

// A device that stops serving: what is in flight is answered ESHUTDOWN, then
// the connection ends.
func TestRevoked(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{})
	busy, idle := r.attach(), r.attach()
	dev.Hold()
	for i := range uint64(5) {
		busy.request(wire.Request{Type: wire.CmdTrim, Cookie: i, Len: 512})
	}
	dev.AwaitHeld(5)
	dev.Stop("demoted")
	for i := range uint64(5) {
		busy.expect(i, wire.ESHUTDOWN)
	}
	busy.closed()
	idle.closed()
}

func TestShutdownFinishesRequests(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{})
	p, idle, shaking := r.attach(), r.attach(), r.dial()
	dev.Hold()
	p.request(wire.Request{Type: wire.CmdWrite, Cookie: 1, Len: 512}, bytes.Repeat([]byte{9}, 512)...)
	dev.AwaitHeld(1)
	down := make(chan error, 1)
	go func() { down <- r.srv.Shutdown(t.Context()) }()
	idle.closed()
	shaking.closed()
	select {
	case err := <-down:
		t.Errorf("Shutdown did not wait for the request: %v", err)
	default:
	}
	dev.Release(nil)
	p.expect(1, wire.OK)
	p.closed()
	if err := <-down; err != nil {
		t.Error(err)
	}
	if dev.Snapshot(0, 1)[0] != 9 {
		t.Error("the write that was in flight is lost")
	}
}

func TestShutdownGivesUp(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{})
	p := r.attach()
	dev.Hold()
	p.request(wire.Request{Type: wire.CmdFlush, Cookie: 1})
	dev.AwaitHeld(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	p.closed()
	dev.Release(nil)
}

// NBD_CMD_DISC: outstanding requests are handled, then the connection closes.
func TestDisconnectFinishesRequests(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{})
	p := r.attach()
	dev.Hold()
	p.request(wire.Request{Type: wire.CmdWrite, Cookie: 1, Len: 512}, make([]byte, 512)...)
	p.request(wire.Request{Type: wire.CmdDisc})
	dev.AwaitHeld(1)
	dev.Release(nil)
	p.expect(1, wire.OK)
	p.closed()
}

// A client that sends but never reads is bounded, and does not stop others.
func TestClientThatNeverReads(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{ProgressTimeout: time.Second})
	p := r.attach()
	reads := bytes.Repeat(wire.Request{Type: wire.CmdRead, Len: 4 << 20}.Append(nil), 4096)
	for {
		if _, err := p.Write(reads); err != nil {
			break // hung up on
		}
		if st := r.srv.Stats(); st.Bytes > DefaultMaxBytes {
			t.Fatalf("%d bytes in flight for one client", st.Bytes)
		}
	}
	r.works()
}

// TestReaderDoesNotWaitForReplies: a client that sends a long write before it
// takes the answers to its reads is not left hanging, each side waiting for the
// other to read.
func TestReaderDoesNotWaitForReplies(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.attach()
	p.SetDeadline(time.Now().Add(20 * time.Second))
	const reads, size = 24, 1 << 20
	for i := range reads {
		p.request(wire.Request{Type: wire.CmdRead, Cookie: uint64(i), Len: size})
	}
	payload := make([]byte, 8<<20)
	p.request(wire.Request{Type: wire.CmdWrite, Cookie: reads, Len: uint64(len(payload))}, payload...)
	seen := map[uint64]bool{}
	for range reads + 1 {
		reply := p.reply()
		if reply.Errno != 0 || seen[reply.Cookie] {
			t.Fatalf("reply %+v", reply)
		}
		seen[reply.Cookie] = true
		if reply.Cookie != reads {
			p.want(size)
		}
	}
}

// NBD_CMD_CACHE reads what it is asked for, up to a bound, and answers with no
// data, whatever the form of replies. Its failure is the device's.
func TestCache(t *testing.T) {
	var mu sync.Mutex
	var reads, longest int64
	dev := memory.New(memory.Options{
		Info: block.Info{Size: maxCache + 3<<20, SectorSize: 512},
		Fault: func(a memory.Access) error {
			mu.Lock()
			defer mu.Unlock()
			reads, longest = reads+a.Len, max(longest, a.Len)
			if a.Off+a.Len > maxCache+2<<20 {
				return errors.New("bad sector")
			}
			return nil
		},
	})
	r := newRig(t, dev, Options{})
	for _, p := range []*peer{r.attach(), r.attach(wire.OptStructuredReply)} {
		for i, tc := range []struct{ off, n, read uint64 }{
			{512, 512, 512}, {0, 2<<20 + 512, 2<<20 + 512}, {0, maxCache + 1<<20, maxCache},
		} {
			mu.Lock()
			reads, longest = 0, 0
			mu.Unlock()
			p.request(wire.Request{Type: wire.CmdCache, Cookie: uint64(i), Off: tc.off, Len: tc.n})
			p.expect(uint64(i), wire.OK)
			mu.Lock()
			if reads != int64(tc.read) || longest > cachePiece {
				t.Errorf("%d bytes at %d: %d are read, up to %d at once", tc.n, tc.off, reads, longest)
			}
			mu.Unlock()
		}
	}
	p := r.attach()
	p.request(wire.Request{Type: wire.CmdCache, Cookie: 9, Off: maxCache + 2<<20, Len: 1 << 20})
	p.expect(9, wire.EIO)
	r.works()
}

// A fast zero is one only on a device that says so; else it fails, and changes
// nothing.
func TestFastZero(t *testing.T) {
	for fast, errno := range map[bool]uint32{true: wire.OK, false: wire.ENOTSUP} {
		dev := memory.New(memory.Options{Info: block.Info{Size: testSize, SectorSize: 512, FastZero: fast}})
		p := newRig(t, dev, Options{}).attach()
		p.request(wire.Request{Type: wire.CmdWrite, Cookie: 1, Len: 512}, bytes.Repeat([]byte{7}, 512)...)
		p.expect(1, wire.OK)
		p.request(wire.Request{Type: wire.CmdWriteZeroes, Flags: wire.CmdFlagFastZero, Cookie: 2, Len: 512})
		p.expect(2, errno)
		if got := dev.Snapshot(0, 1)[0]; (got == 0) != fast {
			t.Errorf("fast: %v, and the device holds %d", fast, got)
		}
		p.request(wire.Request{Type: wire.CmdWriteZeroes, Cookie: 3, Len: 512}) // slow is as good
		p.expect(3, wire.OK)
	}
}
