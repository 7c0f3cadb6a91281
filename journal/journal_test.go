package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

func TestAppendOpenRead(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	for n := range 40 {
		appendN(t, j, 7, n%5)
	}
	if end := syncAll(t, j); end != 80 || j.Durable() != 80 {
		t.Fatalf("durable up to %d, of 80", end)
	}
	verify(t, j, always(7))
	ok(t, j.Close())
	j, st, err := Open(d, small)
	ok(t, err)
	defer j.Close()
	if st.First != 1 || st.End != 80 || st.LastEnd != 80 || st.EndCRC != j.EndCRC() {
		t.Fatalf("state %+v", st)
	}
	verify(t, j, always(7))
	appendN(t, j, 7, 3)
	verify(t, j, always(7))
}

func TestOpenFindsTheSizes(t *testing.T) {
	d := fakedisk.New(1)
	create(t, d, small)
	j := open(t, d, Options{})
	if j.Size() != small.Size || j.SegmentSize() != small.SegmentSize {
		t.Errorf("%d bytes in segments of %d", j.Size(), j.SegmentSize())
	}
	wantErr(t, "create again", Create(d, small), fs.ErrExist)
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{Size: 1 << 20}, {SegmentSize: 1 << 20}, {SegmentSize: 5<<20 + 1},
		{Size: 64 << 20, SegmentSize: 32 << 20}, {Size: -1}, {Size: 1 << 50, SegmentSize: 4 << 20},
	} {
		if err := Create(fakedisk.New(1), o); err == nil {
			t.Errorf("%d bytes in segments of %d were taken", o.Size, o.SegmentSize)
		}
	}
}

// TestInvariant5TrimMakesRoom: a full journal takes more once it is trimmed,
// and its segments are recycled, not multiplied.
func TestInvariant5TrimMakesRoom(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	fill := func(reserve bool) {
		for {
			err := j.Append(records(j.End(), j.EndCRC(), 7, 3), Notes{}, reserve)
			if errors.Is(err, ErrFull) {
				return
			}
			ok(t, err)
		}
	}
	for range 5 {
		fill(false)
		kept := j.End()
		fill(true)
		if j.End() < kept+10 {
			t.Fatalf("nothing was kept back: %d records", j.End()-kept)
		}
		if j.Used() > j.Size() {
			t.Fatalf("%d bytes of %d in use", j.Used(), j.Size())
		}
		verify(t, j, always(7))
		end, first := j.End(), j.First()
		ok(t, j.Trim(end-40))
		if j.First() <= first || j.First() > end-39 {
			t.Fatalf("begins at %d after a trim up to %d", j.First(), end-40)
		}
	}
	ok(t, j.Trim(j.End()))
	if j.First() > j.End()+1 || j.Used() > smallSegment {
		t.Fatalf("trimmed: %d to %d, %d bytes in use", j.First(), j.End(), j.Used())
	}
	names, err := segmentNames(d)
	ok(t, err)
	if len(names) != 8 {
		t.Errorf("segments %q", names)
	}
}

func TestErrFullWritesNothing(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	appendN(t, j, 7, 10)
	used := j.Used()
	wantErr(t, "more than there is", j.Append(records(j.End(), j.EndCRC(), 7, 400), Notes{}, true), ErrFull)
	if j.Used() != used || j.End() != 10 {
		t.Error("something was written")
	}
	d.FailFrom(fakedisk.OpCreate, 0, syscall.ENOSPC)
	err := j.Append(records(j.End(), j.EndCRC(), 7, 60), Notes{}, true)
	wantErr(t, "no space for a segment", err, ErrFull)
	wantErr(t, "no space for a segment", err, syscall.ENOSPC)
	appendN(t, j, 7, 1)
	verify(t, j, always(7))
}

// TestInvariant9FailedSyncIsFinal, and a failed write too.
func TestInvariant9FailedSyncIsFinal(t *testing.T) {
	for _, op := range []fakedisk.Op{fakedisk.OpDatasync, fakedisk.OpWrite} {
		d := fakedisk.New(1)
		j := create(t, d, small)
		appendN(t, j, 7, 3)
		syncAll(t, j)
		d.Fail(op, 0, syscall.EIO)
		err := j.Append(records(j.End(), j.EndCRC(), 7, 1), Notes{}, true)
		if err == nil {
			_, err = j.Sync()
		}
		wantErr(t, "the first failure", err, syscall.EIO)
		_, err = j.Sync()
		wantErr(t, "sync after it", err, ErrFailed)
		wantErr(t, "append after it", j.Append(nil, Notes{}, true), ErrFailed)
		wantErr(t, "truncate after it", j.Truncate(1), ErrFailed)
		wantErr(t, "reset after it", j.Reset(1, 0), ErrFailed)
		if j.Durable() != 3 {
			t.Errorf("durable up to %d", j.Durable())
		}
	}
}

func TestClosed(t *testing.T) {
	j := create(t, fakedisk.New(1), small)
	appendN(t, j, 7, 3)
	r, err := j.NewReader(1)
	ok(t, err)
	ok(t, j.Close())
	ok(t, j.Close())
	var rec Record
	_, err = r.Next(&rec)
	wantErr(t, "read", err, ErrClosed)
	_, err = j.Sync()
	wantErr(t, "sync", err, ErrClosed)
	_, err = j.NewReader(1)
	wantErr(t, "new reader", err, ErrClosed)
	wantErr(t, "append", j.Append(nil, Notes{}, true), ErrClosed)
	wantErr(t, "trim", j.Trim(1), ErrClosed)
	wantErr(t, "payload", j.ReadPayload(1, 0, nil), ErrClosed)
}

func TestTruncate(t *testing.T) {
	for _, c := range []LSN{0, 1, 59, 60, 99, 100} { // 1 to 60 and 61 to 100 are batches
		d := fakedisk.New(1)
		j := create(t, d, small)
		appendN(t, j, 7, 60)
		appendN(t, j, 7, 40)
		behind, err := j.NewReader(1)
		ok(t, err)
		ok(t, j.Truncate(c))
		if j.End() != c || j.Durable() != c {
			t.Fatalf("truncated to %d: ends at %d, durable %d", c, j.End(), j.Durable())
		}
		gen := func(l LSN) uint64 {
			if l > c {
				return 8
			}
			return 7
		}
		verify(t, j, gen)
		appendN(t, j, 8, 45)
		verify(t, j, gen)
		for lsn := range c + 1 {
			if lsn > 0 {
				var rec Record
				_, err := behind.Next(&rec)
				ok(t, err)
				ok(t, same(&rec, lsn, 7))
				drop(&rec)
			}
		}
		syncAll(t, j)
		ok(t, j.Close())
		j = open(t, d.CrashClone(fakedisk.LoseAll), small)
		if j.End() != c+45 {
			t.Fatalf("truncated to %d and appended 45: ends at %d", c, j.End())
		}
		verify(t, j, gen)
	}
	j := create(t, fakedisk.New(1), small)
	if j.Truncate(1) == nil {
		t.Error("truncated past the end")
	}
}

// TestTruncateOften: a full journal can still be truncated, and the segments
// that come on top are used again.
func TestTruncateOften(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	for range 40 {
		if err := j.Append(records(j.End(), j.EndCRC(), 7, 30), Notes{}, true); err != nil {
			wantErr(t, "append", err, ErrFull)
			ok(t, j.Trim(j.End()-50))
		}
		ok(t, j.Truncate(max(j.First(), j.End()-5)))
		verify(t, j, always(7))
	}
}

func TestReset(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	appendN(t, j, 7, 60)
	r, err := j.NewReader(5)
	ok(t, err)
	ok(t, j.Reset(1001, 0xabcd))
	var rec Record
	_, err = r.Next(&rec)
	wantErr(t, "a reader from before", err, ErrTrimmed)
	for range 2 {
		if j.First() != 1001 || j.End() != 1000 || j.EndCRC() != 0xabcd {
			t.Fatalf("%d to %d, CRC %x", j.First(), j.End(), j.EndCRC())
		}
		verify(t, j, always(7))
		j = open(t, d.CrashClone(fakedisk.LoseAll), small)
	}
	appendN(t, j, 7, 150)
	verify(t, j, always(7))
}

// TestNotes: the greatest of each is found again, whatever was trimmed, rolled
// or truncated since; Durable is the journal's own.
func TestNotes(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	appendN(t, j, 7, 20)
	syncAll(t, j)
	ok(t, j.Append(nil, Notes{Stable: 18, Durable: 99, Checkpoint: 12, SuperblockSeq: 5}, true))
	reopen := func(want Notes) {
		t.Helper()
		syncAll(t, j)
		k, st, err := Open(d.CrashClone(fakedisk.LoseAll), small)
		ok(t, err)
		ok(t, k.Close())
		if st.Noted.Durable < want.Durable || st.Noted.Durable > st.End {
			t.Fatalf("noted as durable up to %d, at least %d of %d are", st.Noted.Durable, want.Durable, st.End)
		}
		want.Durable = st.Noted.Durable
		if st.Noted != want {
			t.Fatalf("noted %+v, want %+v", st.Noted, want)
		}
	}
	want := Notes{Stable: 18, Durable: 20, Checkpoint: 12, SuperblockSeq: 5}
	reopen(want)
	appendN(t, j, 7, 60) // rolls
	ok(t, j.Trim(j.End()))
	if j.First() == 1 {
		t.Fatal("nothing was trimmed")
	}
	reopen(want)
	ok(t, j.Truncate(j.End()-1))
	ok(t, j.Append(nil, Notes{}, true))
	reopen(want)
	ok(t, j.Truncate(19+60))
	ok(t, j.Reset(16, 0))
	reopen(Notes{Stable: 15, Durable: 15, Checkpoint: 12, SuperblockSeq: 5})
}

func TestReadPayload(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	appendN(t, j, 7, 30)
	appendN(t, j, 7, 30)
	for lsn := LSN(1); lsn <= 60; lsn++ {
		want := payload(lsn, 7, sizeOf(lsn, 7))
		skip := len(want) / 3
		p := make([]byte, len(want)-skip)
		ok(t, j.ReadPayload(lsn, int64(skip), p))
		if !bytes.Equal(p, want[skip:]) {
			t.Fatalf("LSN %d: another payload", lsn)
		}
	}
	if j.ReadPayload(61, 0, nil) == nil || j.ReadPayload(1, 0, make([]byte, 10000)) == nil || j.ReadPayload(1, -1, nil) == nil {
		t.Error("read what is not there")
	}
	ok(t, j.Trim(60))
	wantErr(t, "trimmed", j.ReadPayload(1, 0, nil), ErrTrimmed)
}

// What comes before a record in its batch, of whatever kind, leaves nothing behind:
// here a generation, which has a payload, and then a trim, which has none.
func TestReadPayloadBehindOtherKinds(t *testing.T) {
	j := create(t, fakedisk.New(1), small)
	g := &Record{LSN: 1, Generation: 7, Kind: KindGeneration, Flags: FlagLast, Payload: []byte("begins"), PayloadCRC: checksum([]byte("begins"))}
	batch := append([]*Record{g}, records(1, g.Seal(j.EndCRC()), 7, 7)...)
	ok(t, j.Append(batch, Notes{}, true))
	trims := 0
	for _, r := range batch {
		if r.Kind == KindTrim {
			trims++
			continue
		}
		p := make([]byte, len(r.Payload))
		ok(t, j.ReadPayload(r.LSN, 0, p))
		if !bytes.Equal(p, r.Payload) {
			t.Errorf("LSN %d: another payload", r.LSN)
		}
	}
	if trims == 0 {
		t.Error("the batch has no trim")
	}
}

// To read one record of a batch of thousands takes a bounded number of reads, of a
// journal that was appended to, opened again, or cut within that batch.
func TestReadPayloadOfALongBatch(t *testing.T) {
	const n, gen = 3000, shortRecords
	d := fakedisk.New(seed(t))
	o := Options{Size: 8 << 20, SegmentSize: 1 << 20, AnySize: true}
	j := create(t, d, o)
	ok(t, j.Append(records(0, j.EndCRC(), gen, n), Notes{}, true))
	ok(t, j.Append(records(n, j.EndCRC(), gen, 3), Notes{}, true))
	check := func(what string, j *Journal) {
		t.Helper()
		for lsn := LSN(1); lsn <= j.End(); lsn++ {
			want := payload(lsn, gen, sizeOf(lsn, gen))
			p := make([]byte, len(want))
			before := d.Count(fakedisk.OpRead)
			ok(t, j.ReadPayload(lsn, 0, p))
			if reads := d.Count(fakedisk.OpRead) - before; reads > markEvery+3 {
				t.Fatalf("%s: LSN %d took %d reads", what, lsn, reads)
			}
			if !bytes.Equal(p, want) {
				t.Fatalf("%s: LSN %d: another payload", what, lsn)
			}
		}
	}
	check("appended", j)
	syncAll(t, j)
	ok(t, j.Close())
	j = open(t, d, o)
	check("opened", j)
	ok(t, j.Truncate(n/2))
	ok(t, j.Append(records(n/2, j.EndCRC(), gen, n), Notes{}, true))
	check("cut", j)
	verify(t, j, always(gen))
}

func TestReaderFromAnywhere(t *testing.T) {
	j := create(t, fakedisk.New(1), small)
	appendN(t, j, 7, 25)
	appendN(t, j, 7, 25)
	for from := LSN(1); from <= 51; from++ {
		r, err := j.NewReader(from)
		ok(t, err)
		var rec Record
		more, err := r.Next(&rec)
		ok(t, err)
		if more != (from <= 50) || more && same(&rec, from, 7) != nil {
			t.Fatalf("from %d: %v, LSN %d", from, more, rec.LSN)
		}
		drop(&rec)
		ok(t, r.Close())
	}
	if _, err := j.NewReader(52); err == nil {
		t.Error("a reader past the end")
	}
	_, err := j.NewReader(0)
	wantErr(t, "before the beginning", err, ErrTrimmed)
}

// TestReaderSeesTruncation: a reader that returned what was truncated since
// does not go on with what came in its place.
func TestReaderSeesTruncation(t *testing.T) {
	j := create(t, fakedisk.New(1), small)
	appendN(t, j, 7, 30)
	r, err := j.NewReader(21)
	ok(t, err)
	var rec Record
	for range 5 {
		_, err := r.Next(&rec)
		ok(t, err)
		drop(&rec)
	}
	ok(t, j.Truncate(22))
	appendN(t, j, 8, 30)
	_, err = r.Next(&rec)
	wantErr(t, "after the truncation", err, ErrTrimmed)
}

func TestAppendPanicsOnABrokenChain(t *testing.T) {
	j := create(t, fakedisk.New(1), small)
	for name, recs := range map[string][]*Record{"gap": records(1, 0, 7, 1), "CRC": records(0, 1, 7, 1)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			_ = j.Append(recs, Notes{}, true)
		}()
	}
}
