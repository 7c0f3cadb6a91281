package journal

import (
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A reader has read ahead when the next batch is written where its window would
// end; it does not take what was there before for that batch.
func TestReaderReadsAheadOnlyWhatIsThere(t *testing.T) {
	j := create(t, fakedisk.New(1), small)
	appendN(t, j, 7, 1)
	r, err := j.NewReader(1)
	ok(t, err)
	defer r.Close()
	for lsn := LSN(1); lsn <= 40; lsn++ {
		var rec Record
		more, err := r.Next(&rec)
		ok(t, err)
		if !more {
			t.Fatalf("the reader ends before LSN %d", lsn)
		}
		ok(t, same(&rec, lsn, 7))
		drop(&rec)
		appendN(t, j, 7, 1)
		ok(t, j.Trim(j.End()-3))
	}
}

// NextHeader leaves the payloads of writes where they are, and only those; Next
// goes on behind it.
func TestNextHeader(t *testing.T) {
	j := create(t, fakedisk.New(1), small)
	g := &Record{LSN: 1, Generation: 7, Kind: KindGeneration, Flags: FlagLast, Payload: []byte("begins"), PayloadCRC: checksum([]byte("begins"))}
	ok(t, j.Append([]*Record{g, record(2, 7, g.Seal(j.EndCRC()))}, Notes{}, true))
	appendN(t, j, 7, 38)
	r, err := j.NewReader(1)
	ok(t, err)
	defer r.Close()
	for lsn := LSN(1); lsn <= 40; lsn++ {
		var rec Record
		next := r.NextHeader
		if lsn > 1 && lsn%3 == 0 {
			next = r.Next
		}
		more, err := next(&rec)
		ok(t, err)
		if !more || rec.LSN != lsn {
			t.Fatalf("LSN %d wanted, %d found", lsn, rec.LSN)
		}
		switch {
		case lsn == 1:
			if string(rec.Payload) != "begins" {
				t.Errorf("the generation record's payload is %q", rec.Payload)
			}
		case lsn%3 == 0:
			ok(t, same(&rec, lsn, 7))
		case rec.Payload != nil || rec.Buf != nil || rec.Kind == KindWrite && rec.Length != int64(sizeOf(lsn, 7)):
			t.Errorf("LSN %d: a payload, or %d bytes for %d", lsn, rec.Length, sizeOf(lsn, 7))
		}
		drop(&rec)
	}
	if more, err := r.NextHeader(&Record{}); more || err != nil {
		t.Errorf("past the end: %v, %v", more, err)
	}
}
