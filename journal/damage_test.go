package journal

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// outcome is what Open must make of a damaged journal.
type outcome string

const (
	healed  outcome = "opens whole"
	shorter outcome = "opens without its end"
	damaged outcome = "ErrDamaged"
	version outcome = "ErrVersion"
)

// lastSegment is the last one of the journal that damageable makes.
const lastSegment = "0003.seg"

// damageable makes a journal to be damaged: three segments, of which the last
// holds a batch up to LSN 40, noted as durable, and one with 41 and 42 that is
// not. It returns the last segment's batches and where each record lies.
func damageable(t *testing.T) (d *fakedisk.FS, last []BatchInfo, recs map[LSN]int64) {
	d = fakedisk.New(1)
	j := create(t, d, small)
	for i := range 8 {
		appendN(t, j, 7, 5)
		if i < 6 { // the last ones share a page
			syncAll(t, j)
		}
	}
	syncAll(t, j)
	appendN(t, j, 7, 2) // notes 40 as durable
	syncAll(t, j)
	recs = map[LSN]int64{}
	name := ""
	_, err := Dump(d, small, Visitor{
		Segment: func(s SegmentInfo) { last, name = nil, s.Name },
		Batch:   func(b BatchInfo) { last = append(last, b) },
		Record:  func(off int64, r *Record) { recs[r.LSN] = off },
	})
	ok(t, err)
	if n := len(last); n < 2 || last[n-1].First != 41 || name != lastSegment {
		t.Fatalf("batches of the last segment, %s: %+v", name, last)
	}
	return d, last, recs
}

// flip turns the lowest bit of a byte.
func flip(t *testing.T, d *fakedisk.FS, name string, off int64) {
	t.Helper()
	f := openRaw(t, d, name)
	var b [1]byte
	_, err := f.ReadAt(b[:], off)
	ok(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], off)
	ok(t, err)
}

func judge(t *testing.T, d *fakedisk.FS, end LSN) outcome {
	t.Helper()
	j, st, err := Open(d, small)
	switch {
	case err == nil && st.End == 42:
		verify(t, j, always(7))
		ok(t, j.Close())
		return healed
	case err == nil && st.End == end:
		verify(t, j, always(7))
		ok(t, j.Close())
		return shorter
	case err == nil:
		ok(t, j.Close())
		return outcome(fmt.Sprintf("ends at %d", st.End))
	}
	for _, sentinel := range []struct {
		err  error
		what outcome
	}{{ErrDamaged, damaged}, {ErrVersion, version}} {
		if strings.Contains(err.Error(), sentinel.err.Error()) {
			if sentinel.what == damaged && !strings.Contains(err.Error(), ".seg") {
				t.Errorf("the error does not name the segment: %v", err)
			}
			return sentinel.what
		}
	}
	return outcome(err.Error())
}

// TestDamagedSegmentHeader has one row per field: one copy is enough, and
// neither is damage, or another version.
func TestDamagedSegmentHeader(t *testing.T) {
	for _, field := range []struct {
		name string
		off  int64
		both outcome
	}{
		{"magic", 0, damaged}, {"version", 8, version}, {"CRC", 12, damaged}, {"journal id", 16, damaged},
		{"sequence number", 24, damaged}, {"previous one", 32, damaged}, {"first LSN", 40, damaged},
		{"seed", 48, damaged}, {"most segments", 52, damaged}, {"size", 56, damaged}, {"oldest", 64, damaged},
		{"noted stable", 72, damaged}, {"noted durable", 80, damaged}, {"noted checkpoint", 88, damaged},
		{"noted superblock", 96, damaged},
	} {
		for _, name := range []string{"0001.seg", lastSegment} {
			for _, which := range []struct {
				name   string
				copies []int64
				want   outcome
			}{{"first copy", headerCopies[:1], healed}, {"second copy", headerCopies[1:], healed}, {"both", headerCopies[:], field.both}} {
				d, _, _ := damageable(t)
				for _, c := range which.copies {
					flip(t, d, name, c+field.off)
				}
				if got := judge(t, d, 0); got != which.want {
					t.Errorf("%s, %s of the header, %s: %s, want %s", name, field.name, which.name, got, which.want)
				}
				if which.want != healed {
					continue
				}
				// Open has mended it: the other copy may go now.
				for _, c := range headerCopies {
					if c != which.copies[0] {
						flip(t, d, name, c+field.off)
					}
				}
				if got := judge(t, d, 0); got != healed {
					t.Errorf("%s, %s of the header, %s mended: %s", name, field.name, which.name, got)
				}
			}
		}
	}
}

// TestInvariant9cDamageIsNoEnd has one row per field of batch and record: below
// the noted durable LSN it is damage, above it the journal's end.
func TestInvariant9cDamageIsNoEnd(t *testing.T) {
	batchFields := map[string]int64{
		"magic": 0, "CRC": 4, "length": 8, "count": 12, "journal id": 16, "segment": 24, "first LSN": 32,
		"seed": 40, "generation": 48, "stable": 56, "durable": 64, "checkpoint": 72, "superblock": 80, "zero": 88,
	}
	recordFields := map[string]int64{
		"CRC": 0, "payload CRC": 4, "LSN": 8, "generation": 16, "offset": 24, "length": 32,
		"payload length": 36, "kind": 40, "flags": 41, "zero": 42, "payload": HeaderSize,
	}
	_, last, recs := damageable(t)
	n := len(last)
	type row struct {
		what string
		name string
		off  int64
		want outcome
		end  LSN
	}
	var rows []row
	for field, off := range batchFields {
		rows = append(rows,
			row{"batch in a full segment: " + field, "0001.seg", firstBatch + off, damaged, 0},
			row{"durable batch: " + field, lastSegment, last[n-2].Off + off, damaged, 0},
			row{"batch not noted as durable: " + field, lastSegment, last[n-1].Off + off, shorter, 40},
		)
	}
	for field, off := range recordFields {
		rows = append(rows,
			row{"record in a full segment: " + field, "0001.seg", recs[1] + off, damaged, 0},
			row{"durable record: " + field, lastSegment, recs[40] + off, damaged, 0},
			row{"record not noted as durable: " + field, lastSegment, recs[42] + off, shorter, 40},
		)
	}
	if sizeOf(1, 7) == 0 || sizeOf(40, 7) == 0 || sizeOf(42, 7) == 0 {
		t.Fatal("the records have no payload")
	}
	for _, r := range rows {
		d, _, _ := damageable(t)
		flip(t, d, r.name, r.off)
		rep, err := Check(d, small)
		if (err == nil) != (r.want == shorter) || err == nil && rep.End != r.end {
			t.Errorf("%s: Check finds the end %d, %v", r.what, rep.End, err)
		}
		if got := judge(t, d, r.end); got != r.want {
			t.Errorf("%s: %s, want %s", r.what, got, r.want)
		}
	}
}

// TestMissingSegment: one that is gone, of another size, or another's.
func TestMissingSegment(t *testing.T) {
	for what, harm := range map[string]func(d *fakedisk.FS) error{
		"removed":  func(d *fakedisk.FS) error { return d.Remove("0001.seg") },
		"all":      func(d *fakedisk.FS) error { return d.Rename("0001.seg", "x") },
		"replaced": func(d *fakedisk.FS) error { return d.Rename("0002.seg", "0001.seg") },
		"short": func(d *fakedisk.FS) error {
			f, err := d.Open("0001.seg")
			if err != nil {
				return err
			}
			return f.Truncate(smallSegment - 1)
		},
	} {
		d, _, _ := damageable(t)
		ok(t, harm(d))
		if got := judge(t, d, 0); got != damaged {
			t.Errorf("%s: %s", what, got)
		}
	}
	_, _, err := Open(fakedisk.New(1), small)
	wantErr(t, "no journal at all", err, ErrDamaged)
}

// TestForeignSegment: a segment of another journal in the place of ours.
func TestForeignSegment(t *testing.T) {
	d, _, _ := damageable(t)
	other, _, _ := damageable(t)
	ok(t, d.Remove("0001.seg"))
	from, to := openRaw(t, other, "0001.seg"), mustCreate(t, d, "0001.seg")
	p := make([]byte, smallSegment)
	_, err := from.ReadAt(p, 0)
	ok(t, err)
	_, err = to.WriteAt(p, 0)
	ok(t, err)
	_, _, err = Open(d, small)
	wantErr(t, "a foreign segment", err, ErrDamaged)
	if !strings.Contains(err.Error(), "is of journal") {
		t.Errorf("the error does not say so: %v", err)
	}
}

// TestInvariant9cOldRecordsStayDead: recycled segments are full of old records
// with good CRCs, right behind the new ones; none of them returns.
func TestInvariant9cOldRecordsStayDead(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	for gen := uint64(1); gen <= 12; gen++ {
		for range 5 {
			appendN(t, j, gen, 9)
		}
		syncAll(t, j)
		ok(t, j.Trim(j.End()-20))
		c := j.End() - 7
		ok(t, j.Truncate(c)) // the next generation's records take these LSNs
		k, st, err := Open(d.CrashClone(fakedisk.KeepAll), small)
		ok(t, err)
		if st.End != c {
			t.Fatalf("generation %d: truncated to %d, ends at %d", gen, c, st.End)
		}
		ok(t, k.Close())
	}
}

// TestInvariant9cHistoryDecides: what the history refuses is cut at Open, for
// good, wherever it lies; it does not come back under another history.
func TestInvariant9cHistoryDecides(t *testing.T) {
	for c := LSN(1); c < 60; c += 7 {
		d := fakedisk.New(1)
		j := create(t, d, small)
		for range 12 {
			appendN(t, j, 7, 5)
			syncAll(t, j)
		}
		ok(t, j.Close())
		o := small
		o.Valid = func(lsn LSN, gen uint64) bool { return lsn <= c }
		rep, err := Check(d, o)
		ok(t, err)
		if rep.End != c || !rep.Torn {
			t.Fatalf("valid up to %d: %+v", c, rep)
		}
		j, st, err := Open(d, o)
		ok(t, err)
		if st.End != c || j.End() != c {
			t.Fatalf("valid up to %d: ends at %d", c, st.End)
		}
		ok(t, j.Close())
		j = open(t, d.CrashClone(fakedisk.LoseAll), small) // all is valid again
		if j.End() != c {
			t.Fatalf("cut at %d, ends at %d under another history", c, j.End())
		}
		verify(t, j, always(7))
	}
}

// TestReaderFindsRot: bits that turn under an open journal.
func TestReaderFindsRot(t *testing.T) {
	d, _, recs := damageable(t)
	j := open(t, d, small)
	flip(t, d, lastSegment, recs[40]+HeaderSize)
	r, err := j.NewReader(40)
	ok(t, err)
	defer r.Close()
	var rec Record
	_, err = r.Next(&rec)
	wantErr(t, "read", err, ErrDamaged)
	wantErr(t, "payload", j.ReadPayload(40, 0, make([]byte, 1)), ErrDamaged)
}
