package nbd

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

const rwFlags = wire.FlagHasFlags | wire.FlagSendFlush | wire.FlagSendFUA | wire.FlagSendTrim |
	wire.FlagSendWriteZeroes | wire.FlagCanMultiConn | wire.FlagSendCache | wire.FlagSendFastZero

func TestExportName(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	for flags, size := range map[uint32]int{
		0:                      10 + wire.ExportNamePad,
		wire.FlagFixedNewstyle: 10 + wire.ExportNamePad,
		wire.FlagFixedNewstyle | wire.FlagNoZeroes: 10,
	} {
		p := r.dial()
		p.flags(flags)
		p.send(wire.Option(nil, wire.OptExportName, []byte("disk"))...)
		b := p.want(size)
		if binary.BigEndian.Uint64(b) != testSize || binary.BigEndian.Uint16(b[8:]) != rwFlags {
			t.Errorf("client flags %#x: answered % x", flags, b[:10])
		}
		p.request(wire.Request{Type: wire.CmdFlush, Cookie: 7})
		p.expect(7, wire.OK)
	}
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	p.send(wire.Option(nil, wire.OptExportName, []byte("nosuch"))...)
	p.closed()
}

func TestListGivesOneReplyPerExport(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	r.add("cd", "", memory.Sized(1<<20))
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	kinds, datas := p.ask(wire.OptList, nil)
	if !slices.Equal(kinds, []uint32{wire.RepServer, wire.RepServer, wire.RepAck}) {
		t.Fatalf("answers %v", kinds)
	}
	if string(datas[0]) != "\x00\x00\x00\x02cd" || string(datas[1]) != "\x00\x00\x00\x04diska disk for tests" {
		t.Errorf("answers %q", datas)
	}
	if k := p.last(wire.OptList, []byte("x")); k != wire.RepErrInvalid {
		t.Errorf("LIST with data: %#x", k)
	}
}

func TestListLeavesOutWhatIsNotListedNow(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	err := r.exports.Add(target.Export{Name: "secondary", Device: memory.Sized(1 << 20), Listed: func() bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	if kinds, _ := p.ask(wire.OptList, nil); !slices.Equal(kinds, []uint32{wire.RepServer, wire.RepAck}) {
		t.Fatalf("answers %v", kinds)
	}
}

func TestInfoAndGo(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	r.exports.SetDefault("disk")
	want := map[uint16]string{
		wire.InfoExport:      "\x00\x00\x00\x00\x00\x80\x00\x00\x0d\x6d",
		wire.InfoBlockSize:   "\x00\x00\x02\x00\x00\x00\x10\x00\x02\x00\x00\x00",
		wire.InfoName:        "disk",
		wire.InfoDescription: "a disk for tests",
	}
	for _, opt := range []uint32{wire.OptInfo, wire.OptGo} {
		for _, name := range []string{"disk", ""} {
			p := r.dial()
			p.flags(wire.FlagFixedNewstyle)
			kinds, datas := p.ask(opt, wire.GoData(name, wire.InfoName, wire.InfoDescription, wire.InfoBlockSize, 999))
			got := make(map[uint16]string)
			for i, d := range datas[:len(datas)-1] {
				if kinds[i] != wire.RepInfo {
					t.Fatalf("answer %#x", kinds[i])
				}
				got[binary.BigEndian.Uint16(d)] = string(d[2:])
			}
			if kinds[len(kinds)-1] != wire.RepAck {
				t.Fatalf("option %d for %q: %#x", opt, name, kinds)
			}
			for k, v := range want {
				if got[k] != v {
					t.Errorf("option %d for %q: information %d is %q, want %q", opt, name, k, got[k], v)
				}
			}
		}
	}
}

// Asking about one export and going for another must serve the other, or none.
func TestInfoThenGoElsewhere(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	if k := p.last(wire.OptInfo, wire.GoData("disk")); k != wire.RepAck {
		t.Fatalf("INFO: %#x", k)
	}
	for _, opt := range []uint32{wire.OptInfo, wire.OptGo} {
		for _, name := range []string{"nosuch", ""} {
			if k := p.last(opt, wire.GoData(name)); k != wire.RepErrUnknown {
				t.Errorf("option %d for %q: %#x", opt, name, k)
			}
		}
	}
	if k := p.last(wire.OptGo, wire.GoData("disk")); k != wire.RepAck {
		t.Errorf("GO after failures: %#x", k)
	}
}

func TestUnknownOptionsGoOn(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	for _, opt := range []uint32{wire.OptStartTLS, 4711, 1<<32 - 1} {
		for _, n := range []int{0, 5, maxOptionData, maxOptionData + 1, maxSkip} {
			if k := p.last(opt, make([]byte, n)); k != wire.RepErrUnsup {
				t.Errorf("option %d with %d bytes: %#x", opt, n, k)
			}
		}
	}
	if k := p.last(wire.OptGo, wire.GoData("disk")); k != wire.RepAck {
		t.Errorf("GO: %#x", k)
	}
}

// Options that turn something on.
func TestAgreedOptions(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	for _, opt := range []uint32{wire.OptStructuredReply, wire.OptExtendedHeaders} {
		p := r.dial()
		p.flags(wire.FlagFixedNewstyle)
		if k := p.last(opt, []byte{1}); k != wire.RepErrInvalid {
			t.Errorf("option %d with data: %#x", opt, k)
		}
		if k := p.last(opt, make([]byte, maxOptionData+1)); k != wire.RepErrTooBig {
			t.Errorf("option %d with much data: %#x", opt, k)
		}
		if f := p.exportFlags(); f&wire.FlagSendDF != 0 {
			t.Errorf("flags %#x after a refusal", f)
		}
		for range 2 { // twice is once
			if k := p.last(opt, nil); k != wire.RepAck {
				t.Errorf("option %d: %#x", opt, k)
			}
		}
		if f := p.exportFlags(); f != rwFlags|wire.FlagSendDF {
			t.Errorf("flags %#x", f)
		}
	}
}

// exportFlags asks for the transmission flags.
func (p *peer) exportFlags() uint16 {
	p.Helper()
	_, datas := p.ask(wire.OptInfo, wire.GoData("disk"))
	for _, d := range datas {
		if len(d) == 12 && binary.BigEndian.Uint16(d) == wire.InfoExport {
			return binary.BigEndian.Uint16(d[10:])
		}
	}
	p.Fatal("no NBD_INFO_EXPORT")
	return 0
}

func TestAbort(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	if k := p.last(wire.OptAbort, nil); k != wire.RepAck {
		t.Errorf("ABORT: %#x", k)
	}
	p.closed()
}

func TestBadOptionData(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	p := r.dial()
	p.flags(wire.FlagFixedNewstyle)
	for name, data := range map[string][]byte{
		"empty":                   nil,
		"short":                   {0, 0, 0, 4, 'd'},
		"4 GiB name":              {0xff, 0xff, 0xff, 0xff, 'd', 'i', 's', 'k', 0, 0},
		"name into the count":     {0, 0, 0, 4, 'd', 'i', 's', 'k', 0},
		"more requests than sent": append(wire.GoData("disk")[:8], 0xff, 0xff),
		"odd tail":                append(wire.GoData("disk"), 1),
	} {
		if k := p.last(wire.OptGo, data); k != wire.RepErrInvalid {
			t.Errorf("%s: %#x", name, k)
		}
	}
	if k := p.last(wire.OptInfo, make([]byte, maxOptionData+1)); k != wire.RepErrTooBig {
		t.Errorf("INFO too long: %#x", k)
	}
	if k := p.last(wire.OptGo, wire.GoData(strings.Repeat("x", wire.MaxString))); k != wire.RepErrUnknown {
		t.Errorf("GO with the longest name: %#x", k)
	}
	r.works()
}

func TestHandshakeHangsUp(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{})
	for name, b := range map[string][]byte{
		"unknown client flags": {0x80, 0, 0, 1},
		"wrong option magic":   append([]byte{0, 0, 0, 1}, bytes.Repeat([]byte{7}, 16)...),
		"4 GiB of option":      append([]byte{0, 0, 0, 1}, wire.Option(nil, wire.OptGo, nil)[:12]...),
		"4 GiB of name":        append([]byte{0, 0, 0, 1}, wire.Option(nil, wire.OptExportName, nil)[:12]...),
		"64 KiB of name":       append([]byte{0, 0, 0, 1}, wire.Option(nil, wire.OptExportName, make([]byte, 65536))...),
	} {
		if len(b) == 16 { // an option header whose length is to come
			b = append(b, 0xff, 0xff, 0xff, 0xff)
		}
		t.Run(name, func(t *testing.T) {
			p := r.dial()
			p.Write(b)
			p.closed()
		})
	}
	r.works()
}

func TestFlagsFollowTheDevice(t *testing.T) {
	for _, tc := range []struct {
		info block.Info
		want uint16
	}{
		{block.Info{WriteCache: true}, rwFlags &^ wire.FlagCanMultiConn},
		{block.Info{MultiConn: true}, rwFlags}, // FLUSH also without a write cache
		{block.Info{ReadOnly: true}, wire.FlagHasFlags | wire.FlagReadOnly | wire.FlagSendFlush | wire.FlagSendFUA | wire.FlagSendCache},
		{block.Info{Rotational: true}, rwFlags&^wire.FlagCanMultiConn | wire.FlagRotational},
	} {
		if got := transmissionFlags(tc.info, terms{}); got != tc.want {
			t.Errorf("%+v: %#x, want %#x", tc.info, got, tc.want)
		}
	}
}

func TestRefusedAttach(t *testing.T) {
	dev := memory.Sized(testSize)
	r := newRig(t, dev, Options{})
	if err := r.exports.Add(target.Export{Name: "one", Device: memory.Sized(1 << 20), MaxSessions: 1}); err != nil {
		t.Fatal(err)
	}
	first, second := r.dial(), r.dial()
	first.flags(wire.FlagFixedNewstyle)
	second.flags(wire.FlagFixedNewstyle)
	if k := first.last(wire.OptGo, wire.GoData("one")); k != wire.RepAck {
		t.Fatalf("GO: %#x", k)
	}
	if k := second.last(wire.OptGo, wire.GoData("one")); k != wire.RepErrPolicy {
		t.Errorf("GO beyond the export's limit: %#x", k)
	}
	dev.Stop("not primary")
	if k := second.last(wire.OptGo, wire.GoData("disk")); k != wire.RepErrUnknown {
		t.Errorf("GO for a device that does not serve: %#x", k)
	}
	dev.Start()
	if k := second.last(wire.OptGo, wire.GoData("disk")); k != wire.RepAck {
		t.Errorf("GO after it serves again: %#x", k)
	}
}

func TestMaxConnections(t *testing.T) {
	r := newRig(t, memory.Sized(testSize), Options{MaxConnections: 1})
	p := r.attach()
	nc, err := net.Dial("tcp", r.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	(&peer{T: t, Conn: nc}).closed()
	p.request(wire.Request{Type: wire.CmdFlush, Cookie: 1})
	p.expect(1, wire.OK)
}

// Time is simulated: a silent client is given up at the documented moment.
func TestTimeLimits(t *testing.T) {
	shake := append([]byte{0, 0, 0, 3}, wire.Option(nil, wire.OptExportName, []byte("disk"))...)
	write := wire.Request{Type: wire.CmdWrite, Len: 4096}.Append(nil)
	for _, tc := range []struct {
		name  string
		sends []byte
		limit time.Duration // 0: it may be silent for ever
	}{
		{"nothing", nil, DefaultHandshakeTimeout},
		{"half an option", shake[:9], DefaultHandshakeTimeout},
		{"idle", shake, 0},
		{"half a header", slices.Concat(shake, write[:13]), DefaultProgressTimeout},
		{"half a payload", slices.Concat(shake, write, make([]byte, 2000)), DefaultProgressTimeout},
		{"half a refused payload", slices.Concat(shake, wire.Request{Type: wire.CmdWrite, Off: 1 << 40, Len: 4096}.Append(nil), make([]byte, 5)), DefaultProgressTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var x target.Exports
				if err := x.Add(target.Export{Name: "disk", Device: memory.Sized(1 << 20)}); err != nil {
					t.Fatal(err)
				}
				srv, err := NewServer(&x, Options{})
				if err != nil {
					t.Fatal(err)
				}
				ours, theirs := net.Pipe()
				over := make(chan struct{})
				began := time.Now()
				go func() {
					srv.ServeConn(theirs)
					close(over)
				}()
				go func() { // read whatever comes
					for b := make([]byte, 512); ; {
						if _, err := ours.Read(b); err != nil {
							return
						}
					}
				}()
				if len(tc.sends) > 0 {
					ours.Write(tc.sends)
				}
				if tc.limit == 0 {
					time.Sleep(24 * time.Hour)
					synctest.Wait()
					select {
					case <-over:
						t.Error("an idle client was hung up on")
					default:
					}
					ours.Close()
				}
				<-over
				if took := time.Since(began); tc.limit != 0 && took != tc.limit {
					t.Errorf("given up after %v, the limit is %v", took, tc.limit)
				}
				ours.Close()
			})
		})
	}
}
