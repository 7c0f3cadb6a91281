package journal

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// FuzzRecord: a header that is taken encodes to the same bytes.
func FuzzRecord(f *testing.F) {
	var h [HeaderSize]byte
	for lsn := LSN(1); lsn < 9; lsn++ {
		record(lsn, 7, 5).EncodeHeader(h[:])
		f.Add(bytes.Clone(h[:]), uint32(5))
	}
	f.Fuzz(func(t *testing.T, p []byte, prev uint32) {
		var r Record
		if err := r.DecodeHeader(p, prev); err != nil {
			return
		}
		n, err := PayloadLen(p)
		ok(t, err)
		r.Payload = make([]byte, n)
		want := r.CRC
		if r.Seal(prev) != want {
			t.Fatalf("%x is taken, and encodes to another CRC", p)
		}
	})
}

// FuzzSegment opens a journal of two segments whose headers and first batches
// are anything: it opens, and reads whole, or fails; no panic, and memory
// bounded by MaxPayload.
func FuzzSegment(f *testing.F) {
	d := fakedisk.New(1)
	ok(f, Create(d, small))
	j, _, err := Open(d, small)
	ok(f, err)
	ok(f, j.Append(records(0, 0, 7, 40), Notes{Stable: 3}, true))
	ok(f, j.Close())
	const most = 3 * pageSize
	raw := func(name string) []byte {
		p := make([]byte, most)
		_, err := openRaw(f, d, name).ReadAt(p, 0)
		ok(f, err)
		return p
	}
	one, two := raw("0001.seg"), raw("0002.seg")
	f.Add(one, two, false)
	f.Add(two, one, false)
	f.Add(one, one, true)
	f.Add([]byte{}, two, true)
	f.Fuzz(func(t *testing.T, one, two []byte, fix bool) {
		d := fakedisk.New(1)
		for name, p := range map[string][]byte{"0001.seg": one, "0002.seg": two} {
			w, err := d.Create(name)
			ok(t, err)
			ok(t, w.Truncate(smallSegment))
			p = append([]byte(nil), p[:min(len(p), most)]...)
			if fix {
				fixCRCs(p)
			}
			_, err = w.WriteAt(p, 0)
			ok(t, err)
			ok(t, w.Close())
		}
		rep, cerr := Check(d, small)
		j, st, err := Open(d, small)
		if (cerr == nil) != (err == nil) {
			t.Fatalf("Check: %v; Open: %v", cerr, err)
		}
		if err != nil {
			return
		}
		defer j.Close()
		if st != rep.State {
			t.Fatalf("Check finds %+v, Open %+v", rep.State, st)
		}
		r, err := j.NewReader(j.First())
		ok(t, err)
		defer r.Close()
		for {
			var rec Record
			more, err := r.Next(&rec)
			ok(t, err)
			if !more {
				break
			}
			drop(&rec)
		}
	})
}

// fixCRCs makes the CRCs of the headers right, so that the fuzzer comes to what
// is behind them.
func fixCRCs(p []byte) {
	for _, off := range headerCopies {
		if int(off)+segmentHeaderSize <= len(p) {
			h := p[off:][:segmentHeaderSize]
			le.PutUint32(h[12:], checksum(h[16:]))
		}
	}
	if firstBatch+batchHeaderSize <= len(p) {
		h := p[firstBatch:][:batchHeaderSize]
		le.PutUint32(h[4:], checksum(h[8:]))
	}
}

// TestFormat2 holds the bytes of format version 2: a segment's header, and a
// batch of two records. A change of them needs another version.
func TestFormat2(t *testing.T) {
	h, b := exampleHeader(), exampleBatch()
	var head [segmentHeaderSize]byte
	h.encode(head[:])
	j := &Journal{}
	batch := []byte{}
	for _, p := range j.encode(&b, records(101, h.seed, 7, 2), 0) {
		batch = append(batch, p...)
	}
	got := hex.Dump(head[:]) + "\n" + hex.Dump(batch[:b.length])
	if os.Getenv("LOCKSTEP_UPDATE") != "" {
		ok(t, os.WriteFile(vectorPath(2), []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(vectorPath(2))
	ok(t, err)
	if got != string(want) {
		t.Errorf("the format has changed; LOCKSTEP_UPDATE=1 writes the new bytes:\n%s", got)
	}
}

// TestOldFormats: the vector of every version is read, and means the same.
func TestOldFormats(t *testing.T) {
	for version := oldestVersion; version <= FormatVersion; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			head, batch, _ := strings.Cut(string(must(os.ReadFile(vectorPath(version)))(t)), "\n\n")
			var h segmentHeader
			ok(t, h.decode(undump(t, head)))
			if h != exampleHeader() {
				t.Errorf("segment header %+v", h)
			}
			p := undump(t, batch)
			var b batchHeader
			want := exampleBatch()
			want.tag, want.length = 7, int64(len(p))
			if !b.decode(p, int64(len(p))) || b != want {
				t.Errorf("batch header %+v", b)
			}
			at, crc := batchHeaderSize, h.seed
			for lsn := LSN(102); lsn <= 103; lsn++ {
				var r Record
				ok(t, r.DecodeHeader(p[at:], crc))
				n := must(PayloadLen(p[at:]))(t)
				if r.Payload = p[at+HeaderSize:][:n]; n == 0 {
					r.Payload = []byte{}
				}
				ok(t, r.CheckPayload())
				ok(t, same(&r, lsn, 7))
				at, crc = at+HeaderSize+n, r.CRC
			}
		})
	}
}

func exampleHeader() segmentHeader {
	return segmentHeader{
		id: 0x1122334455667788, seq: 9, prev: 8, first: 102, seed: 0xdeadbeef, most: 16, size: 16 << 20, oldest: 5,
		notes: Notes{Stable: 90, Durable: 95, Checkpoint: 80, SuperblockSeq: 33},
	}
}

// exampleBatch is the header of LSN 102 and 103.
func exampleBatch() batchHeader {
	h := exampleHeader()
	return batchHeader{id: h.id, seq: h.seq, first: 102, prev: h.seed, count: 2, notes: h.notes}
}

func vectorPath(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("format%d.hex", version))
}

// undump is what hex.Dump made its argument of.
func undump(t *testing.T, dump string) (p []byte) {
	t.Helper()
	for line := range strings.Lines(dump) {
		digits, _, _ := strings.Cut(line, "|")
		for _, d := range strings.Fields(digits)[1:] {
			p = append(p, must(hex.DecodeString(d))(t)...)
		}
	}
	return p
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		ok(t, err)
		return v
	}
}
