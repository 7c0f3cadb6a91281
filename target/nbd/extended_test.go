package nbd

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// done reads a reply that says that all went well, and nothing else.
func (p *peer) done(cookie uint64) {
	p.Helper()
	if all := p.chunks(cookie); len(all) != 1 || all[0].Type != wire.ReplyNone {
		p.Fatalf("reply %+v, want NONE", all)
	}
}

func TestExtendedHeaders(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	if k := p.last(wire.OptExtendedHeaders, nil); k != wire.RepAck {
		t.Fatalf("EXTENDED_HEADERS: %#x", k)
	}
	if k := p.last(wire.OptStructuredReply, nil); k != wire.RepErrExtHeader {
		t.Errorf("a step back to STRUCTURED_REPLY: %#x", k)
	}
	if got := p.meta(wire.OptSetMetaContext, wire.MetaData("disk", "base:allocation")); !slices.Equal(got, selected) {
		t.Errorf("SET_META_CONTEXT: %q", got)
	}
	const want = rwFlags | wire.FlagSendDF | wire.FlagStatusPayload
	if f := p.exportFlags(); f != want {
		t.Errorf("flags %#x, want %#x", f, want)
	}
	p.send(wire.Option(nil, wire.OptExportName, []byte("disk"))...)
	p.closed()

	// What was agreed before does not matter.
	p = r.attach(wire.OptStructuredReply, wire.OptExtendedHeaders)
	p.request(wire.Request{Type: wire.CmdFlush, Cookie: 1})
	p.done(1)
}

// Every command, in the long form.
func TestExtendedRequests(t *testing.T) {
	dev := memory.New(memory.Options{Info: block.Info{Size: testSize, SectorSize: 512, FastZero: true}, ColdReads: true})
	p := newRig(t, dev, Options{}).attachStatus(wire.OptExtendedHeaders)
	data := bytes.Repeat([]byte("extended"), 64<<10/8)
	p.request(wire.Request{Type: wire.CmdWrite, Flags: wire.CmdFlagFUA, Cookie: 1, Off: 1 << 20, Len: 64 << 10}, data...)
	p.done(1)
	p.request(wire.Request{Type: wire.CmdWriteZeroes, Flags: wire.CmdFlagFastZero | wire.CmdFlagNoHole, Cookie: 2, Off: 1<<20 + 4096, Len: 4096})
	p.done(2)
	p.request(wire.Request{Type: wire.CmdTrim, Cookie: 3, Off: 1<<20 + 16384, Len: 4096})
	p.done(3)
	p.request(wire.Request{Type: wire.CmdFlush, Cookie: 4})
	p.done(4)
	p.request(wire.Request{Type: wire.CmdCache, Cookie: 5, Len: testSize})
	p.done(5)
	p.request(wire.Request{Type: wire.CmdRead, Cookie: 6, Off: 1<<20 - 4096, Len: 1 << 20})
	all := p.chunks(6)
	if got := assemble(t, all, 1<<20-4096, 1<<20); !bytes.Equal(got, dev.Snapshot(1<<20-4096, 1<<20)) || len(all) != 7 {
		t.Errorf("a read gives something else, in %d chunks", len(all))
	}
	const hole = wire.StateHole | wire.StateZero
	want := []described{{4096, 0}, {4096, wire.StateZero}, {8192, 0}, {4096, hole}, {64<<10 - 20480, 0}, {testSize - 1<<20 - 64<<10, hole}}
	p.request(wire.Request{Type: wire.CmdBlockStatus, Cookie: 7, Off: 1 << 20, Len: testSize - 1<<20})
	if all := p.chunks(7); len(all) != 1 || !slices.Equal(all[0].status, want) {
		t.Errorf("block status %+v, want %+v", all, want)
	}

	// The payload form names the context.
	filter := func(n uint64, ids ...uint32) []byte {
		b := binary.BigEndian.AppendUint64(nil, n)
		for _, id := range ids {
			b = binary.BigEndian.AppendUint32(b, id)
		}
		return b
	}
	status := wire.Request{Type: wire.CmdBlockStatus, Flags: wire.CmdFlagPayloadLen, Cookie: 8, Off: 1 << 20, Len: 12}
	p.request(status, filter(testSize-1<<20, allocationID)...)
	if all := p.chunks(8); len(all) != 1 || !slices.Equal(all[0].status, want) {
		t.Errorf("block status of one context %+v, want %+v", all, want)
	}
	status.Flags |= wire.CmdFlagReqOne
	p.request(status, filter(512, allocationID)...)
	if all := p.chunks(8); len(all) != 1 || !slices.Equal(all[0].status, []described{{512, 0}}) {
		t.Errorf("one descriptor of one context: %+v", all)
	}
	for _, payload := range [][]byte{
		filter(512), filter(512, 2), filter(512, 0), filter(512, allocationID, allocationID), filter(512, allocationID, 2),
		filter(testSize, allocationID), filter(math.MaxUint64, allocationID), filter(0, allocationID), {1}, make([]byte, 5000),
	} {
		status.Len = uint64(len(payload))
		p.request(status, payload...)
		p.refused(8, wire.EINVAL)
	}

	// Payloads where none belong are skipped, and missed where one does.
	for _, q := range []wire.Request{
		{Type: wire.CmdRead, Len: 512}, {Type: wire.CmdTrim, Len: 512}, {Type: wire.CmdFlush, Len: 512},
		{Type: wire.CmdWriteZeroes, Len: 1 << 20}, {Type: wire.CmdCache, Len: 512}, {Type: 4711, Len: 5},
		{Type: wire.CmdWrite, Len: 513},
	} {
		q.Flags |= wire.CmdFlagPayloadLen
		q.Cookie = 9
		p.request(q, make([]byte, q.Len)...)
		p.refused(9, wire.EINVAL)
	}
	p.offs[10] = 0
	p.send(wire.Request{Type: wire.CmdWrite, Cookie: 10, Len: 512}.AppendExt(nil)...)
	p.refused(10, wire.EINVAL)
	p.request(wire.Request{Type: wire.CmdFlush, Cookie: 11})
	p.done(11)
}

// Lengths of 64 bits: judged before anything is done, or done.
func TestLongEffects(t *testing.T) {
	const size = 1 << 62
	r := rules{size: size, sector: 512, fastZero: true, terms: terms{structured: true, extended: true, status: true}}
	for _, tc := range []struct {
		req    wire.Request
		errno  uint32
		hangUp bool
	}{
		{req: wire.Request{Type: wire.CmdTrim, Len: maxEffect}},
		{req: wire.Request{Type: wire.CmdWriteZeroes, Len: maxEffect, Flags: wire.CmdFlagFastZero}},
		{req: wire.Request{Type: wire.CmdBlockStatus, Len: size}},
		{req: wire.Request{Type: wire.CmdCache, Len: size}},
		{req: wire.Request{Type: wire.CmdTrim, Len: maxEffect + 512}, errno: wire.EOVERFLOW},
		{req: wire.Request{Type: wire.CmdWriteZeroes, Len: size}, errno: wire.EOVERFLOW},
		{req: wire.Request{Type: wire.CmdWriteZeroes, Len: size, Flags: wire.CmdFlagFastZero}, errno: wire.ENOTSUP},
		{req: wire.Request{Type: wire.CmdRead, Len: 1 << 32}, errno: wire.EOVERFLOW},
		{req: wire.Request{Type: wire.CmdTrim, Off: 512, Len: math.MaxUint64 - 511}, errno: wire.EINVAL},
		{req: wire.Request{Type: wire.CmdWriteZeroes, Off: 512, Len: math.MaxUint64 - 511}, errno: wire.ENOSPC},
		{req: wire.Request{Type: wire.CmdWrite, Len: math.MaxUint64, Flags: wire.CmdFlagPayloadLen}, errno: wire.EINVAL, hangUp: true},
		{req: wire.Request{Type: wire.CmdRead, Len: wire.MaxPayload + 1, Flags: wire.CmdFlagPayloadLen}, errno: wire.EINVAL, hangUp: true},
		{req: wire.Request{Type: wire.CmdWrite, Len: math.MaxUint64}, errno: wire.EINVAL},
	} {
		no := r.judge(tc.req)
		switch {
		case no == nil && tc.errno != 0:
			t.Errorf("%+v: accepted", tc.req)
		case no != nil && (no.errno != tc.errno || no.hangUp != tc.hangUp):
			t.Errorf("%+v: %+v, want %s", tc.req, *no, wire.ErrnoName(tc.errno))
		}
	}
	compact := rules{size: size, sector: 512, terms: terms{structured: true, status: true}}
	for _, cmd := range []uint16{wire.CmdWrite, wire.CmdBlockStatus, wire.CmdTrim} {
		if no := compact.judge(wire.Request{Type: cmd, Len: 512, Flags: wire.CmdFlagPayloadLen}); no == nil || no.errno != wire.EINVAL {
			t.Errorf("%s with PAYLOAD_LEN in the compact form: %+v", wire.CmdName(cmd), no)
		}
	}

	dev := memory.Sized(testSize)
	rig := newRig(t, dev, Options{})
	p := rig.attach(wire.OptExtendedHeaders)
	p.send(wire.Request{Type: wire.CmdFlush}.Append(nil)...) // the compact form
	p.send(make([]byte, 4)...)
	p.closed()
	p = rig.attach(wire.OptExtendedHeaders)
	p.send(wire.Request{Type: wire.CmdWrite, Flags: wire.CmdFlagPayloadLen, Len: 1 << 40}.AppendExt(nil)...)
	p.closed()
	rig.works()
}
