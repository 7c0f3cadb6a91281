package journal

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// Other damage than a flipped bit: what was zeroed, torn, put in another's
// place, is stale, or has a right CRC and says what cannot be.

// change rewrites n bytes of a file.
func change(t *testing.T, d *fakedisk.FS, name string, off int64, n int64, how func(p []byte)) {
	t.Helper()
	f := openRaw(t, d, name)
	p := make([]byte, n)
	_, err := f.ReadAt(p, off)
	ok(t, err)
	how(p)
	_, err = f.WriteAt(p, off)
	ok(t, err)
}

// bytesOf reads n bytes of a file.
func bytesOf(t *testing.T, d *fakedisk.FS, name string, off, n int64) []byte {
	t.Helper()
	p := make([]byte, n)
	change(t, d, name, off, n, func(q []byte) { copy(p, q) })
	return p
}

func sealSegment(p []byte) { le.PutUint32(p[12:], checksum(p[16:segmentHeaderSize])) }
func sealBatch(p []byte)   { le.PutUint32(p[4:], checksum(p[8:batchHeaderSize])) }

// TestSegmentHeaderThatCannotBe: every field of a header whose CRC is right, out
// of its range, in both copies or in one.
func TestSegmentHeaderThatCannotBe(t *testing.T) {
	put64 := func(at int, v uint64) func([]byte) { return func(p []byte) { le.PutUint64(p[at:], v) } }
	put32 := func(at int, v uint32) func([]byte) { return func(p []byte) { le.PutUint32(p[at:], v) } }
	for _, row := range []struct {
		what string
		how  func([]byte)
		want outcome // with both copies like that: two faults
		one  outcome // with the first alone, whose sequence number is not lower
	}{
		{"zeroed", func(p []byte) { clear(p) }, damaged, healed},
		{"format version 0", put32(8, 0), version, healed},
		{"a later format version", put32(8, FormatVersion+1), version, healed},
		{"another journal id", put64(16, 77), damaged, ""},
		// A segment that says twice that it is free: nothing else speaks of it.
		{"sequence number 0", put64(24, 0), shorter, healed},
		{"a sequence number that cannot be", put64(24, maxNumber+1), damaged, healed},
		{"the sequence number of another", put64(24, 2), damaged, healed},
		{"a previous one that is not there", put64(32, 99), damaged, ""},
		{"first LSN 0", put64(40, 0), damaged, healed},
		{"a first LSN that cannot be", put64(40, maxNumber+1), damaged, healed},
		{"another first LSN", put64(40, 39), damaged, ""},
		{"another seed", put32(48, 1), damaged, ""},
		{"no segments", put32(52, 0), damaged, healed},
		{"too many segments", put32(52, maxSegments+1), damaged, healed},
		{"size 0", put64(56, 0), damaged, healed},
		{"a size of less than a page more", put64(56, smallSegment+1), damaged, healed},
		{"a size beyond the file's", put64(56, 2*smallSegment), damaged, ""},
		{"a size that cannot be", put64(56, 1<<63), damaged, healed},
		{"an oldest one that is not there", put64(64, 99), damaged, ""},
		{"noted as durable past the end", put64(80, 43), damaged, ""},
	} {
		seal := func(p []byte) {
			row.how(p)
			if row.what != "zeroed" {
				sealSegment(p)
			}
		}
		d, last, _ := damageable(t)
		for _, c := range headerCopies {
			change(t, d, lastSegment, c, segmentHeaderSize, seal)
		}
		if got := judge(t, d, last[0].First-1); got != row.want {
			t.Errorf("%s, in both copies: %s, want %s", row.what, got, row.want)
		}
		if row.one == "" {
			continue // two whole copies that differ: which of them rotted nobody can tell
		}
		d, _, _ = damageable(t)
		change(t, d, lastSegment, headerCopies[0], segmentHeaderSize, seal)
		if got := judge(t, d, 0); got != row.one {
			t.Errorf("%s, in the first copy: %s, want %s", row.what, got, row.one)
		}
	}
}

// TestStaleSegmentHeader: a copy of what the file once was, in either place,
// gives way to the newer copy.
func TestStaleSegmentHeader(t *testing.T) {
	for which, c := range headerCopies {
		d := fakedisk.New(1)
		j := create(t, d, small)
		appendN(t, j, 7, 5)
		ok(t, j.Truncate(5)) // another segment goes on
		appendN(t, j, 7, 2)
		syncAll(t, j)
		ok(t, j.Trim(5))
		old := bytesOf(t, d, "0001.seg", 0, segmentHeaderSize)
		for len(j.chain) < 2 { // the first one is used again
			appendN(t, j, 7, 1)
		}
		appendN(t, j, 7, 1)
		end := syncAll(t, j)
		ok(t, j.Close())
		change(t, d, "0001.seg", c, segmentHeaderSize, func(p []byte) {
			if bytes.Equal(p, old) {
				t.Fatal("the segment was not used again")
			}
			copy(p, old)
		})
		j, st, err := Open(d, small)
		ok(t, err)
		if st.End != end {
			t.Errorf("copy %d is stale: ends at %d, not %d", which, st.End, end)
		}
		verify(t, j, always(7))
		ok(t, j.Close())
	}
}

// TestForeignHeaderCopy: another segment's header in one copy's place.
func TestForeignHeaderCopy(t *testing.T) {
	d, _, _ := damageable(t)
	other := bytesOf(t, d, "0002.seg", 0, segmentHeaderSize)
	change(t, d, "0001.seg", headerCopies[1], segmentHeaderSize, func(p []byte) { copy(p, other) })
	if got := judge(t, d, 0); got != damaged {
		t.Error(got)
	}
}

// TestInvariant9cDamageOfOtherKinds: the same as TestInvariant9cDamageIsNoEnd
// for batches that were zeroed, torn, swapped, or say what cannot be.
func TestInvariant9cDamageOfOtherKinds(t *testing.T) {
	_, last, recs := damageable(t)
	n := len(last)
	header := func(how func(p []byte)) func(p []byte) {
		return func(p []byte) {
			how(p)
			sealBatch(p)
		}
	}
	type way struct {
		what string
		how  func(p []byte)
	}
	ways := []way{
		{"zeroed", func(p []byte) { clear(p) }},
		{"its header zeroed", func(p []byte) { clear(p[:batchHeaderSize]) }},
		{"length 0", header(func(p []byte) { le.PutUint32(p[8:], 0) })},
		{"less length than its header", header(func(p []byte) { le.PutUint32(p[8:], batchHeaderSize-1) })},
		{"less length than its records", header(func(p []byte) { le.PutUint32(p[8:], le.Uint32(p[8:])-1) })},
		{"a length past the segment", header(func(p []byte) { le.PutUint32(p[8:], smallSegment) })},
		{"the greatest length", header(func(p []byte) { le.PutUint32(p[8:], 1<<32-1) })},
		{"more records than it has room for", header(func(p []byte) { le.PutUint32(p[12:], 1<<20) })},
		{"the most records", header(func(p []byte) { le.PutUint32(p[12:], 1<<32-1) })},
		{"another journal id", header(func(p []byte) { le.PutUint64(p[16:], 77) })},
		{"another segment's number", header(func(p []byte) { le.PutUint64(p[24:], 1) })},
		{"another LSN", header(func(p []byte) { le.PutUint64(p[32:], le.Uint64(p[32:])-1) })},
		{"another seed", header(func(p []byte) { p[40] ^= 1 })},
		{"what is to be zero", header(func(p []byte) { p[44] = 1 })},
		{"what is to be zero, at its end", header(func(p []byte) { p[95] = 1 })},
	}
	for at := int64(512); at < last[n-1].Length; at += 512 {
		ways = append(ways,
			way{fmt.Sprintf("lost from byte %d on", at), func(p []byte) { clear(p[min(at, int64(len(p))):]) }},
			way{fmt.Sprintf("lost up to byte %d", at), func(p []byte) { clear(p[:min(at, int64(len(p)))]) }},
		)
	}
	// An older batch in a newer one's place; the records differ in length.
	d, _, _ := damageable(t)
	older := bytesOf(t, d, lastSegment, last[n-2].Off, last[n-2].Length)
	newer := bytesOf(t, d, lastSegment, last[n-1].Off, last[n-1].Length)
	ways = append(ways,
		way{"the other batch's bytes", func(p []byte) {
			other := older
			if bytes.Equal(p[:batchHeaderSize], older[:batchHeaderSize]) {
				other = newer
			}
			copy(p, other)
		}},
	)
	for _, w := range ways {
		for _, place := range []struct {
			what string
			name string
			off  int64
			n    int64
			want outcome
		}{
			{"in a full segment", "0001.seg", firstBatch, recs[1] - firstBatch + 2*HeaderSize + int64(sizeOf(1, 7)), damaged},
			{"durable", lastSegment, last[n-2].Off, last[n-2].Length, damaged},
			{"not noted as durable", lastSegment, last[n-1].Off, last[n-1].Length, shorter},
		} {
			d, _, _ := damageable(t)
			before := bytesOf(t, d, place.name, place.off, place.n)
			change(t, d, place.name, place.off, place.n, w.how)
			if bytes.Equal(before, bytesOf(t, d, place.name, place.off, place.n)) {
				continue // another batch's bytes were longer, or these were zeroes
			}
			if got := judge(t, d, 40); got != place.want {
				t.Errorf("batch %s, %s: %s, want %s", w.what, place.what, got, place.want)
			}
		}
	}
}

// TestRecordThatCannotBe: every field of a record out of its range, sealed again
// so that the CRC is right: its chain to the next one is not.
func TestRecordThatCannotBe(t *testing.T) {
	for what, how := range map[string]func(p []byte){
		"kind 0":                      func(p []byte) { p[40] = 0 },
		"a kind that is unknown":      func(p []byte) { p[40] = 5 },
		"flags that are unknown":      func(p []byte) { p[41] |= 0x80 },
		"what is to be zero":          func(p []byte) { p[47] = 1 },
		"another LSN":                 func(p []byte) { p[8]++ },
		"an offset that cannot be":    func(p []byte) { p[31] = 0x80 },
		"a write of another length":   func(p []byte) { p[32]++ },
		"a payload past its batch":    func(p []byte) { le.PutUint32(p[32:], MaxPayload); le.PutUint32(p[36:], MaxPayload) },
		"a payload that is too long":  func(p []byte) { le.PutUint32(p[32:], MaxPayload+1); le.PutUint32(p[36:], MaxPayload+1) },
		"no payload":                  func(p []byte) { le.PutUint32(p[36:], 0) },
		"another payload CRC":         func(p []byte) { p[4] ^= 1 },
		"a trim with a payload":       func(p []byte) { p[40] = byte(KindTrim) },
		"a generation with an offset": func(p []byte) { p[40] = byte(KindGeneration) },
	} {
		for lsn, want := range map[LSN]outcome{40: damaged, 42: shorter} {
			d, _, recs := damageable(t)
			prev := le.Uint32(bytesOf(t, d, lastSegment, recs[lsn-1], 4))
			change(t, d, lastSegment, recs[lsn], HeaderSize, func(p []byte) {
				how(p)
				le.PutUint32(p, crc32.Update(prev, Castagnoli, p[4:]))
			})
			if got := judge(t, d, 40); got != want {
				t.Errorf("record %d, %s: %s, want %s", lsn, what, got, want)
			}
		}
	}
}
