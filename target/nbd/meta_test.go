package nbd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// Answers: nothing, base:allocation as it is listed, and under its id.
var (
	none     = []string{"ack"}
	listed   = []string{"\x00\x00\x00\x00base:allocation", "ack"}
	selected = []string{"\x00\x00\x00\x01base:allocation", "ack"}
)

// meta asks and gives the answers, errors by number.
func (p *peer) meta(opt uint32, data []byte) (answers []string) {
	p.Helper()
	kinds, datas := p.ask(opt, data)
	for i, k := range kinds {
		switch {
		case k == wire.RepMeta:
			answers = append(answers, string(datas[i]))
		case k == wire.RepAck && len(datas[i]) == 0:
			answers = append(answers, "ack")
		default:
			answers = append(answers, fmt.Sprintf("%#x", k))
		}
	}
	return answers
}

func TestMetaContexts(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	r.exports.SetDefault("disk")
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	refusal := func(kind uint32) []string { return []string{fmt.Sprintf("%#x", kind)} }
	both := []uint32{wire.OptListMetaContext, wire.OptSetMetaContext}
	for _, opt := range both {
		if got := p.meta(opt, wire.MetaData("disk", "base:allocation")); !slices.Equal(got, refusal(wire.RepErrInvalid)) {
			t.Errorf("option %d before structured replies: %q", opt, got)
		}
	}
	if k := p.last(wire.OptStructuredReply, nil); k != wire.RepAck {
		t.Fatalf("STRUCTURED_REPLY: %#x", k)
	}
	for _, tc := range []struct {
		queries     []string
		list, chose []string
	}{
		{nil, listed, none},
		{[]string{"base:"}, listed, none},
		{[]string{"base:allocation"}, listed, selected},
		{[]string{"x-y:z", "base:allocation", "base:allocation", "base:"}, listed, selected},
		{[]string{"qemu:dirty-bitmap:b", "base:alloc", "base:allocation2", "BASE:allocation"}, none, none},
		{[]string{"base"}, refusal(wire.RepErrInvalid), refusal(wire.RepErrInvalid)},
		{[]string{"base:allocation", ""}, refusal(wire.RepErrInvalid), refusal(wire.RepErrInvalid)},
		{[]string{":allocation"}, refusal(wire.RepErrInvalid), refusal(wire.RepErrInvalid)},
		{[]string{"x:\xff"}, refusal(wire.RepErrInvalid), refusal(wire.RepErrInvalid)},
		{[]string{"x:\x00"}, refusal(wire.RepErrInvalid), refusal(wire.RepErrInvalid)},
		{[]string{"x:" + strings.Repeat("y", wire.MaxString-2)}, none, none},
		{[]string{"x:" + strings.Repeat("y", wire.MaxString-1)}, refusal(wire.RepErrTooBig), refusal(wire.RepErrTooBig)},
		{slices.Repeat([]string{"x:y"}, maxQueries), none, none},
		{slices.Repeat([]string{"x:y"}, maxQueries+1), refusal(wire.RepErrTooBig), refusal(wire.RepErrTooBig)},
	} {
		for i, want := range [][]string{tc.list, tc.chose} {
			for _, name := range []string{"disk", ""} {
				if got := p.meta(both[i], wire.MetaData(name, tc.queries...)); !slices.Equal(got, want) {
					t.Errorf("option %d of %q with %.40q: %q, want %q", both[i], name, tc.queries, got, want)
				}
			}
		}
	}
	whole := wire.MetaData("disk", "base:allocation")
	for _, opt := range both {
		for n := range len(whole) {
			if got := p.meta(opt, whole[:n]); !slices.Equal(got, refusal(wire.RepErrInvalid)) {
				t.Errorf("option %d of %d bytes: %q", opt, n, got)
			}
		}
		if got := p.meta(opt, append(whole[:len(whole):len(whole)], 0)); !slices.Equal(got, refusal(wire.RepErrInvalid)) {
			t.Errorf("option %d with a tail: %q", opt, got)
		}
		if got := p.meta(opt, wire.MetaData("nosuch", "base:allocation")); !slices.Equal(got, refusal(wire.RepErrUnknown)) {
			t.Errorf("option %d of an unknown export: %q", opt, got)
		}
		if got := p.meta(opt, make([]byte, maxOptionData+1)); !slices.Equal(got, refusal(wire.RepErrTooBig)) {
			t.Errorf("option %d, too long: %q", opt, got)
		}
	}
}

// What was selected counts only if it was selected last, without an error, and
// for the export that is served.
func TestSelection(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	r.add("other", "", memory.Sized(1<<20))
	r.exports.SetDefault("disk")
	set := func(name string, queries ...string) []byte {
		return wire.Option(nil, wire.OptSetMetaContext, wire.MetaData(name, queries...))
	}
	list := wire.Option(nil, wire.OptListMetaContext, wire.MetaData("disk"))
	goFor := func(name string) []byte { return wire.Option(nil, wire.OptGo, wire.GoData(name)) }
	for _, tc := range []struct {
		name    string
		options []byte
		serves  bool
	}{
		{"never", goFor("disk"), false},
		{"selected", slices.Concat(set("disk", "base:allocation"), goFor("disk")), true},
		{"as the default", slices.Concat(set("", "base:allocation"), goFor("")), true},
		{"listed in between", slices.Concat(set("disk", "base:allocation"), list, goFor("disk")), true},
		{"after a failed GO", slices.Concat(set("disk", "base:allocation"), goFor("nosuch"), goFor("disk")), true},
		{"of the other export", slices.Concat(set("other", "base:allocation"), goFor("other")), true},
		{"only listed", slices.Concat(list, goFor("disk")), false},
		{"of another export", slices.Concat(set("disk", "base:allocation"), goFor("other")), false},
		{"replaced", slices.Concat(set("disk", "base:allocation"), set("disk", "x:y"), goFor("disk")), false},
		{"replaced by nothing", slices.Concat(set("disk", "base:allocation"), set("disk"), goFor("disk")), false},
		{"replaced by an error", slices.Concat(set("disk", "base:allocation"), set("nosuch", "base:allocation"), goFor("disk")), false},
		{"replaced by nonsense", slices.Concat(set("disk", "base:allocation"), wire.Option(nil, wire.OptSetMetaContext, []byte{1}), goFor("disk")), false},
		{"by the old way in", slices.Concat(set("disk", "base:allocation"), wire.Option(nil, wire.OptExportName, []byte("disk"))), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := r.dial()
			p.T = t
			q := wire.Request{Type: wire.CmdBlockStatus, Cookie: 42, Len: 1 << 20}
			p.send(slices.Concat([]byte{0, 0, 0, 3}, wire.Option(nil, wire.OptStructuredReply, nil), tc.options, q.Append(nil))...)
			p.skipTo(wire.ChunkMagic)
			h, _ := wire.ParseChunk(append([]byte{0x66, 0x8e, 0x33, 0xef}, p.want(wire.ChunkSize-4)...), false)
			c := p.body(h)
			if c.Cookie != 42 || (c.errno == 0) != tc.serves || !tc.serves && c.errno != wire.EINVAL {
				t.Errorf("block status: %+v", c)
			}
		})
	}
}

// skipTo reads up to a magic number.
func (p *peer) skipTo(magic uint32) {
	p.Helper()
	for seen := uint32(0); seen != magic; {
		seen = seen<<8 | uint32(p.want(1)[0])
	}
}

// attachStatus is attach with base:allocation.
func (r *rig) attachStatus(agree uint32) *peer {
	r.Helper()
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle | wire.FlagNoZeroes)
	if k := p.last(agree, nil); k != wire.RepAck {
		r.Fatalf("option %d: %#x", agree, k)
	}
	if agree == wire.OptExtendedHeaders {
		p.extended, p.offs = true, make(map[uint64]uint64)
	}
	if got := p.meta(wire.OptSetMetaContext, wire.MetaData("disk", "base:allocation")); !slices.Equal(got, selected) {
		r.Fatalf("SET_META_CONTEXT: %q", got)
	}
	if k := p.last(wire.OptGo, wire.GoData("disk")); k != wire.RepAck {
		r.Fatalf("GO: %#x", k)
	}
	return p
}

func TestBlockStatus(t *testing.T) {
	const hole = wire.StateHole | wire.StateZero
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.attachStatus(wire.OptStructuredReply)
	p.request(wire.Request{Type: wire.CmdWrite, Cookie: 1, Off: 1 << 20, Len: 1 << 20}, make([]byte, 1<<20)...)
	p.expect(1, wire.OK)
	p.request(wire.Request{Type: wire.CmdWriteZeroes, Flags: wire.CmdFlagNoHole, Cookie: 1, Off: 1<<20 + 65536, Len: 65536})
	p.expect(1, wire.OK)
	for i, tc := range []struct {
		off, n uint64
		flags  uint16
		want   []described
	}{
		{0, testSize, 0, []described{{1 << 20, hole}, {65536, 0}, {65536, wire.StateZero}, {1<<20 - 131072, 0}, {testSize - 2<<20, hole}}},
		{0, testSize, wire.CmdFlagReqOne, []described{{1 << 20, hole}}},
		{512, 1024, 0, []described{{1024, hole}}},
		{512, 1024, wire.CmdFlagReqOne | wire.CmdFlagFUA, []described{{1024, hole}}},
		{1<<20 - 512, 1024, 0, []described{{512, hole}, {512, 0}}},
		{1<<20 - 512, 1024, wire.CmdFlagReqOne, []described{{512, hole}}},
		{testSize - 512, 512, 0, []described{{512, hole}}},
	} {
		cookie := uint64(10 + i)
		p.request(wire.Request{Type: wire.CmdBlockStatus, Flags: tc.flags, Cookie: cookie, Off: tc.off, Len: tc.n})
		if all := p.chunks(cookie); len(all) != 1 || !slices.Equal(all[0].status, tc.want) {
			t.Errorf("%d bytes at %d with flags %#x: %+v, want %+v", tc.n, tc.off, tc.flags, all, tc.want)
		}
	}
	for _, q := range []wire.Request{
		{Off: testSize, Len: 512}, {Off: testSize - 512, Len: 1024}, {Off: 1 << 63, Len: 512}, {Len: 0}, {Len: 513}, {Off: 1, Len: 512},
		{Len: 512, Flags: wire.CmdFlagDF}, {Len: 512, Flags: wire.CmdFlagPayloadLen},
	} {
		q.Type, q.Cookie = wire.CmdBlockStatus, 99
		p.request(q)
		if c := p.refused(99, wire.EINVAL); c.located {
			t.Errorf("%+v has an offset", q)
		}
	}
}

// A reply has a bounded number of descriptors; the client asks on.
func TestManyDescriptors(t *testing.T) {
	const unit, n = 4096, 2*maxDescriptors + 100
	dev := memory.New(memory.Options{Info: block.Info{Size: n * unit, SectorSize: 512}})
	r := newRig(t, dev, Options{})
	p := r.attachStatus(wire.OptStructuredReply)
	var all []byte
	for i := range uint64(n / 2) {
		q := wire.Request{Type: wire.CmdWrite, Cookie: i, Off: 2 * i * unit, Len: 512}
		all = append(q.Append(all), make([]byte, 512)...)
	}
	go p.Write(all)
	for i := range uint64(n / 2) {
		p.expect(i, wire.OK)
	}
	for off, replies := uint64(0), 0; off < n*unit; replies++ {
		p.request(wire.Request{Type: wire.CmdBlockStatus, Cookie: 1, Off: off, Len: n*unit - off})
		got := p.chunks(1)[0].status
		if want := min(maxDescriptors, int(n*unit-off)/unit); len(got) != want {
			t.Fatalf("reply %d has %d descriptors, want %d", replies, len(got), want)
		}
		for _, d := range got {
			data := off/unit%2 == 0
			if d.n != unit || (d.state == 0) != data {
				t.Fatalf("at %d: %+v", off, d)
			}
			off += d.n
		}
	}
}

// A device that does not know is all data.
func TestBlockStatusOfTheUnknown(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	spy := new(bufferSpy) // hides what the session knows
	r.add("plain", "", spyDevice{r.dev, spy})
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	p.last(wire.OptStructuredReply, nil)
	p.meta(wire.OptSetMetaContext, wire.MetaData("plain", "base:allocation"))
	if k := p.last(wire.OptGo, wire.GoData("plain")); k != wire.RepAck {
		t.Fatalf("GO: %#x", k)
	}
	p.request(wire.Request{Type: wire.CmdBlockStatus, Cookie: 1, Off: 4096, Len: 1 << 20})
	if all := p.chunks(1); len(all) != 1 || !slices.Equal(all[0].status, []described{{1 << 20, 0}}) {
		t.Errorf("%+v", all)
	}
}
