package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/target/memory"
)

func wantBytes(tb testing.TB, what string, got result, want string) {
	tb.Helper()
	good(tb, what, got)
	if w := hexBytes(tb, want); !bytes.Equal(got.in, w) {
		tb.Errorf("%s: %x, want %x", what, got.in, w)
	}
}

func zeroes(n int) string { return strings.Repeat("00", n) }

func TestInquiry(t *testing.T) {
	u, _ := newUnit(t, memory.Options{}, Config{Vendor: "ACME", Product: "a product of long name", Revision: "7", Serial: "S1"})
	n := attach(t, u, alice)
	wantBytes(t, "standard", run(n, "12 00 00 00 ff 00"),
		"00 00 06 12 5b 10 10 02"+fmt.Sprintf("%x", "ACME    a product of lon7   ")+zeroes(22)+"00a0 0960 0460 04c0"+zeroes(30))
	wantBytes(t, "standard, cut", run(n, "12 00 00 00 05 00"), "00 00 06 12 5b")
	wantBytes(t, "none of it", run(n, "12 00 00 00 00 00"), "")
	wantBytes(t, "supported pages", run(n, "12 01 00 00 ff 00"), "00 00 0007 00 80 83 86 b0 b1 b2")
	wantBytes(t, "serial number", run(n, "12 01 80 00 ff 00"), "00 80 0002"+fmt.Sprintf("%x", "S1"))
	wantBytes(t, "extended INQUIRY", run(n, "12 01 86 00 ff 00"), "00 86 003c 00 03 01"+zeroes(57))
	// 2048 blocks of 512: 65536 in a transfer, granularity 8, 2^22 of WRITE SAME,
	// 128 written atomically.
	wantBytes(t, "block limits", run(n, "12 01 b0 00 ff 00"),
		"00 b0 003c 01 ff 0008 00010000 00000800 00010000 00100000 00000100 00000008 80000000 0000000000400000 00000080"+zeroes(16))
	wantBytes(t, "characteristics", run(n, "12 01 b1 00 ff 00"), "00 b1 003c 0001"+zeroes(58))
	wantBytes(t, "provisioning", run(n, "12 01 b2 00 ff 00"), "00 b2 0004 00 e6 02 00")
	want(t, "unknown page", run(n, "12 01 c0 00 ff 00"), CheckCondition, "5/2400@cdb2")
	want(t, "page without EVPD", run(n, "12 00 80 00 ff 00"), CheckCondition, "5/2400@cdb2")
}

// Designators in their order, each by its header; that of the volume is the same
// through every port and on every node.
func TestIdentification(t *testing.T) {
	u, _ := newUnit(t, memory.Options{}, Config{Vendor: "ACME", Serial: "S1"})
	n := attach(t, u, alice)
	r := run(n, "12 01 83 00 ff 00")
	good(t, "page 83h", r)
	if got := int(binary.BigEndian.Uint16(r.in[2:])); got != len(r.in)-4 {
		t.Fatalf("its length is %d of %d bytes", got, len(r.in))
	}
	var heads []string
	for d := r.in[4:]; len(d) > 0; d = d[4+d[3]:] {
		heads = append(heads, fmt.Sprintf("%x", d[:4]))
		switch body := d[4 : 4+d[3]]; d[1] & 0x0f {
		case naaDesignator:
			if body[0]>>4 != 3 {
				t.Errorf("NAA %x is not locally assigned", body)
			}
			other, _ := newUnit(t, memory.Options{}, Config{Vendor: "ACME", Serial: "S1"})
			if again := run(attach(t, other, bob), "12 01 83 00 ff 00"); !bytes.Equal(again.in[8:16], body) {
				t.Errorf("another node shows %x for %x", again.in[8:16], body)
			}
		case vendorDesignator:
			if string(body) != "ACME    S1" {
				t.Errorf("vendor designator %q", body)
			}
		case relativePort, portGroup:
			if fmt.Sprintf("%x", body) != "00000001" {
				t.Errorf("port designator %x", body)
			}
		case scsiName:
			if string(body) != "iqn.2026-01.test:target,t,0x0001\x00\x00\x00\x00" {
				t.Errorf("port name %q", body)
			}
		}
	}
	if got := fmt.Sprint(heads); got != "[01030008 0201000a 51940004 51950004 53980024]" {
		t.Errorf("designators %s", got)
	}
}

func TestReadCapacity(t *testing.T) {
	n, _ := plain(t)
	wantBytes(t, "(10)", run(n, "25 00 00000000 00 0000 00"), "000007ff 00000200")
	wantBytes(t, "(16)", run(n, "9e 10 0000000000000000 00000020 00 00"), "00000000000007ff 00000200 00 03 c000"+zeroes(16))
	wantBytes(t, "(16), cut", run(n, "9e 10 0000000000000000 00000008 00 00"), "00000000000007ff")
}

func TestReportLUNs(t *testing.T) {
	n, _ := plain(t)
	wantBytes(t, "all", run(n, "a0 00 00 000000 00000100 00 00"), "00000008 00000000 0000000000000000")
	wantBytes(t, "well known", run(n, "a0 00 01 000000 00000100 00 00"), "00000000 00000000")
	want(t, "another report", run(n, "a0 00 11 000000 00000100 00 00"), CheckCondition, "5/2400@cdb2")
	want(t, "too short", run(n, "a0 00 00 000000 0000000f 00 00"), CheckCondition, "5/2400@cdb6")

	done := make(signal, 1)
	ReportLUNs(&Command{CDB: cdbOf("a0 00 00 000000 00000014 00 00"), Done: done}, []uint64{0, 1 << 48})
	wantBytes(t, "several, cut", resultOf(<-done), "00000010 00000000 0000000000000000 00010000")
}

func TestNoUnit(t *testing.T) {
	for _, tc := range []struct{ cdb, in, sense string }{
		{"12 00 00 00 08 00", "7f 00 06 02 1f 00 00 00", ""},
		{"12 01 00 00 08 00", "", "5/2400@cdb2"},
		{"03 00 00 00 ff 00", "70 00 05 00000000 0a 00000000 2500 00 000000", ""},
		{"28 00 00000000 00 0001 00", "", "5/2500"},
		{"00 00 00 00 00 00", "", "5/2500"},
	} {
		done := make(signal, 1)
		NoUnit(&Command{CDB: cdbOf(tc.cdb), Done: done})
		r := resultOf(<-done)
		if w := hexBytes(t, tc.in); r.sense != tc.sense || !bytes.Equal(r.in, w) {
			t.Errorf("%s: %v, want sense %q, %x", tc.cdb, r, tc.sense, w)
		}
	}
}

// What is reported as supported is, each command with usage data that fits it;
// asked for by itself it is described the same.
func TestReportOpcodes(t *testing.T) {
	n, _ := plain(t)
	r := run(n, "a3 0c 00 00 0000 00004000 00 00")
	good(t, "all", r)
	if got := int(binary.BigEndian.Uint32(r.in)); got != len(r.in)-4 || got%8 != 0 || got == 0 {
		t.Fatalf("length %d of %d bytes", got, len(r.in))
	}
	for d := r.in[4:]; len(d) > 0; d = d[8:] {
		option := byte(reportCode)
		if d[5]&0x01 != 0 {
			option = reportAction
		}
		one := runCDB(n, [16]byte{0xa3, 0x0c, option, d[0], d[2], d[3], 8: 1}, nil)
		good(t, fmt.Sprintf("%x", d[:8]), one)
		if in := one.in; len(in) != 4+int(d[7]) || in[1] != 0x03 || in[3] != d[7] || in[4] != d[0] || option == reportAction && in[5]&0x1f != d[3] {
			t.Errorf("%x is described as %x", d[:8], in)
		}
	}
	long := run(n, "a3 0c 80 00 0000 00004000 00 00")
	if len(long.in)-4 != (len(r.in)-4)/8*20 {
		t.Errorf("with timeouts there are %d bytes, %d without", len(long.in), len(r.in))
	}
	wantBytes(t, "WRITE(10)", run(n, "a3 0c 01 2a 0000 00000100 00 00"), "00 03 000a 2a 18 ffffffff 1f ffff 04")
	wantBytes(t, "with timeouts", run(n, "a3 0c 81 00 0000 00000100 00 00"), "00 83 0006 00 00000000 04 000a 00000000000000000000")
	wantBytes(t, "unknown", run(n, "a3 0c 01 c0 0000 00000100 00 00"), "00 01 0000")
	wantBytes(t, "unknown action", run(n, "a3 0c 02 9e 001f 00000100 00 00"), "00 01 0000")
	wantBytes(t, "either", run(n, "a3 0c 03 9e 0010 00000100 00 00"), "00 03 0010 9e 10 0000000000000000 ffffffff 00 04")
	want(t, "code that has actions", run(n, "a3 0c 01 9e 0000 00000100 00 00"), CheckCondition, "5/2400@cdb2.2")
	want(t, "action of one that has none", run(n, "a3 0c 02 2a 0000 00000100 00 00"), CheckCondition, "5/2400@cdb2.2")
	want(t, "reserved option", run(n, "a3 0c 04 00 0000 00000100 00 00"), CheckCondition, "5/2400@cdb2.2")
	wantBytes(t, "task management", run(n, "a3 0d 00 000000 00000100 00 00"), "d8 00 00 00")
	wantBytes(t, "task management, extended", run(n, "a3 0d 80 000000 00000100 00 00"), "d8 00 00 0c"+zeroes(12))
}

// portGroups is a Groups that tests set.
type portGroups []PortGroup

func (p portGroups) PortGroups() []PortGroup { return p }

func TestPortGroups(t *testing.T) {
	n, _ := plain(t)
	wantBytes(t, "without Groups", run(n, "a3 0a 00000000 00000100 00 00"), "0000000c 00 cf 0001 00 00 00 01 00000001")

	states := portGroups{{ID: 1, State: ActiveOptimized, Preferred: true, Ports: []uint16{1}}, {ID: 2, State: Standby, Ports: []uint16{2, 3}}}
	u, _ := newUnit(t, memory.Options{}, Config{Groups: states})
	n = attach(t, u, alice)
	both := "80 cf 0001 00 00 00 01 00000001 02 cf 0002 00 00 00 02 00000002 00000003"
	wantBytes(t, "two", run(n, "a3 0a 00000000 00000100 00 00"), "0000001c"+both)
	wantBytes(t, "two, with a header", run(n, "a3 2a 00000000 00000100 00 00"), "00000020 10 00 0000"+both)
	want(t, "another format", run(n, "a3 4a 00000000 00000100 00 00"), CheckCondition, "5/2400@cdb1.7")
	want(t, "SET, not offered", run(n, "a4 0a 00000000 00000000 00 00"), CheckCondition, "5/2000")

	for _, tc := range []struct {
		state AccessState
		sense string
	}{{ActiveNonOptimized, ""}, {Standby, "2/040b"}, {Unavailable, "2/040c"}, {Offline, "2/040c"}, {Transitioning, "2/040a"}} {
		states[0].State = tc.state
		if r := run(n, "28 00 00000000 00 0001 00"); r.sense != tc.sense {
			t.Errorf("READ in state %x: %v", tc.state, r)
		}
		good(t, "INQUIRY", run(n, "12 00 00 00 ff 00"))
		good(t, "RTPG", run(n, "a3 0a 00000000 00000100 00 00"))
	}
	u.GroupsChanged()
	want(t, "a change", run(n, "00 00 00 00 00 00"), CheckCondition, "6/2a06")
}
