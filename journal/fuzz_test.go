package journal

import (
	"bytes"
	"encoding/hex"
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

// TestFormat1 holds the bytes of format version 1: a segment's header, and a
// batch of two records. A change of them needs another version.
func TestFormat1(t *testing.T) {
	h := segmentHeader{
		id: 0x1122334455667788, seq: 9, prev: 8, first: 102, seed: 0xdeadbeef, most: 16, size: 16 << 20, oldest: 5,
		notes: Notes{Stable: 90, Durable: 95, Checkpoint: 80, SuperblockSeq: 33},
	}
	var head [segmentHeaderSize]byte
	h.encode(head[:])
	var back segmentHeader
	if err := back.decode(head[:]); err != nil || back != h {
		t.Errorf("decoded %+v, %v", back, err)
	}
	b := batchHeader{id: h.id, seq: h.seq, first: 102, prev: h.seed, count: 2, notes: h.notes}
	j := &Journal{}
	batch := []byte{}
	for _, p := range j.encode(&b, records(101, h.seed, 7, 2)) {
		batch = append(batch, p...)
	}
	got := hex.Dump(head[:]) + "\n" + hex.Dump(batch[:b.length])
	path := filepath.Join("testdata", "format1.hex")
	want, err := os.ReadFile(path)
	if os.Getenv("LOCKSTEP_UPDATE") != "" {
		ok(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	ok(t, err)
	if got != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("the format has changed; LOCKSTEP_UPDATE=1 writes the new bytes:\n%s", got)
	}
}
