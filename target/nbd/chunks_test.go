package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// A chunk of a structured reply, its payload in parts.
type chunk struct {
	wire.Chunk
	at      uint64 // of what it is about
	data    []byte // content, or an error's message
	zeroes  int    // length of a hole
	errno   uint32
	located bool // an error with an offset
	status  []described
}

// described is a descriptor of a block status.
type described struct {
	n     uint64
	state uint32
}

// chunk reads one, and checks that its lengths add up.
func (p *peer) chunk() chunk {
	p.Helper()
	size := wire.ChunkSize
	if p.extended {
		size = wire.ExtChunkSize
	}
	h, ok := wire.ParseChunk(p.want(size), p.extended)
	if !ok {
		p.Fatal("that is no chunk")
	}
	if p.extended && h.Off != p.offs[h.Cookie] {
		p.Fatalf("a reply to a request at %d is of offset %d", p.offs[h.Cookie], h.Off)
	}
	return p.body(h)
}

func (p *peer) body(h wire.Chunk) chunk {
	p.Helper()
	c, b := chunk{Chunk: h}, p.want(int(h.Len))
	be := binary.BigEndian
	switch {
	case h.Type == wire.ReplyNone && len(b) == 0 && h.Flags == wire.ReplyFlagDone:
	case h.Type == wire.ReplyOffsetData && len(b) > 8:
		c.at, c.data = be.Uint64(b), b[8:]
	case h.Type == wire.ReplyOffsetHole && len(b) == 12 && be.Uint32(b[8:]) > 0:
		c.at, c.zeroes = be.Uint64(b), int(be.Uint32(b[8:]))
	case h.Type == wire.ReplyError && len(b) >= 6 && be.Uint32(b) != 0 && len(b) == 6+int(be.Uint16(b[4:])):
		c.errno, c.data = be.Uint32(b), b[6:]
	case h.Type == wire.ReplyErrorOffset && len(b) >= 14 && be.Uint32(b) != 0 && len(b) == 14+int(be.Uint16(b[4:])):
		c.errno, c.data, c.at, c.located = be.Uint32(b), b[6:len(b)-8], be.Uint64(b[len(b)-8:]), true
	case p.extended && h.Type == wire.ReplyBlockStatusExt && len(b) >= 24 && be.Uint32(b) == allocationID && len(b) == 8+16*int(be.Uint32(b[4:])):
		for b = b[8:]; len(b) > 0; b = b[16:] {
			c.status = append(c.status, described{be.Uint64(b), uint32(be.Uint64(b[8:]))})
		}
	case !p.extended && h.Type == wire.ReplyBlockStatus && len(b) >= 12 && len(b)%8 == 4 && be.Uint32(b) == allocationID:
		for b = b[4:]; len(b) > 0; b = b[8:] {
			c.status = append(c.status, described{uint64(be.Uint32(b)), be.Uint32(b[4:])})
		}
	default:
		p.Fatalf("chunk %+v with % x", h, b[:min(len(b), 32)])
	}
	return c
}

// chunks reads those of one reply.
func (p *peer) chunks(cookie uint64) (all []chunk) {
	p.Helper()
	for {
		c := p.chunk()
		if c.Cookie != cookie {
			p.Fatalf("a chunk of %d, want %d", c.Cookie, cookie)
		}
		all = append(all, c)
		if c.Flags == wire.ReplyFlagDone {
			return all
		}
	}
}

// refused reads a reply that is one error, which has a text.
func (p *peer) refused(cookie uint64, errno uint32) chunk {
	p.Helper()
	all := p.chunks(cookie)
	if len(all) != 1 || all[0].errno != errno || len(all[0].data) == 0 {
		p.Fatalf("reply %+v, want %s", all, wire.ErrnoName(errno))
	}
	return all[0]
}

// assemble lays content over n bytes from off. Every byte must come, once.
func assemble(t *testing.T, all []chunk, off, n int) []byte {
	t.Helper()
	b := bytes.Repeat([]byte{0xee}, n)
	seen := make([]bool, n)
	for _, c := range all {
		if c.errno != 0 {
			t.Fatalf("error %s: %s", wire.ErrnoName(c.errno), c.data)
		}
		data := c.data
		if c.zeroes > 0 {
			data = make([]byte, c.zeroes)
		}
		for i, x := range data {
			if at := int(c.at) - off + i; at < 0 || at >= n || seen[at] {
				t.Fatalf("byte %d comes unasked or twice", int(c.at)+i)
			}
			b[int(c.at)-off+i], seen[int(c.at)-off+i] = x, true
		}
	}
	if i := slices.Index(seen, false); i >= 0 {
		t.Fatalf("byte %d does not come", off+i)
	}
	return b
}

// cold makes a device whose reads all wait for a disk.
func cold(fault func(memory.Access) error) *memory.Device {
	return memory.New(memory.Options{Info: block.Info{Size: testSize, SectorSize: 512}, ColdReads: true, Fault: fault})
}

func TestStructuredReads(t *testing.T) {
	dev := cold(nil)
	p := newRig(t, dev, Options{}).attach(wire.OptStructuredReply)
	data := bytes.Repeat([]byte("structured chunk"), 256<<10/16)
	for i, off := range []uint64{0, 1 << 20, 1<<20 + 256<<10} {
		p.request(wire.Request{Type: wire.CmdWrite, Cookie: uint64(i), Off: off, Len: uint64(len(data))}, data...)
		p.expect(uint64(i), wire.OK) // nothing goes with it: a simple reply
	}
	p.request(wire.Request{Type: wire.CmdTrim, Cookie: 9, Off: 64 << 10, Len: 2048}) // part of a unit
	p.expect(9, wire.OK)
	const d, h = wire.ReplyOffsetData, wire.ReplyOffsetHole
	for i, tc := range []struct {
		off, n int
		flags  uint16
		kinds  []uint16
	}{
		{0, 4096, 0, []uint16{d}},
		{0, 64 << 10, 0, []uint16{d}},
		{0, 2 << 20, 0, []uint16{d, h, d, h}},
		{128 << 10, 1<<20 + 512, 0, []uint16{d, h, d}},
		{512 << 10, 256 << 10, 0, []uint16{h}},
		{512 << 10, 32 << 10, 0, []uint16{d}},           // too short to be looked at
		{256<<10 - 512, 64 << 10, 0, []uint16{d, h, d}}, // the last bytes are no hole worth a chunk
		{1<<20 - 512, 128 << 10, 0, []uint16{d}},        // the hole is too short
		{0, 2 << 20, wire.CmdFlagDF, []uint16{d}},
		{512 << 10, 256 << 10, wire.CmdFlagDF | wire.CmdFlagFUA, []uint16{d}},
		{testSize - 1<<20, 1 << 20, 0, []uint16{h}},
	} {
		cookie := uint64(100 + i)
		p.request(wire.Request{Type: wire.CmdRead, Flags: tc.flags, Cookie: cookie, Off: uint64(tc.off), Len: uint64(tc.n)})
		all := p.chunks(cookie)
		var kinds []uint16
		for _, c := range all {
			kinds = append(kinds, c.Type)
		}
		if !slices.Equal(kinds, tc.kinds) {
			t.Errorf("%d bytes at %d with flags %#x: chunks %v, want %v", tc.n, tc.off, tc.flags, kinds, tc.kinds)
		}
		if !bytes.Equal(assemble(t, all, tc.off, tc.n), dev.Snapshot(int64(tc.off), int64(tc.n))) {
			t.Errorf("%d bytes at %d are something else", tc.n, tc.off)
		}
	}
}

// A reply has a bounded number of chunks, however many holes there are.
func TestManyHoles(t *testing.T) {
	dev := cold(nil)
	p := newRig(t, dev, Options{}).attach(wire.OptStructuredReply)
	const unit, n = 8192, 4 << 20
	for i := range uint64(n / unit) {
		p.request(wire.Request{Type: wire.CmdWrite, Cookie: i, Off: i * unit, Len: unit / 2}, bytes.Repeat([]byte{byte(i + 1)}, unit/2)...)
		p.expect(i, wire.OK)
	}
	for _, off := range []int{0, unit / 2} {
		p.request(wire.Request{Type: wire.CmdRead, Cookie: 1, Off: uint64(off), Len: n})
		all := p.chunks(1)
		if len(all) != maxRuns && len(all) != maxRuns-1 {
			t.Errorf("%d chunks, the bound is %d", len(all), maxRuns)
		}
		if !bytes.Equal(assemble(t, all, off, n), dev.Snapshot(int64(off), n)) {
			t.Error("that is not what the device holds")
		}
	}
}

func TestStructuredErrors(t *testing.T) {
	bad := errors.New("bad sector" + strings.Repeat("ä", maxMessage))
	dev := cold(func(a memory.Access) error {
		switch {
		case a.Read && a.Off <= 1<<20 && a.Off+a.Len > 1<<20:
			return bad
		case a.Op == block.OpTrim:
			return block.ErrNoSpace
		}
		return nil
	})
	p := newRig(t, dev, Options{}).attach(wire.OptStructuredReply)
	for _, off := range []uint64{0, 1 << 20} {
		p.request(wire.Request{Type: wire.CmdWrite, Cookie: 1, Off: off, Len: 4096}, make([]byte, 4096)...)
		p.expect(1, wire.OK)
	}

	// What could be read before the bad sector is there.
	p.request(wire.Request{Type: wire.CmdRead, Cookie: 2, Len: 2 << 20})
	all := p.chunks(2)
	if len(all) != 3 || len(all[0].data) != 4096 || all[1].zeroes != 1<<20-4096 {
		t.Fatalf("chunks %+v", all)
	}
	last := all[2]
	if last.errno != wire.EIO || !last.located || last.at != 1<<20 {
		t.Errorf("error %s at %d", wire.ErrnoName(last.errno), last.at)
	}
	if len(last.data) > maxMessage || len(last.data) < maxMessage-1 || !utf8.Valid(last.data) || !bytes.HasPrefix(last.data, []byte("bad sector")) {
		t.Errorf("a text of %d bytes: %s", len(last.data), last.data)
	}
	p.request(wire.Request{Type: wire.CmdRead, Flags: wire.CmdFlagDF, Cookie: 3, Len: 2 << 20})
	if c := p.refused(3, wire.EIO); !c.located || c.at != 0 {
		t.Errorf("with DF: %+v", c)
	}

	for i, tc := range []struct {
		req   wire.Request
		errno uint32
	}{
		{wire.Request{Type: wire.CmdRead, Off: testSize, Len: 512}, wire.EINVAL},
		{wire.Request{Type: wire.CmdRead, Len: 512, Flags: wire.CmdFlagNoHole}, wire.EINVAL},
		{wire.Request{Type: wire.CmdWrite, Len: 512, Flags: wire.CmdFlagDF}, wire.EINVAL},
		{wire.Request{Type: wire.CmdWrite, Off: testSize, Len: 512}, wire.ENOSPC},
		{wire.Request{Type: wire.CmdTrim, Len: 512}, wire.ENOSPC},
		{wire.Request{Type: 4711}, wire.EINVAL},
	} {
		tc.req.Cookie = uint64(100 + i)
		var payload []byte
		if tc.req.Type == wire.CmdWrite {
			payload = make([]byte, tc.req.Len)
		}
		p.request(tc.req, payload...)
		if c := p.refused(tc.req.Cookie, tc.errno); c.located {
			t.Errorf("%+v has an offset", tc.req)
		}
	}
}

// Many refusals at once need more room than the headers of good replies.
func TestManyRefusals(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.attach(wire.OptStructuredReply)
	const n = 1000
	var all []byte
	for i := range uint64(n) {
		q := wire.Request{Type: wire.CmdRead, Cookie: i, Off: 1 << 60, Len: 512}
		if i%3 == 0 {
			q.Off = 512
		}
		all = q.Append(all)
	}
	go p.Write(all)
	for i := range uint64(n) {
		if i%3 == 0 {
			if c := p.chunk(); c.Type != wire.ReplyOffsetData || len(c.data) != 512 || c.Cookie != i {
				t.Fatalf("reply %d: %+v", i, c.Chunk)
			}
			continue
		}
		if c := p.refused(i, wire.EINVAL); !strings.Contains(string(c.data), "1152921504606846976") {
			t.Fatalf("refusal %d: %s", i, c.data)
		}
	}
}

// A read that is too long to come in one piece: what the specification wants of
// a server that offers DF.
func TestReadTooLong(t *testing.T) {
	info := block.Info{Size: 64 << 20, SectorSize: 512}
	r := newRig(t, memory.New(memory.Options{Info: info}), Options{})
	q := wire.Request{Type: wire.CmdRead, Cookie: 1, Len: wire.MaxPayload + 512}
	p := r.attach()
	p.request(q)
	p.expect(1, wire.EINVAL)
	p = r.attach(wire.OptStructuredReply)
	for _, q.Flags = range []uint16{0, wire.CmdFlagDF} {
		p.request(q)
		p.refused(1, wire.EOVERFLOW)
	}
	q.Len = wire.MaxPayload
	p.request(q)
	if all := p.chunks(1); len(all) != 1 || len(all[0].data) != wire.MaxPayload {
		t.Errorf("the longest read comes in %d chunks", len(all))
	}
}
