package scsi

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// Every form of READ and WRITE, at byte level: 3 blocks at block 5.
func TestReadAndWrite(t *testing.T) {
	for i, form := range []struct{ name, write, read string }{
		{"6", "0a 000005 03 00", "08 000005 03 00"},
		{"10", "2a 00 00000005 00 0003 00", "28 00 00000005 00 0003 00"},
		{"10 with DPO and FUA", "2a 18 00000005 00 0003 00", "28 18 00000005 00 0003 00"},
		{"12", "aa 00 00000005 00000003 00 00", "a8 00 00000005 00000003 00 00"},
		{"16", "8a 00 0000000000000005 00000003 00 00", "88 00 0000000000000005 00000003 00 00"},
		{"and verify 10", "2e 02 00000005 00 0003 00", "28 00 00000005 00 0003 00"},
		{"and verify 12", "ae 02 00000005 00000003 00 00", "28 00 00000005 00 0003 00"},
		{"and verify 16", "8e 02 0000000000000005 00000003 00 00", "28 00 00000005 00 0003 00"},
		{"and verify without comparing", "2e 00 00000005 00 0003 00", "28 00 00000005 00 0003 00"},
		{"atomic", "9c 00 0000000000000005 0000 0003 00 00", "28 00 00000005 00 0003 00"},
		{"or", "8b 00 0000000000000005 00000003 00 00", "28 00 00000005 00 0003 00"},
	} {
		t.Run(form.name, func(t *testing.T) {
			n, dev := plain(t)
			data := filled(byte(0x11+i), 3*512)
			if tr := n.unit.Describe(ptr(cdbOf(form.write))); tr != (Transfer{DataOut, 3 * 512}) {
				t.Errorf("write is described as %+v", tr)
			}
			good(t, "write", run(n, form.write, data...))
			if got := dev.Snapshot(5*512, 3*512); !bytes.Equal(got, data) {
				t.Errorf("the device has %x", got[:16])
			}
			if around := append(dev.Snapshot(0, 5*512), dev.Snapshot(8*512, testSize-8*512)...); !allZero(around) {
				t.Error("bytes outside the range were written")
			}
			r := run(n, form.read)
			good(t, "read", r)
			if !bytes.Equal(r.in, data) {
				t.Errorf("read back: %v", r)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// What is wrong with a medium access command is found in the CDB alone, and no
// data is asked for.
func TestMediumAccessIsRefused(t *testing.T) {
	for _, tc := range []struct{ name, cdb, sense string }{
		{"READ(10) beyond the end", "28 00 000007ff 00 0002 00", "5/2100"},
		{"READ(10) of nothing beyond the end", "28 00 00000801 00 0000 00", "5/2100"},
		{"READ(16) far beyond", "88 00 ffffffffffffffff 00000001 00 00", "5/2100"},
		{"READ(12) that wraps", "a8 00 ffffffff ffffffff 00 00", "5/2100"},
		{"WRITE(10) beyond the end", "2a 00 000007ff 00 0002 00", "5/2100"},
		{"WRITE(16) beyond the end", "8a 00 0000000000000800 00000001 00 00", "5/2100"},
		{"READ(10) with protection", "28 20 00000000 00 0001 00", "5/2400@cdb1.7"},
		{"WRITE(16) with protection", "8a 80 0000000000000000 00000001 00 00", "5/2400@cdb1.7"},
		{"READ(10) with NACA", "28 00 00000000 00 0001 04", "5/2400@cdb9.2"},
		{"VERIFY(10), reserved BYTCHK", "2f 04 00000000 00 0001 00", "5/2400@cdb1.2"},
		{"VERIFY(10) beyond the end", "2f 00 00000800 00 0001 00", "5/2100"},
		{"WRITE AND VERIFY(10), BYTCHK of 3", "2e 06 00000000 00 0001 00", "5/2400@cdb1.2"},
		{"COMPARE AND WRITE beyond the end", "89 00 00000000000007ff 000000 02 00 00", "5/2100"},
		{"COMPARE AND WRITE of too much", "89 00 0000000000000000 000000 ff 00 00", "5/2400@cdb13"},
		{"WRITE ATOMIC with a boundary", "9c 00 0000000000000000 0001 0001 00 00", "5/2400@cdb10"},
		{"WRITE ATOMIC of too much", "9c 00 0000000000000000 0000 0081 00 00", "5/2400@cdb12"},
		{"WRITE SAME(16) with ANCHOR alone", "93 10 0000000000000000 00000001 00 00", "5/2400@cdb1.4"},
		{"WRITE SAME(16) of no blocks", "93 00 0000000000000000 00000000 00 00", "5/2400@cdb10"},
		{"WRITE SAME(10) beyond the end", "41 00 000007ff 00 0002 00", "5/2100"},
		{"PRE-FETCH(10) beyond the end", "34 00 000007ff 00 0002 00", "5/2100"},
		{"SYNCHRONIZE CACHE(10) beyond the end", "35 00 000007ff 00 0002 00", "5/2100"},
		{"GET LBA STATUS beyond the end", "9e 12 0000000000000800 00000018 00 00", "5/2100"},
		{"READ(10) of too much", "28 00 00000000 00 0101 00", "5/2400@cdb7"},
		{"WRITE(12) of too much", "aa 00 00000000 00000101 00 00", "5/2400@cdb6"},
		{"READ(6) of 256 at the end", "08 000701 00 00", "5/2100"},
		{"unknown opcode", "c0 00 00 00 00 00", "5/2000"},
		{"unknown service action", "9e 1f 0000000000000000 00000000 00 00", "5/2400@cdb1.4"},
		{"START STOP UNIT, power condition", "1b 00 00 00 10 00", "5/2400@cdb4.7"},
		{"START STOP UNIT, eject", "1b 00 00 00 02 00", "5/2400@cdb4.1"},
	} {
		u, dev := newUnit(t, memory.Options{}, Config{Limits: Limits{MaxTransfer: 128 << 10}})
		n := attach(t, u, alice)
		if tr := u.Describe(ptr(cdbOf(tc.cdb))); tr.Length != 0 && tc.sense == "5/2100" && tc.cdb[:5] != "9e 12" {
			t.Errorf("%s: described as %+v", tc.name, tr)
		}
		want(t, tc.name, run(n, tc.cdb, filled(0xaa, 512)...), CheckCondition, tc.sense)
		if !allZero(dev.Snapshot(0, testSize)) {
			t.Errorf("%s: it wrote", tc.name)
		}
	}
}

func TestTransferOfNothingIsGood(t *testing.T) {
	n, _ := plain(t)
	for _, cdb := range []string{
		"28 00 00000800 00 0000 00", "2a 00 00000000 00 0000 00", "88 00 0000000000000000 00000000 00 00",
		"89 00 0000000000000000 000000 00 00 00", "8b 00 0000000000000000 00000000 00 00",
		"2f 02 00000000 00 0000 00", "2e 00 00000000 00 0000 00", "9c 00 0000000000000000 0000 0000 00 00",
		"34 00 00000000 00 0000 00", "35 00 00000000 00 0000 00", "91 00 0000000000000000 00000000 00 00",
		"42 00 00000000 00 0000 00", "00 00 00 00 00 00", "1b 00 00 00 01 00", "1b 00 00 00 00 00", "1e 00 00 00 01 00",
	} {
		r := run(n, cdb)
		good(t, cdb, r)
		if len(r.in) > 0 {
			t.Errorf("%s gives data: %v", cdb, r)
		}
	}
}

// A WRITE is cut to the whole blocks that the initiator announced and sent.
func TestWriteIsCutToWhatWasSent(t *testing.T) {
	for _, cdb := range []string{
		"0a 000000 02 00", "2a 00 00000000 00 0002 00", "aa 00 00000000 00000002 00 00",
		"8a 00 0000000000000000 00000002 00 00", "2e 02 00000000 00 0002 00",
	} {
		n, dev := plain(t)
		good(t, cdb, run(n, cdb))
		if !allZero(dev.Snapshot(0, testSize)) {
			t.Errorf("%s: something was written that was not sent", cdb)
		}
		good(t, cdb, run(n, cdb, filled(0xbb, 700)...))
		if got := dev.Snapshot(0, testSize); !bytes.Equal(got[:512], filled(0xbb, 512)) || !allZero(got[512:]) {
			t.Errorf("%s: of 700 bytes that were sent, the first block alone is to be written", cdb)
		}
	}
}

// A command other than WRITE that comes with less data than its CDB asks for writes
// nothing.
func TestTooLittleData(t *testing.T) {
	n, dev := plain(t)
	for _, cdb := range []string{
		"8b 00 0000000000000000 00000002 00 00", "2f 02 00000000 00 0002 00",
		"89 00 0000000000000000 000000 01 00 00", "93 00 0000000000000000 00000001 00 00",
		"9c 00 0000000000000000 0000 0002 00 00", "42 00 00000000 00 0400 00", "5f 06 00 00 00 00000400 00", "15 10 00 00 ff 00",
	} {
		out := filled(0xbb, 700)
		if cdb[:2] == "15" {
			out = nil
		}
		if cdb[:2] == "93" {
			out = out[:256]
		}
		want(t, cdb, run(n, cdb, out...), CheckCondition, "5/0e03")
	}
	if !allZero(dev.Snapshot(0, testSize)) {
		t.Error("something was written")
	}
}

// More data than the command takes is left alone.
func TestMoreData(t *testing.T) {
	n, dev := plain(t)
	good(t, "write", run(n, "2a 00 00000000 00 0001 00", filled(0xcc, 1024)...))
	if got := dev.Snapshot(0, 1024); !bytes.Equal(got[:512], filled(0xcc, 512)) || !allZero(got[512:]) {
		t.Errorf("%x", got)
	}
}

func TestVerify(t *testing.T) {
	n, _ := plain(t)
	good(t, "write", run(n, "2a 00 00000002 00 0002 00", append(filled(1, 512), filled(2, 512)...)...))
	same := append(filled(1, 512), filled(2, 512)...)
	good(t, "equal", run(n, "2f 02 00000002 00 0002 00", same...))
	same[1023] = 0
	want(t, "other", run(n, "2f 02 00000002 00 0002 00", same...), CheckCondition, "e/1d00=3")
	good(t, "other, not compared", run(n, "2f 00 00000002 00 0002 00"))
	good(t, "one block", run(n, "8f 06 0000000000000003 00000001 00 00", filled(2, 512)...))
	want(t, "one block for two", run(n, "af 06 00000002 00000002 00 00", filled(2, 512)...), CheckCondition, "e/1d00=2")
}

func TestCompareAndWrite(t *testing.T) {
	n, dev := plain(t)
	good(t, "equal", run(n, "89 08 0000000000000004 000000 02 00 00", append(make([]byte, 1024), filled(7, 1024)...)...))
	if got := dev.Snapshot(4*512, 1024); !bytes.Equal(got, filled(7, 1024)) {
		t.Errorf("not written: %x", got)
	}
	other := append(filled(7, 1024), filled(8, 1024)...)
	other[700] = 0
	want(t, "other", run(n, "89 00 0000000000000004 000000 02 00 00", other...), CheckCondition, "e/1d00=700")
	if got := dev.Snapshot(4*512, 1024); !bytes.Equal(got, filled(7, 1024)) {
		t.Errorf("written in spite of a miscompare: %x", got)
	}
	want(t, "too much data", run(n, "89 00 0000000000000004 000000 01 00 00", filled(7, 2048)...), CheckCondition, "5/0e03")
}

func TestOrWrite(t *testing.T) {
	n, dev := plain(t)
	good(t, "write", run(n, "2a 00 00000000 00 0001 00", filled(0x0f, 512)...))
	good(t, "or", run(n, "8b 00 0000000000000000 00000001 00 00", filled(0xf0, 512)...))
	if got := dev.Snapshot(0, 512); !bytes.Equal(got, filled(0xff, 512)) {
		t.Errorf("%x", got)
	}
}

// FUA, flushes and their absence reach the device.
func TestDurability(t *testing.T) {
	var seen []string
	u, _ := newUnit(t, memory.Options{Fault: func(a memory.Access) error {
		if !a.Read {
			seen = append(seen, fmt.Sprintf("%v/%v/%v", a.Op, a.FUA, a.NoHole))
		}
		return nil
	}}, Config{})
	n := attach(t, u, alice)
	for _, tc := range []struct {
		cdb, want string
		out       int
	}{
		{"2a 00 00000000 00 0001 00", "write/false/false", 512},
		{"2a 08 00000000 00 0001 00", "write/true/false", 512},
		{"0a 08 00 00 01 00", "write/false/false", 512}, // part of the address
		{"9c 08 0000000000000000 0000 0001 00 00", "write/true/false", 512},
		{"2e 00 00000000 00 0001 00", "write/true/false", 512},
		{"35 00 00000000 00 0000 00", "flush/false/false", 0},
		{"91 02 0000000000000000 00000000 00 00", "flush/false/false", 0},
		{"1b 00 00 00 00 00", "flush/false/false", 0},
		{"93 08 0000000000000000 00000001 00 00", "trim/false/false", 512},
		{"93 09 0000000000000000 00000001 00 00", "trim/false/false", 0},
		{"93 18 0000000000000000 00000001 00 00", "write-zeroes/false/true", 512},
		{"93 01 0000000000000000 00000001 00 00", "write-zeroes/false/true", 0},
		{"41 08 00000000 00 0001 00", "trim/false/false", 512},
	} {
		seen = nil
		if tc.cdb[:2] == "0a" {
			want(t, tc.cdb, run(n, tc.cdb, make([]byte, tc.out)...), CheckCondition, "5/2100")
			continue
		}
		good(t, tc.cdb, run(n, tc.cdb, make([]byte, tc.out)...))
		if len(seen) != 1 || seen[0] != tc.want {
			t.Errorf("%s: the device saw %v, want %s", tc.cdb, seen, tc.want)
		}
	}
}

// Each error of a device has its own sense.
func TestDeviceErrors(t *testing.T) {
	errIO := errors.New("the disk burns")
	read, write := "28 00 00000007 00 0001 00", "2a 00 00000007 00 0001 00"
	for _, tc := range []struct {
		err         error
		cold        bool
		cdb         string
		status      Status
		sense       string
		descriptors string
	}{
		{errIO, false, read, CheckCondition, "3/1100=7", "d3/1100=7"},
		{errIO, true, read, CheckCondition, "3/1100=7", "d3/1100=7"},
		{errIO, false, write, CheckCondition, "3/0c00=7", "d3/0c00=7"},
		{errIO, false, "35 00 00000000 00 0000 00", CheckCondition, "3/0c00=0", "d3/0c00=0"},
		{errIO, false, "93 01 0000000000000009 00000001 00 00", CheckCondition, "3/0c00=9", "d3/0c00=9"},
		{errIO, false, "2f 00 00000007 00 0001 00", CheckCondition, "3/1100=7", "d3/1100=7"},
		{errIO, false, "34 00 00000007 00 0001 00", CheckCondition, "3/1100=7", "d3/1100=7"},
		{fmt.Errorf("full: %w", block.ErrNoSpace), false, write, CheckCondition, "7/2707", "d7/2707"},
		{block.ErrReadOnly, false, write, CheckCondition, "7/2700", "d7/2700"},
		{block.ErrNotServing, false, write, CheckCondition, "2/040b", "d2/040b"},
		{block.ErrNotServing, false, read, CheckCondition, "2/040b", "d2/040b"},
		{block.ErrOutOfRange, false, write, CheckCondition, "5/2100", "d5/2100"},
		{block.ErrSessionClosed, false, write, TaskAborted, "", ""},
		{block.ErrSessionClosed, false, read, TaskAborted, "", ""},
	} {
		u, _ := newUnit(t, memory.Options{ColdReads: tc.cold, Fault: func(memory.Access) error { return tc.err }}, Config{})
		n := attach(t, u, alice)
		want(t, fmt.Sprintf("%s, %v", tc.cdb, tc.err), run(n, tc.cdb, filled(1, 512)...), tc.status, tc.sense)
		good(t, "set D_SENSE", run(n, "15 10 00 00 10 00", 0, 0, 0, 0, 0x0a, 10, 4, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0))
		want(t, fmt.Sprintf("%s, %v, descriptors", tc.cdb, tc.err), run(n, tc.cdb, filled(1, 512)...), tc.status, tc.descriptors)
	}
}

func TestReadOnlyDevice(t *testing.T) {
	info := plainInfo
	info.ReadOnly = true
	u, _ := newUnit(t, memory.Options{Info: info}, Config{})
	n := attach(t, u, alice)
	for i := range table {
		o := &table[i]
		if !o.has(writes) {
			continue
		}
		cdb := [16]byte{o.code}
		switch o.code >> 5 {
		case 0:
			cdb[4] = 1
		case 1, 2:
			cdb[8] = 1
		case 4:
			cdb[13] = 1
		case 5:
			cdb[9] = 1
		}
		if o.name == "UNMAP" {
			cdb[8] = 24
		}
		tr := u.Describe(&cdb)
		want(t, o.name, runCDB(n, cdb, make([]byte, tr.Length)), CheckCondition, "7/2700")
	}
	if r := run(n, "1a 00 3f 00 ff 00"); r.in[2]&0x80 == 0 {
		t.Errorf("MODE SENSE does not say WP: %v", r)
	}
}

// Large sectors are the blocks; small ones are not.
func TestBlockSize(t *testing.T) {
	for _, tc := range []struct{ sector, size, last int64 }{{1, 512, 2047}, {512, 512, 2047}, {4096, 4096, 255}} {
		info := plainInfo
		info.SectorSize = tc.sector
		u, _ := newUnit(t, memory.Options{Info: info}, Config{})
		n := attach(t, u, alice)
		r := run(n, "25 00 00000000 00 0000 00")
		w := fmt.Sprintf("%08x%08x", tc.last, tc.size)
		if got := fmt.Sprintf("%x", r.in); got != w {
			t.Errorf("sectors of %d: READ CAPACITY(10) gives %s, want %s", tc.sector, got, w)
		}
	}
}
