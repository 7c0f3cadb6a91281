package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// small is a journal of eight segments of 64 KiB, so that a short test rolls
// and recycles.
var small = Options{Size: 8 * smallSegment, SegmentSize: smallSegment, AnySize: true}

const smallSegment = 64 << 10

// seed is the random tests' seed: LOCKSTEP_SEED, or drawn.
func seed(t testing.TB) uint64 {
	n := rand.Uint64N(1 << 32)
	if s := os.Getenv("LOCKSTEP_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("LOCKSTEP_SEED: %v", err)
		}
	}
	t.Logf("LOCKSTEP_SEED=%d", n)
	return n
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// payload is the content of a record, from its identity: a sector of what
// testdata/format1.hex has, and cheaper bytes behind it.
func payload(lsn LSN, gen uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(lsn), gen))
	p := make([]byte, (n+7)&^7)
	for i := range min(n, 512) {
		p[i] = byte(rng.Uint32())
	}
	x := rng.Uint64() | 1
	for i := 512; i < len(p); i += 8 {
		x ^= x << 13 // xorshift
		x ^= x >> 7
		x ^= x << 17
		le.PutUint64(p[i:], x)
	}
	return p[:n]
}

// shortRecords is the first generation whose records, with their headers, have
// less than a sector.
const shortRecords = 1 << 20

// size of the payload of a record: some have none.
func sizeOf(lsn LSN, gen uint64) int {
	k := (uint64(lsn)*7 + gen) % 8
	if gen >= shortRecords {
		return []int{100, 0, 1, 300, 48, 0, 200, 8}[k]
	}
	return []int{512, 0, 4096, 100, 9000, 512, 3952, 1}[k]
}

// record makes the record that the test has at lsn in generation gen.
func record(lsn LSN, gen uint64, prev uint32) *Record {
	r := &Record{LSN: lsn, Generation: gen, Offset: int64(lsn) << 12, Kind: KindWrite, Flags: FlagLast}
	if n := sizeOf(lsn, gen); n > 0 {
		r.Payload = payload(lsn, gen, n)
		r.PayloadCRC = crc32.Checksum(r.Payload, Castagnoli)
		r.Length = int64(n)
	} else {
		r.Kind, r.Length = KindTrim, 8192
	}
	r.Seal(prev)
	return r
}

// records makes n records that follow on end.
func records(end LSN, crc uint32, gen uint64, n int) (recs []*Record) {
	for range n {
		end++
		r := record(end, gen, crc)
		crc = r.CRC
		recs = append(recs, r)
	}
	return recs
}

// appendN appends n records of a generation, in one batch.
func appendN(t testing.TB, j *Journal, gen uint64, n int) {
	t.Helper()
	ok(t, j.Append(records(j.End(), j.EndCRC(), gen, n), Notes{}, true))
}

func create(t testing.TB, d disk.FS, o Options) *Journal {
	t.Helper()
	ok(t, Create(d, o))
	return open(t, d, o)
}

func open(t testing.TB, d disk.FS, o Options) *Journal {
	t.Helper()
	j, _, err := Open(d, o)
	ok(t, err)
	t.Cleanup(func() { ok(t, j.Close()) })
	return j
}

func syncAll(t testing.TB, j *Journal) LSN {
	t.Helper()
	lsn, err := j.Sync()
	ok(t, err)
	return lsn
}

// verify reads the whole journal and compares every record with the one that
// the test has of its LSN, whose generation gen tells.
func verify(t testing.TB, j *Journal, gen func(LSN) uint64) {
	t.Helper()
	r, err := j.NewReader(j.First())
	ok(t, err)
	defer r.Close()
	for lsn := j.First(); lsn <= j.End(); lsn++ {
		var rec Record
		more, err := r.Next(&rec)
		ok(t, err)
		if !more {
			t.Fatalf("the reader ends before LSN %d, the journal at %d", lsn, j.End())
		}
		ok(t, same(&rec, lsn, gen(lsn)))
		drop(&rec)
	}
	var rec Record
	if more, err := r.Next(&rec); more || err != nil {
		t.Fatalf("past the end: %v, %v", more, err)
	}
}

func same(r *Record, lsn LSN, gen uint64) error {
	if r.LSN != lsn || r.Generation != gen || !bytes.Equal(r.Payload, payload(lsn, gen, sizeOf(lsn, gen))) {
		return fmt.Errorf("LSN %d, generation %d wanted; found LSN %d, generation %d, or another payload", lsn, gen, r.LSN, r.Generation)
	}
	return nil
}

func always(gen uint64) func(LSN) uint64 { return func(LSN) uint64 { return gen } }

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v; wanted: %v", what, err, want)
	}
}

// disk of an FS that a test damages.
func openRaw(t testing.TB, d *fakedisk.FS, name string) disk.File {
	t.Helper()
	f, err := d.Open(name)
	ok(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func mustCreate(t testing.TB, d *fakedisk.FS, name string) disk.File {
	t.Helper()
	f, err := d.Create(name)
	ok(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func checksum(p []byte) uint32 { return crc32.Checksum(p, Castagnoli) }
