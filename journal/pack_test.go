package journal

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// roomy takes more records than small does.
var roomy = Options{Size: 64 * smallSegment, SegmentSize: smallSegment, AnySize: true}

// batches lists where the batches of the journal in d lie, by segment.
func batches(t *testing.T, d disk.FS) (all [][]BatchInfo) {
	t.Helper()
	_, err := Dump(d, roomy, Visitor{
		Segment: func(SegmentInfo) { all = append(all, nil) },
		Batch:   func(b BatchInfo) { all[len(all)-1] = append(all[len(all)-1], b) },
	})
	ok(t, err)
	return all
}

// TestBatchesShareAPage until a sync, and every record is found among them.
func TestBatchesShareAPage(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 0))
	d := fakedisk.New(1)
	j := create(t, d, roomy)
	for range 300 {
		if rng.IntN(10) == 0 {
			ok(t, j.Append(nil, Notes{Stable: j.End()}, true)) // one that only notes
		}
		appendN(t, j, 7, 1+rng.IntN(2))
	}
	verify(t, j, always(7))
	for range 200 {
		lsn := 1 + LSN(rng.IntN(int(j.End())))
		p := make([]byte, sizeOf(lsn, 7))
		ok(t, j.ReadPayload(lsn, 0, p))
		if string(p) != string(payload(lsn, 7, len(p))) {
			t.Fatalf("LSN %d has another payload", lsn)
		}
	}
	pages := 0
	for _, s := range j.chain {
		for i, b := range s.batches {
			if i > 0 && b.off/pageSize == s.batches[i-1].off/pageSize {
				t.Errorf("segment %s: two places in the index for the page at %d", s.name, b.off)
			}
		}
		pages += len(s.batches)
	}
	ok(t, j.Close())
	shared := 0
	for _, segment := range batches(t, d) {
		for i, b := range segment {
			if i > 0 && b.Off%pageSize != 0 {
				shared++
				if end := segment[i-1].Off + segment[i-1].Length; b.Off < end || b.Off >= end+batchAlign {
					t.Errorf("a batch at %d behind one that ends at %d", b.Off, end)
				}
			}
		}
	}
	if shared < 200 {
		t.Errorf("%d of some 330 batches begin in another's page", shared)
	}
	j = open(t, d, roomy)
	verify(t, j, always(7))
	appendN(t, j, 7, 1)
	if last := j.tail().batches[len(j.tail().batches)-1]; last.off%pageSize != 0 {
		t.Errorf("the first batch after Open is at %d, in a page that may be durable", last.off)
	}
	verify(t, j, always(7))
}

// TestFormat1JournalGoesOn: a journal whose segments are of version 1 is read,
// and goes on as one of version 2.
func TestFormat1JournalGoesOn(t *testing.T) {
	d := fakedisk.New(1)
	j := create(t, d, roomy)
	for range 20 {
		appendN(t, j, 7, 2)
		syncAll(t, j)
	}
	ok(t, j.Close())
	for _, segment := range batches(t, d) {
		for _, b := range segment {
			if b.Off%pageSize != 0 {
				t.Fatalf("a batch at %d; this is no journal of version 1", b.Off)
			}
		}
	}
	for _, name := range must(segmentNames(d))(t) {
		f := openRaw(t, d, name)
		for _, off := range headerCopies {
			_, err := f.WriteAt([]byte{1}, off+8)
			ok(t, err)
		}
	}
	j = open(t, d, roomy)
	for range 20 {
		appendN(t, j, 7, 3)
	}
	verify(t, j, always(7))
	if first := j.First(); first != 1 {
		t.Errorf("it begins at LSN %d", first)
	}
}

// pageWatch sees to it that no page of a file is written that has something
// durable in it.
type pageWatch struct {
	disk.File
	*watchedFS
	name string
	// held is the least LSN that a page has bytes of; writing counts the writes
	// to it that are under way.
	held    map[int64]LSN
	writing map[int64]int
}

// watchedFS is a directory whose files are watched. mu guards all of them.
type watchedFS struct {
	disk.FS
	t       *testing.T
	mu      sync.Mutex
	durable LSN
	files   []*pageWatch
}

func (d *watchedFS) watch(name string, f disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	w := &pageWatch{File: f, watchedFS: d, name: name, held: map[int64]LSN{}, writing: map[int64]int{}}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = append(d.files, w)
	return w, nil
}

func (d *watchedFS) Create(name string) (disk.File, error) {
	f, err := d.FS.Create(name)
	return d.watch(name, f, err)
}

func (d *watchedFS) Open(name string) (disk.File, error) {
	f, err := d.FS.Open(name)
	return d.watch(name, f, err)
}

func (f *pageWatch) WritevAt(bufs [][]byte, off int64) error {
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	first, count := LSN(le.Uint64(bufs[0][32:])), le.Uint32(bufs[0][12:])
	f.mu.Lock()
	for p := off / pageSize; p*pageSize < off+n; p++ {
		f.writing[p]++
		f.check(p)
		if count > 0 && f.held[p] == 0 {
			f.held[p] = first
		}
	}
	f.mu.Unlock()
	err := f.File.WritevAt(bufs, off)
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := off / pageSize; p*pageSize < off+n; p++ {
		f.writing[p]--
	}
	return err
}

// check is about one page. mu is held.
func (f *pageWatch) check(page int64) {
	if l := f.held[page]; l != 0 && l <= f.durable && f.writing[page] > 0 {
		f.t.Errorf("%s: page %d holds LSN %d, durable is %d, and it is being written", f.name, page, l, f.durable)
	}
}

// WriteAt is a header's, with which a segment begins anew.
func (f *pageWatch) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	clear(f.held)
	f.mu.Unlock()
	return f.File.WriteAt(p, off)
}

// synced is told what a sync said.
func (d *watchedFS) synced(durable LSN) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = max(d.durable, durable)
	for _, f := range d.files {
		for p := range f.writing {
			f.check(p)
		}
	}
}

// TestNoDurablePageIsWrittenAgain: batches share a page only as long as nothing
// in it is durable, however syncs and batches meet.
func TestNoDurablePageIsWrittenAgain(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 0))
	d := &watchedFS{FS: fakedisk.New(1), t: t}
	j := create(t, d, roomy)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				durable, err := j.Sync()
				if err != nil {
					t.Error(err)
					return
				}
				d.synced(durable)
			}
		})
	}
	for range 1000 {
		if err := j.Append(records(j.End(), j.EndCRC(), 7, 1+rng.IntN(3)), Notes{}, true); err != nil {
			t.Error(err)
			break
		}
		if j.Used() > roomy.Size/2 {
			if err := j.Trim(j.Durable()); err != nil {
				t.Error(err)
				break
			}
		}
	}
	close(done)
	wg.Wait()
	verify(t, j, always(7))
}
