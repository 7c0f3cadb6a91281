package journal

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// TestReadersBesideWriter: readers, payload reads, syncs and trims beside the
// appender, which recycles segments under them. A reader gets the right bytes
// or ErrTrimmed, never others.
func TestReadersBesideWriter(t *testing.T) {
	s := seed(t)
	j := create(t, fakedisk.New(s), small)
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range uint64(3) {
		wg.Go(func() { readUntil(t, j, &done, rand.New(rand.NewPCG(s, i))) })
	}
	wg.Go(func() {
		for last := LSN(0); !done.Load(); {
			end := j.End()
			durable, err := j.Sync()
			if err != nil || durable < end || durable < last {
				t.Errorf("sync at %d: durable up to %d, before %d: %v", end, durable, last, err)
				return
			}
			last = durable
		}
	})
	wg.Go(func() {
		for !done.Load() {
			if end := j.End(); end > 60 && j.Used() > j.Size()/2 {
				if err := j.Trim(end - 60); err != nil {
					t.Errorf("trim: %v", err)
					return
				}
			}
		}
	})
	rng := rand.New(rand.NewPCG(s, 9))
	for j.End() < 4000 && !t.Failed() {
		err := j.Append(records(j.End(), j.EndCRC(), 7, rng.IntN(8)), Notes{}, true)
		if err != nil && !errors.Is(err, ErrFull) {
			t.Errorf("append: %v", err)
			break
		}
	}
	done.Store(true)
	wg.Wait()
	verify(t, j, always(7))
}

// readUntil reads from where the journal begins, again and again.
func readUntil(t *testing.T, j *Journal, done *atomic.Bool, rng *rand.Rand) {
	for !done.Load() {
		lsn := j.First()
		r, err := j.NewReader(lsn)
		if errors.Is(err, ErrTrimmed) {
			continue
		}
		if err != nil {
			t.Errorf("new reader: %v", err)
			return
		}
		from := lsn
		for rng.IntN(300) > 0 {
			var rec Record
			var more bool
			if more, err = r.Next(&rec); !more {
				break
			}
			if serr := same(&rec, lsn, 7); serr != nil {
				t.Errorf("reader: %v", serr)
			}
			drop(&rec)
			lsn++
		}
		_ = r.Close()
		if err == nil && lsn > from {
			p := make([]byte, sizeOf(lsn-1, 7))
			err = j.ReadPayload(lsn-1, 0, p)
			if err == nil && string(p) != string(payload(lsn-1, 7, len(p))) {
				t.Errorf("payload of LSN %d: other bytes", lsn-1)
			}
		}
		if err != nil && !errors.Is(err, ErrTrimmed) {
			t.Errorf("reader at %d: %v", lsn, err)
			return
		}
	}
}

// TestGroupCommit: callers that wait while one syncs share the next sync.
func TestGroupCommit(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, small)
	appendN(t, j, 7, 1)
	const callers = 8
	var waiting atomic.Int32
	release := make(chan struct{})
	d.OnOp(func(op fakedisk.Op, _ string) error {
		if op == fakedisk.OpDatasync {
			<-release
		}
		return nil
	})
	before := d.Count(fakedisk.OpDatasync)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			waiting.Add(1)
			if _, err := j.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
	for waiting.Load() < callers {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if n := d.Count(fakedisk.OpDatasync) - before; n != 1 {
		t.Errorf("%d syncs for %d callers with nothing new between them", n, callers)
	}
}

// TestAppendAllocatesNothing, beyond what the disk does.
func TestAppendAllocatesNothing(t *testing.T) {
	o := Options{Size: 64 << 20, SegmentSize: 16 << 20}
	d := fakedisk.New(1)
	j := create(t, d, o)
	recs := records(0, 0, 7, 8)
	h := batchHeader{}
	j.encode(&h, recs, 0) // grows the scratch
	if n := testing.AllocsPerRun(100, func() { j.encode(&h, recs, 0) }); n != 0 {
		t.Errorf("%v allocations to lay out a batch", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := j.checkAppend(recs, true); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations to check a batch", n)
	}
}
