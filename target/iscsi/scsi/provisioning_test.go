package scsi

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// unmapList is a parameter list of UNMAP with pairs of a block and a number of
// blocks.
func unmapList(pairs ...int) string {
	list := fmt.Sprintf("%04x %04x 00000000", 6+8*len(pairs), 8*len(pairs))
	for i := 0; i < len(pairs); i += 2 {
		list += fmt.Sprintf("%016x %08x 00000000", pairs[i], pairs[i+1])
	}
	return list
}

func TestUnmap(t *testing.T) {
	tooMany := make([]int, 2*(maxUnmapDescriptors+1))
	for _, tc := range []struct {
		name, list, sense string
		zeroed            []int // blocks
	}{
		{"two ranges", unmapList(8, 2, 3, 1), "", []int{3, 8, 9}},
		{"one of no blocks", unmapList(8, 0, 3, 1), "", []int{3}},
		{"the same twice", unmapList(3, 1, 3, 1), "", []int{3}},
		{"no descriptor", unmapList(), "", nil},
		{"no list", "", "", nil},
		{"the last is cut short", "0016 0018 00000000 0000000000000003 00000001 00000000 0000000000000004", "", []int{3}},
		{"more bytes than descriptors", "0016 0010 00000000 0000000000000003 00000001 00000000 ffffffffffffffff ffffffffffffffff", "", []int{3}},
		{"one beyond the end", unmapList(3, 1, 2047, 2), "5/2100", nil},
		{"one far beyond", "0016 0010 00000000 ffffffffffffffff ffffffff 00000000", "5/2100", nil},
		{"longer than the list", "0016 0020 00000000 0000000000000003 00000001 00000000", "5/1a00", nil},
		{"header cut short", "0016 0010", "5/1a00", nil},
		{"too many descriptors", unmapList(tooMany...), "5/2600@list2", nil},
	} {
		for _, anchor := range []byte{0, 1} {
			n, dev := plain(t)
			good(t, "write", run(n, "2a 00 00000000 00 0010 00", filled(9, 16*512)...))
			list := hexBytes(t, tc.list)
			r := runCDB(n, [16]byte{0x42, anchor, 7: byte(len(list) >> 8), 8: byte(len(list))}, list)
			status := Good
			if tc.sense != "" {
				status = CheckCondition
			}
			want(t, tc.name, r, status, tc.sense)
			w := filled(9, 16*512)
			for _, b := range tc.zeroed {
				clear(w[b*512 : (b+1)*512])
			}
			if !bytes.Equal(dev.Snapshot(0, 16*512), w) {
				t.Errorf("%s: other blocks than %v are zero", tc.name, tc.zeroed)
			}
		}
	}
}

// The device's holes are 8 blocks each. What is in one as a whole is deallocated,
// also if it was unmapped; what is anchored is not.
func TestGetLBAStatus(t *testing.T) {
	n, _ := plain(t)
	const all, mapped, hole = "9e 12 0000000000000000 00000100 00 00", "00 000000", "01 000000"
	wantBytes(t, "an empty device", run(n, all), "00000014 00000000 0000000000000000 00000800"+hole)
	good(t, "write", run(n, "2a 00 0000000a 00 0001 00", filled(1, 512)...))
	good(t, "anchor", run(n, "93 18 0000000000000020 00000008 00 00", make([]byte, 512)...))
	written := "0000000000000000 00000008" + hole + "0000000000000008 00000008" + mapped + "0000000000000010 00000010" + hole +
		"0000000000000020 00000008" + mapped + "0000000000000028 000007d8" + hole
	wantBytes(t, "written and anchored", run(n, all), "00000054 00000000"+written)
	wantBytes(t, "from within", run(n, "9e 12 000000000000000b 00000028 00 00"),
		"00000024 00000000 000000000000000b 00000005"+mapped+"0000000000000010 00000010"+hole)
	wantBytes(t, "the last block", run(n, "9e 12 00000000000007ff 00000100 00 00"), "00000014 00000000 00000000000007ff 00000001"+hole)
	wantBytes(t, "cut short", run(n, "9e 12 0000000000000000 0000000a 00 00"), "00000014 00000000 0000")
	good(t, "unmap", run(n, "42 00 00000000 00 0018 00", hexBytes(t, unmapList(8, 8))...))
	wantBytes(t, "unmapped", run(n, all), "00000034 00000000 0000000000000000 00000020"+hole+
		"0000000000000020 00000008"+mapped+"0000000000000028 000007d8"+hole)
}

// Holes are rounded to blocks inward: what is only partly in one is mapped.
func TestStatusListRounds(t *testing.T) {
	const hole = block.Hole | block.Zero
	l := statusList{blockSize: 1024, limit: 10}
	l.add(0, 512, 0)
	l.add(512, 2048, hole) // block 1, half of 0 and of 2
	l.add(2560, 512, 0)
	l.add(3072, 512, hole) // half of block 3
	l.add(3584, 512, block.Zero)
	l.flush()
	want := hexBytes(t, "0000000000000000 00000001 00000000 0000000000000001 00000001 01000000 0000000000000002 00000002 00000000")
	if !bytes.Equal(l.b, want) {
		t.Errorf("%x, want %x", l.b, want)
	}
}

// WRITE SAME repeats a block over pieces that do not divide the whole.
func TestWriteSame(t *testing.T) {
	info := plainInfo
	info.Size = 4 << 20
	u, dev := newUnit(t, memory.Options{Info: info}, Config{})
	n := attach(t, u, alice)
	one := filled(7, 512)
	one[3] = 1
	const first, blocks = 5, 2*samePiece/512 + 3
	good(t, "write same", runCDB(n, [16]byte{0x93, 9: first, 12: blocks >> 8, 13: blocks & 0xff}, one))
	w := make([]byte, info.Size)
	for i := first; i < first+blocks; i++ {
		copy(w[i*512:], one)
	}
	if got := dev.Snapshot(0, info.Size); !bytes.Equal(got, w) {
		t.Errorf("byte %d is wrong", mismatch(got, w))
	}
	good(t, "none sent, NDOB", run(n, "93 01 0000000000000005 00000001 00 00"))
	if !allZero(dev.Snapshot(5*512, 512)) {
		t.Error("NDOB wrote no zeroes")
	}
}
