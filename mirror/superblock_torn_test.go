package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// rewritten is a superblock file in which each slot was written twice, with
// contents of several sectors: old has commits 1 and 2, now has 3 and 4.
func rewritten(t *testing.T) (old, now []byte) {
	t.Helper()
	dir := fakedisk.New(1)
	sb := sampleSuperblock()
	sb.History = longHistory(30)
	mustCreate(t, dir, sb)
	old = superblockBytes(t, dir)
	f, sb := mustOpen(t, dir)
	for range 2 {
		sb.LossCounter++
		sb.Set = []Member{{"another", 9}}
		if err := f.Commit(&sb); err != nil {
			t.Fatal(err)
		}
	}
	if sb.Seq != 4 {
		t.Fatal(sb.Seq)
	}
	return old, superblockBytes(t, dir)
}

// TestSuperblockTornAtEverySector: a slot that is torn between what it was and
// what it became, at any sector, or that is wholly what it was, costs nothing
// but itself: the other slot is read. If that one is the older, the journal's
// note tells (14d).
func TestSuperblockTornAtEverySector(t *testing.T) {
	old, now := rewritten(t)
	const sector = 512
	torn := 0
	for slot, seq := range []uint64{3, 4} {
		for at := 0; at <= 8*sector; at += sector {
			for _, front := range []bool{false, true} {
				b := bytes.Clone(now)
				s, was := slotOf(b, slot), slotOf(old, slot)
				if front {
					copy(s[:at], was[:at])
				} else {
					copy(s[at:], was[at:])
				}
				want := uint64(4)
				if !bytes.Equal(b, now) {
					want = 7 - seq // the other slot's
					torn++
				}
				file, sb, err := OpenSuperblock(withSuperblock(t, b))
				what := fmt.Sprintf("slot %d with its old bytes up to %d (%v), then on", slot, at, front)
				if err != nil || sb.Seq != want {
					t.Fatalf("%s: %v, sequence number %d, want %d", what, err, sb.Seq, want)
				}
				if err := file.CheckNoted(4); (err == nil) != (want == 4) || err != nil && !errors.Is(err, ErrSuperblock) {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
	}
	if torn < 8 {
		t.Errorf("only %d torn slots: the contents are too alike", torn)
	}
}

// TestSuperblockStale: both slots are what they were. Nothing in the file can
// tell; the journal's note does.
func TestSuperblockStale(t *testing.T) {
	old, _ := rewritten(t)
	file, sb, err := OpenSuperblock(withSuperblock(t, old))
	if err != nil || sb.Seq != 2 {
		t.Fatal(sb.Seq, err)
	}
	if err := file.CheckNoted(4); !errors.Is(err, ErrSuperblock) {
		t.Error(err)
	}
}

// TestSuperblockHeaderThatCannotBe: one row per field of a slot's header, with a
// right CRC and a value out of its range: in one slot the other is read, but for
// a format version, which is never passed over.
func TestSuperblockHeaderThatCannotBe(t *testing.T) {
	pristine, _ := twoSlots(t)
	for _, row := range []struct {
		field  string
		change func(b []byte)
		never  bool // even one slot like that is an error
	}{
		{"magic", func(b []byte) { b[0]++ }, false},
		{"format version 0", func(b []byte) { le.PutUint32(b[8:], 0) }, true},
		{"a later format version", func(b []byte) { le.PutUint32(b[8:], superblockVersion+1) }, true},
		{"slot number", func(b []byte) { le.PutUint32(b[12:], 2) }, false},
		{"a body of nothing", func(b []byte) { le.PutUint32(b[24:], 0) }, false},
		{"a body without its end", func(b []byte) { le.PutUint32(b[24:], le.Uint32(b[24:])-1) }, false},
		{"a body with more than its end", func(b []byte) { le.PutUint32(b[24:], le.Uint32(b[24:])+1) }, false},
		{"a body past the slot", func(b []byte) { le.PutUint32(b[24:], SuperblockSlotSize) }, false},
		{"a body that cannot be", func(b []byte) { le.PutUint32(b[24:], 1<<32-1) }, false},
	} {
		both := bytes.Clone(pristine)
		for i, want := range []uint64{2, 3} { // what is left without slot i
			damage := func(b []byte) {
				row.change(b)
				n := min(uint64(le.Uint32(b[24:])), SuperblockSlotSize-superblockHeader)
				le.PutUint32(b[28:], slotCRC(b[:superblockHeader+n]))
			}
			b := bytes.Clone(pristine)
			damage(slotOf(b, i))
			damage(slotOf(both, i))
			_, sb, err := OpenSuperblock(withSuperblock(t, b))
			switch {
			case row.never && !errors.Is(err, ErrSuperblock):
				t.Errorf("%s in slot %d: %v", row.field, i, err)
			case !row.never && (err != nil || sb.Seq != want):
				t.Errorf("%s in slot %d: %v, sequence number %d, want %d", row.field, i, err, sb.Seq, want)
			}
		}
		if _, _, err := OpenSuperblock(withSuperblock(t, both)); !errors.Is(err, ErrSuperblock) {
			t.Errorf("%s in both slots: %v", row.field, err)
		}
	}
}
