package journal

import (
	"hash/crc32"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
)

// nowhere is a directory whose files take writes and syncs and do nothing: what
// a file costs is package disk's affair.
type nowhere struct{ disk.FS }

func (d nowhere) Create(name string) (disk.File, error) {
	f, err := d.FS.Create(name)
	return nowhereFile{f}, err
}

func (d nowhere) Open(name string) (disk.File, error) {
	f, err := d.FS.Open(name)
	return nowhereFile{f}, err
}

type nowhereFile struct{ disk.File }

func (nowhereFile) WritevAt([][]byte, int64) error         { return nil }
func (nowhereFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhereFile) Datasync() error                        { return nil }

// writer appends 4 KiB writes, each in a batch of its own, syncs them and keeps
// the journal short, so that it goes round in a few segments.
type writer struct {
	j    *Journal
	rec  Record
	recs []*Record
}

func newWriter(t testing.TB, d disk.FS) *writer {
	o := Options{Size: 64 << 20}
	ok(t, Create(d, o))
	j, _, err := Open(nowhere{d}, o)
	ok(t, err)
	t.Cleanup(func() { ok(t, j.Close()) })
	p := payload(1, 1, 4096)
	w := &writer{j: j, rec: Record{
		Kind: KindWrite, Flags: FlagLast, Length: 4096, Payload: p, PayloadCRC: crc32.Checksum(p, Castagnoli),
	}}
	w.recs = []*Record{&w.rec}
	return w
}

func (w *writer) write(t testing.TB) {
	w.rec.LSN = w.j.End() + 1
	w.rec.Seal(w.j.EndCRC())
	ok(t, w.j.Append(w.recs, Notes{Stable: w.j.End()}, false))
	_, err := w.j.Sync()
	ok(t, err)
	if w.j.Used() > 2*w.j.SegmentSize() {
		ok(t, w.j.Trim(w.j.Durable()))
	}
}

// In steady state a write allocates nothing. A new life of a segment takes a few
// allocations, every 512 of these writes.
func TestWritesAllocateNothing(t *testing.T) {
	if underRace {
		t.Skip("the race detector empties pools at random; the plain run of this test is the one that counts")
	}
	d, err := disk.OS(t.TempDir())
	ok(t, err)
	w := newWriter(t, d)
	const writes = 1000
	round := func() {
		for range writes {
			w.write(t)
		}
	}
	round()
	if n := testing.AllocsPerRun(5, round) / writes; n > 0.1 {
		t.Errorf("%.2f allocations for each write", n)
	}
}

func BenchmarkWriteToNowhere(b *testing.B) {
	d, err := disk.OS(b.TempDir())
	ok(b, err)
	w := newWriter(b, d)
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		w.write(b)
	}
}
