package scsi

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/target/memory"
)

// hexBytes reads hexadecimal with spaces.
func hexBytes(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

const (
	cachingPage  = "08 12 04" + "00000000000000000000000000000000 00"
	controlPage  = "0a 0a 00 10 00 00 00 00 ffff 0000"
	swpPage      = "0a 0a 00 10 08 00 00 00 ffff 0000"
	descriptor   = "00000800 00000200"
	noCaching    = "08 12 00" + "00000000000000000000000000000000 00"
	nothingToSet = "000000000000000000000000000000000000"
)

func TestModeSense(t *testing.T) {
	n, _ := plain(t)
	for _, tc := range []struct{ cdb, want string }{
		{"1a 00 08 00 ff 00", "1f 00 10 08" + descriptor + cachingPage},
		{"1a 08 08 00 ff 00", "17 00 10 00" + cachingPage},
		{"1a 08 0a 00 ff 00", "0f 00 10 00" + controlPage},
		{"1a 08 3f 00 ff 00", "23 00 10 00" + cachingPage + controlPage},
		{"1a 08 3f ff ff 00", "23 00 10 00" + cachingPage + controlPage},
		{"1a 08 3f 00 04 00", "23 00 10 00"}, // cut by the allocation length
		{"1a 08 48 00 ff 00", "17 00 10 00 08 12" + nothingToSet},
		{"1a 08 4a 00 ff 00", "0f 00 10 00 0a 0a 04 00 08 00000000000000"},
		{"1a 08 8a 00 ff 00", "0f 00 10 00" + controlPage},
		{"5a 08 0a 00 000000 00ff 00", "0012 00 10 00 00 0000" + controlPage},
		{"5a 00 0a 00 000000 00ff 00", "001a 00 10 00 00 0008" + descriptor + controlPage},
		{"5a 10 0a 00 000000 00ff 00", "0022 00 10 01 00 0010 0000000000000800 0000000000000200" + controlPage},
	} {
		r := run(n, tc.cdb)
		good(t, tc.cdb, r)
		if w := hexBytes(t, tc.want); !bytes.Equal(r.in, w) {
			t.Errorf("%s: %x, want %x", tc.cdb, r.in, w)
		}
	}
	want(t, "saved values", run(n, "1a 00 c8 00 ff 00"), CheckCondition, "5/3900")
	want(t, "unknown page", run(n, "1a 00 1c 00 ff 00"), CheckCondition, "5/2400@cdb2.5")
	want(t, "unknown subpage", run(n, "1a 00 0a 01 ff 00"), CheckCondition, "5/2400@cdb3")
}

func TestModeSelect(t *testing.T) {
	for _, tc := range []struct{ name, list, sense string }{
		{"as it is", "00000000" + controlPage, ""},
		{"all of it", "00000008" + descriptor + cachingPage + controlPage, ""},
		{"all blocks", "00000008 00000000 00000200" + controlPage, ""},
		{"header alone", "00000000", ""},
		{"another block size", "00000008 00000800 00001000", "5/2600@list4"},
		{"WCE off", "00000000" + noCaching, "5/2600@list6"},
		{"unknown page", "00000000 1c00", "5/2600@list4"},
		{"subpage format", "00000000 4a01 0000", "5/2600@list4"},
		{"wrong page length", "00000000 0a09 00 10 00 00 00 00 ffff 00", "5/2600@list5"},
		{"page cut short", "00000000 0a0a 00 10", "5/1a00"},
		{"page header cut short", "00000000 0a", "5/1a00"},
		{"header cut short", "000000", "5/1a00"},
		{"descriptor cut short", "00000008 00000000", "5/1a00"},
		{"all or nothing", "00000000" + swpPage + noCaching, "5/2600@list18"},
	} {
		n, _ := plain(t)
		list := hexBytes(t, tc.list)
		r := runCDB(n, [16]byte{0x15, 0x10, 0, 0, byte(len(list))}, list)
		status := Good
		if tc.sense != "" {
			status = CheckCondition
		}
		want(t, tc.name, r, status, tc.sense)
		if r := run(n, "1a 08 0a 00 ff 00"); !bytes.Equal(r.in[4:], hexBytes(t, controlPage)) {
			t.Errorf("%s: the control page is %x now", tc.name, r.in[4:])
		}
	}
}

// A unit that is write protected by software refuses writes alone: it can be
// flushed, and be unprotected again. Others are told.
func TestSoftwareWriteProtect(t *testing.T) {
	u, dev := newUnit(t, memory.Options{}, Config{})
	n, other := attach(t, u, alice), attach(t, u, bob)
	good(t, "protect", run(n, "55 10 0000000000 0014 00", hexBytes(t, "0000000000000000"+swpPage)...))
	want(t, "other is told", run(other, "00 00 00 00 00 00"), CheckCondition, "6/2a01")
	want(t, "write", run(other, "2a 00 00000000 00 0001 00", filled(1, 512)...), CheckCondition, "7/2702")
	good(t, "flush", run(other, "35 00 00000000 00 0000 00"))
	good(t, "read", run(other, "28 00 00000000 00 0001 00"))
	if r := run(n, "1a 08 0a 00 ff 00"); r.in[2] != 0x90 {
		t.Errorf("device-specific parameter %02x, want 90", r.in[2])
	}
	if !allZero(dev.Snapshot(0, 512)) {
		t.Error("written in spite of SWP")
	}
	good(t, "unprotect", run(n, "55 10 0000000000 0014 00", hexBytes(t, "0000000000000000"+controlPage)...))
	want(t, "other is told", run(other, "00 00 00 00 00 00"), CheckCondition, "6/2a01")
	good(t, "write", run(other, "2a 00 00000000 00 0001 00", filled(1, 512)...))
}
