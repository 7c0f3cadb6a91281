package mirror

import (
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

// mustBeSound fails the test unless Check finds the replica sound, whatever it
// remarks, or that it failed earlier. It is the tests' oracle: a crash leaves no
// problem.
func mustBeSound(t testing.TB, dir disk.FS, o CheckOptions) CheckReport {
	t.Helper()
	r, err := Check(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		if !strings.Contains(p.Text, "is Failed") {
			t.Errorf("check: %v", p)
		}
	}
	return r
}

// killedPair is what a Primary that was written to, and has a peer, leaves when
// it is killed.
func killedPair(t *testing.T) *fakedisk.FS {
	t.Helper()
	r := newFakeRig(t, patient, "a", "b")
	a, _, c := r.pair()
	for i := range int64(20) {
		c.write(i*8192, fill(byte(i+1), 4096))
		c.flush()
	}
	a.kill()
	return a.fake
}

func TestCheckChangesNothing(t *testing.T) {
	d := killedPair(t)
	d.OnOp(func(op fakedisk.Op, name string) error {
		switch op {
		case fakedisk.OpOpen, fakedisk.OpList, fakedisk.OpRead, fakedisk.OpSize, fakedisk.OpLock:
		default:
			t.Errorf("check does %v to %q", op, name)
		}
		return nil
	})
	r := mustBeSound(t, d, CheckOptions{StoreSize: rigSize})
	if len(r.Remarks) != 0 {
		t.Errorf("remarks about a replica that was only killed: %v", r.Remarks)
	}
	s, j := r.Superblock, r.Journal
	if s == nil || s.Volume != rigVolume || s.Node != "a" || s.Size != rigSize || len(s.InSync) != 2 {
		t.Errorf("superblock: %+v", s)
	}
	if j == nil || j.First != 1 || int(j.End) != j.Records || j.Records < 20 || j.Noted.Stable == 0 {
		t.Errorf("journal: %+v", j)
	}
	if len(r.Bitmaps) != 2 || r.Bitmaps[0].Peer != "" || r.Bitmaps[0].Marked != bitmap.DefaultRegionSize || r.Bitmaps[1].Peer != "b" || r.Bitmaps[1].Base == nil {
		t.Errorf("bitmaps: %+v", r.Bitmaps)
	}
}

// flip changes a byte of a file.
func flip(t *testing.T, dir disk.FS, name string, off int64) {
	t.Helper()
	f, err := dir.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// version makes a copy of a segment's header one of version 2.
func version(t *testing.T, dir disk.FS, segment string, off int64) {
	t.Helper()
	f, err := dir.Open(segment)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{99}, off+8)
	must(t, err)
}

func subOf(t *testing.T, dir disk.FS) disk.FS {
	t.Helper()
	sub, err := dir.Sub(journalDir)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// batchAt is where the batch that begins with, or holds, an LSN lies.
func batchAt(t *testing.T, dir disk.FS, lsn LSN) (segment string, b journal.BatchInfo) {
	t.Helper()
	var now string
	_, err := journal.Dump(subOf(t, dir), journal.Options{}, journal.Visitor{
		Segment: func(s journal.SegmentInfo) { now = s.Name },
		Batch: func(i journal.BatchInfo) {
			if i.First <= lsn && lsn < i.First+LSN(i.Records) {
				segment, b = now, i
			}
		},
	})
	if err != nil || segment == "" {
		t.Fatalf("LSN %d is in no batch: %v", lsn, err)
	}
	return segment, b
}

// Each kind of damage is found, in its place, and what a start mends is told
// from what it does not: a replica opens if, and only if, it is sound.
func TestCheckFindsDamage(t *testing.T) {
	whole := killedPair(t)
	const slot, mib = SuperblockSlotSize, 1 << 20
	seg, ten := batchAt(t, whole, 10)
	newest := int64(mustBeSound(t, whole, CheckOptions{}).Superblock.Sequence+1) % 2
	for _, tc := range []struct {
		name    string
		damage  func(d *fakedisk.FS)
		size    int64 // of the store, where it is not the volume's
		problem bool
		file    string
		off     int64
		lsn     LSN
		text    string
	}{
		{"both slots", func(d *fakedisk.FS) { flip(t, d, superblockName, 40); flip(t, d, superblockName, slot+40) },
			0, true, "fake:/superblock", -1, 0, "both slots are bad"},
		{"the older slot", func(d *fakedisk.FS) { flip(t, d, superblockName, (1-newest)*slot+40) },
			0, false, "fake:/superblock", (1 - newest) * slot, 0, "cannot be read"},
		{"the newer slot", func(d *fakedisk.FS) { flip(t, d, superblockName, newest*slot+40) },
			0, true, "fake:/superblock", newest * slot, 0, "the journal was written under superblock"},
		{"no superblock", func(d *fakedisk.FS) { must(t, d.Remove(superblockName)) },
			0, true, "fake:/superblock", -1, 0, "no replica"},
		{"a record in the middle", func(d *fakedisk.FS) { flip(t, subOf(t, d), seg, ten.Off+100) },
			0, true, "fake:/journal/" + seg, ten.Off, ten.First, "the journal was durable up to LSN"},
		{"a segment's header", func(d *fakedisk.FS) { flip(t, subOf(t, d), seg, 20) },
			0, false, "fake:/journal/" + seg, 0, 0, "one copy"},
		{"both copies of it", func(d *fakedisk.FS) { flip(t, subOf(t, d), seg, 20); flip(t, subOf(t, d), seg, 4096+20) },
			0, true, "fake:/journal", -1, 0, "no copy of its header is readable"},
		{"a newer program's journal", func(d *fakedisk.FS) { version(t, subOf(t, d), seg, 0); version(t, subOf(t, d), seg, 4096) },
			0, true, "fake:/journal", -1, 0, "start the program that wrote it"},
		{"no journal", func(d *fakedisk.FS) { must(t, subOf(t, d).Remove(seg)) },
			0, true, "fake:/journal", -1, 0, "there is no journal"},
		{"a store of another size", func(*fakedisk.FS) {},
			mib, true, "fake:/superblock", newest * slot, 0, "the volume has 16777216 bytes, and the backing store 1048576"},
		{"one header of a bitmap", func(d *fakedisk.FS) { flip(t, d, "out-of-sync.b.bitmap", 20) },
			0, false, "fake:/out-of-sync.b.bitmap", 0, 0, "copy 0 of the header"},
		{"a page of the write-intent bitmap", func(d *fakedisk.FS) { flip(t, d, intentName, 2*4096+100) },
			0, false, "fake:/" + intentName, 2 * 4096, 0, "all of its bits count as set"},
		{"a failed replica", func(d *fakedisk.FS) { f, err := d.Create(failedName); must(t, err); must(t, f.Close()) },
			0, true, "fake:/superblock", newest * slot, 0, "is Failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := whole.KillClone()
			tc.damage(d)
			o := CheckOptions{StoreSize: rigSize}
			if tc.size != 0 {
				o.StoreSize = tc.size
			}
			r, err := Check(d, o)
			if err != nil {
				t.Fatal(err)
			}
			found, other := r.Remarks, r.Problems
			if tc.problem {
				found, other = r.Problems, r.Remarks
			}
			if len(found) != 1 || len(other) != 0 {
				t.Fatalf("problems %v, remarks %v", r.Problems, r.Remarks)
			}
			if f := found[0]; f.File != tc.file || f.Offset != tc.off || f.LSN != tc.lsn || !strings.Contains(f.Text, tc.text) {
				t.Errorf("got %q, %d, %d: %s", f.File, f.Offset, f.LSN, f.Text)
			}
			if r.Sound() == tc.problem {
				t.Errorf("sound: %v", r.Sound())
			}
			if tc.size != 0 || tc.name == "no superblock" {
				return // its store is not opened with it, or it is no replica
			}
			v, err := Open(Options{Node: "a", Volume: rigVolume, FS: d, Store: openFake(t, d), Peers: []string{"b"}, Dialer: nobody{}, BootID: "boot"})
			opened := err == nil
			if err == nil {
				opened = v.Status().Failure == ""
				v.stop()
				v.wg.Wait()
				v.closeFiles()
			}
			if opened == tc.problem {
				t.Errorf("it opens: %v (%v)", opened, err)
			}
		})
	}
}

// What a journal says of itself has to fit the superblock.
func TestCheckFit(t *testing.T) {
	d := fakedisk.New(1)
	for want, rep := range map[string]journal.Report{
		"":                      {State: journal.State{First: 1, End: 9, Noted: journal.Notes{Stable: 9, Durable: 9, Checkpoint: 9}}},
		"had LSN 10 durably":    {State: journal.State{First: 1, End: 9, Noted: journal.Notes{Stable: 10, Checkpoint: 9}}},
		"newest stable one":     {State: journal.State{First: 1, End: 9, Noted: journal.Notes{Stable: 7, Checkpoint: 8}}},
		"never had a record":    {State: journal.State{First: 1, End: 4, Noted: journal.Notes{Stable: 4}}},
		"copy of the segment's": {State: journal.State{First: 1, End: 9}, Worn: []string{"0001.seg"}},
		"left torn":             {State: journal.State{First: 1, End: 9}, Torn: true},
	} {
		c := checker{dir: d, super: Superblock{History: history(gen(1, 1, "a1"), gen(2, 5, "a1"))}}
		c.fit(d, &rep, &place{})
		got := slices.Concat(c.r.Problems, c.r.Remarks)
		if want == "" {
			if len(got) != 0 {
				t.Errorf("%v", got)
			}
		} else if len(got) != 1 || !strings.Contains(got[0].Text, want) {
			t.Errorf("want %q, got %v", want, got)
		}
	}
}

// A bitmap that is unreadable is damage, although the replica opens: a start
// presumes the worst.
func TestCheckFindsLostBitmaps(t *testing.T) {
	whole := killedPair(t)
	for _, name := range []string{intentName, "out-of-sync.b.bitmap"} {
		d := whole.KillClone()
		flip(t, d, name, 20)
		flip(t, d, name, 4096+20)
		r, err := Check(d, CheckOptions{})
		if err != nil || len(r.Problems) != 1 || r.Problems[0].File != "fake:/"+name || !strings.Contains(r.Problems[0].Text, "The next start makes a new one") {
			t.Errorf("%s: %v, %v", name, r.Problems, err)
		}
	}
}

// A bitmap of a newer program is whole: the replica does not open under this one,
// and the bitmap stays as it is.
func TestNewerBitmapIsRefused(t *testing.T) {
	whole := killedPair(t)
	for _, name := range []string{intentName, "out-of-sync.b.bitmap"} {
		d := whole.KillClone()
		f, err := d.Open(name)
		must(t, err)
		p := make([]byte, 4096)
		_, err = f.ReadAt(p, 0)
		must(t, err)
		le.PutUint32(p[12:], 2)
		le.PutUint32(p[8:], crc32.Checksum(p[12:], journal.Castagnoli))
		for i := range int64(2) {
			_, err = f.WriteAt(p, i*4096)
			must(t, err)
		}
		must(t, f.Close())
		before := listOf(t, d)
		_, err = Open(Options{Node: "a", Volume: rigVolume, FS: d, Store: openFake(t, d), Peers: []string{"b"}, Dialer: nobody{}, BootID: "boot"})
		if !errors.Is(err, bitmap.ErrVersion) || !strings.Contains(err.Error(), "use the version that wrote it, or a newer one") {
			t.Errorf("%s: %v", name, err)
		}
		if after := listOf(t, d); !slices.Equal(before, after) {
			t.Errorf("%s: %q became %q", name, before, after)
		}
		if r, err := Check(d, CheckOptions{}); err != nil || len(r.Problems) != 1 || !strings.HasSuffix(r.Problems[0].Text, "or a newer one") {
			t.Errorf("%s: %v, %v", name, r.Problems, err)
		}
	}
}

// A bitmap that is relative to a record which the journal held durably, and has
// no more, is proof that records are gone.
func TestCheckFindsJournalThatLostItsEnd(t *testing.T) {
	d := killedPair(t)
	end := mustBeSound(t, d, CheckOptions{}).Journal.End
	_, sb, err := OpenSuperblock(d)
	must(t, err)
	m, err := bitmap.Open(d, "out-of-sync.b.bitmap", rigSize)
	must(t, err)
	set := func(lsn LSN, gen ID) {
		t.Helper()
		m.SetBase(bitmap.Base{Generation: gen, LSN: uint64(lsn)})
		must(t, m.Flush())
	}
	set(end, sb.History.Last().ID)
	if r := mustBeSound(t, d, CheckOptions{}); len(r.Remarks) != 0 {
		t.Errorf("%v", r.Remarks)
	}
	set(end+1, sb.History.Last().ID)
	if r, err := Check(d, CheckOptions{}); err != nil || len(r.Problems) != 1 || r.Problems[0].LSN != end+1 {
		t.Errorf("%v, %v", r.Problems, err)
	}
	// Of another history it says nothing about this one.
	set(end+1, ID{1})
	if r := mustBeSound(t, d, CheckOptions{}); len(r.Remarks) != 1 || !strings.Contains(r.Remarks[0].Text, "a full one") {
		t.Errorf("%v", r.Remarks)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
