package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/crashtest"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

var errPower = errors.New("the power is gone")

// sampleSuperblock has every field set.
func sampleSuperblock() Superblock {
	h := history(gen(1, 1, "a1 b1"), gen(2, 101, "a1"), gen(3, 205, "a1 b2"))
	h[1].Epoch, h[2].Epoch, h[2].SetVersion = 3, 4, 9
	return Superblock{
		Volume: ID{1, 2, 3}, Name: "vol", Node: "a", Size: 1 << 30, WriteCache: true, Protocol: ProtocolB,
		History: h, Epoch: 4, SetVersion: 9, Set: h[2].Set, Excluded: true,
		Incarnation: 77, BootID: "0000-boot", Disk: Inconsistent, LossCounter: 5,
		Resync: &ResyncMark{Base: Position{ID{2}, 150}, Source: "b"},
	}
}

func mustCreate(t *testing.T, dir *fakedisk.FS, sb Superblock) {
	t.Helper()
	if err := CreateSuperblock(dir, sb); err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t *testing.T, dir *fakedisk.FS) (*SuperblockFile, Superblock) {
	t.Helper()
	f, sb, err := OpenSuperblock(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f, sb
}

func TestSuperblockKeepsEverything(t *testing.T) {
	// The sample sets every field, so that one which is not encoded is noticed.
	sample := sampleSuperblock()
	sample.Snapshots = sampleSnapshots()
	for v, i := reflect.ValueOf(sample), 0; i < v.NumField(); i++ {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Seq" {
			t.Errorf("the sample leaves %s zero", name)
		}
	}
	dir := fakedisk.New(1)
	mustCreate(t, dir, sample)
	f, got := mustOpen(t, dir)
	sample.Seq = 2
	if !reflect.DeepEqual(got, sample) {
		t.Fatalf("created %+v\nread %+v", sample, got)
	}
	for range 5 {
		sample.LossCounter++
		if err := f.Commit(&sample); err != nil {
			t.Fatal(err)
		}
		if _, got := mustOpen(t, dir); !reflect.DeepEqual(got, sample) || got.Seq != f.Seq() {
			t.Fatalf("committed %+v\nread %+v", sample, got)
		}
	}
	if err := CreateSuperblock(dir, sample); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created over an existing superblock: %v", err)
	}
}

// TestSuperblockCommitsFirstCrashStates is invariant 10: power is lost at every
// operation of a creation and some commits. What is read afterwards is the last
// commit that returned, or the one under way, and it can be committed to again.
func TestSuperblockCommitsFirstCrashStates(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: crashtest.Share(t, 0.1)}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		return superblockLife(rng, fakedisk.New(rng.Uint64()), false), nil
	})
}

// TestSuperblockCommitsFirstCrashStatesExhaustive has every combination of
// sectors lost and kept, after the creation.
func TestSuperblockCommitsFirstCrashStatesExhaustive(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: 60, Exhaustive: true}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		dir, sample := fakedisk.New(rng.Uint64()), sampleSuperblock()
		sample.LossCounter = 0
		return superblockLife(rng, dir, true), CreateSuperblock(dir, sample)
	})
}

// superblockLife creates a superblock, unless it is there, and commits to it.
// The loss counter numbers the commits.
func superblockLife(rng *rand.Rand, dir *fakedisk.FS, created bool) *crashtest.Workload {
	sample := sampleSuperblock()
	sample.LossCounter = 0
	committed := uint64(0)
	return &crashtest.Workload{
		Disk: dir,
		Do: func() error {
			if !created {
				if err := CreateSuperblock(dir, sample); err != nil {
					return err
				}
				created = true
			}
			f, sb, err := OpenSuperblock(dir)
			if err != nil {
				return err
			}
			defer f.Close()
			for sb.LossCounter = 1; sb.LossCounter <= 6; sb.LossCounter++ {
				// Long ones have several sectors to be torn at.
				sb.BootID = strings.Repeat("b", rng.IntN(maxName))
				sb.History = longHistory(25 + rng.IntN(20))
				if err := f.Commit(&sb); err != nil {
					return err
				}
				committed = sb.LossCounter
			}
			return nil
		},
		Promised: func() uint64 { return committed },
		Check: func(left *fakedisk.FS, _ bool) error {
			f, sb, err := OpenSuperblock(left)
			if errors.Is(err, fs.ErrNotExist) && !created {
				return CreateSuperblock(left, sample) // a half-made one is not in the way
			}
			if err != nil {
				return err
			}
			defer f.Close()
			if sb.LossCounter != committed && sb.LossCounter != committed+1 {
				return fmt.Errorf("commit %d returned, commit %d was read", committed, sb.LossCounter)
			}
			sb.LossCounter = 1000
			if err := f.Commit(&sb); err != nil {
				return err
			}
			again, sb, err := OpenSuperblock(left.CrashClone(fakedisk.LoseAll))
			if err != nil {
				return err
			}
			if sb.LossCounter != 1000 {
				return fmt.Errorf("what was committed after the crash is lost, %d is read", sb.LossCounter)
			}
			return again.Close()
		},
	}
}

func TestSuperblockCommitFailureIsFinal(t *testing.T) {
	for _, op := range []fakedisk.Op{fakedisk.OpWrite, fakedisk.OpDatasync} {
		t.Run(string(op), func(t *testing.T) {
			dir := fakedisk.New(1)
			mustCreate(t, dir, sampleSuperblock())
			f, sb := mustOpen(t, dir)
			dir.Fail(op, 0, errPower)
			if err := f.Commit(&sb); !errors.Is(err, errPower) || sb.Seq != 2 {
				t.Fatalf("%v, sequence number %d", err, sb.Seq)
			}
			ops := dir.Count(fakedisk.AnyChange)
			if err := f.Commit(&sb); !errors.Is(err, errPower) || dir.Count(fakedisk.AnyChange) != ops {
				t.Errorf("a commit after a failed one: %v", err)
			}
		})
	}
}

func TestSuperblockRefusesBeforeWriting(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, change := range map[string]func(*Superblock){
		"volume name":        func(s *Superblock) { s.Name = long },
		"node name":          func(s *Superblock) { s.Set = []Member{{long, 1}} },
		"unsorted set":       func(s *Superblock) { s.Set = []Member{{"b", 1}, {"a", 1}} },
		"ten members":        func(s *Superblock) { s.Set = make([]Member, 10) },
		"negative size":      func(s *Superblock) { s.Size = -1 },
		"disk state":         func(s *Superblock) { s.Disk = 99 },
		"protocol":           func(s *Superblock) { s.Protocol = 99 },
		"too many":           func(s *Superblock) { s.History = longHistory(MaxGenerations + 1) },
		"unchained history":  func(s *Superblock) { s.History = History{gen(1, 1, "a1"), gen(2, 2, "a1")} },
		"unordered history":  func(s *Superblock) { s.History = history(gen(1, 5, "a1"), gen(2, 2, "a1")) },
		"member of ten":      func(s *Superblock) { s.History = History{{ID: ID{1}, First: 1, Set: make([]Member, 10)}} },
		"generation without": func(s *Superblock) { s.History = History{{First: 1}} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := fakedisk.New(1)
			good := sampleSuperblock()
			bad := good
			change(&bad)
			if err := CreateSuperblock(fakedisk.New(1), bad); err == nil {
				t.Error("created")
			}
			mustCreate(t, dir, good)
			f, _ := mustOpen(t, dir)
			ops := dir.Count(fakedisk.AnyChange)
			if err := f.Commit(&bad); err == nil || dir.Count(fakedisk.AnyChange) != ops {
				t.Errorf("committed: %v", err)
			}
			if err := f.Commit(&good); err != nil {
				t.Errorf("a refused superblock is not final: %v", err)
			}
		})
	}
}

// TestSuperblockLargest: the largest history fits its slot, whatever the names.
func TestSuperblockLargest(t *testing.T) {
	sb := sampleSuperblock()
	sb.History = longHistory(MaxGenerations)
	for i := range sb.History {
		var set []Member
		for k := range MaxMembers {
			name := fmt.Sprintf("%03d%s", (i/9*9)%252+k, strings.Repeat("n", 252))
			set = append(set, Member{name, 1})
		}
		sb.History[i].Set = set
	}
	dir := fakedisk.New(1)
	mustCreate(t, dir, sb)
	if _, got := mustOpen(t, dir); !reflect.DeepEqual(got.History, sb.History) {
		t.Error("not what was written")
	}
}

// superblockBytes is the content of the file.
func superblockBytes(t *testing.T, dir disk.FS) []byte {
	t.Helper()
	f, err := dir.Open(superblockName)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

// withSuperblock is a directory whose superblock has this content.
func withSuperblock(t *testing.T, b []byte) *fakedisk.FS {
	t.Helper()
	dir := fakedisk.New(1)
	f, err := dir.Create(superblockName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return dir
}

// twoSlots is a superblock file with number 2 in slot 1 and 3 in slot 0, and the
// length of a slot's content.
func twoSlots(t *testing.T) (b []byte, length int) {
	t.Helper()
	dir := fakedisk.New(1)
	mustCreate(t, dir, sampleSuperblock())
	f, sb := mustOpen(t, dir)
	if err := f.Commit(&sb); err != nil || sb.Seq != 3 {
		t.Fatal(err, sb.Seq)
	}
	b = superblockBytes(t, dir)
	return b, superblockHeader + int(le.Uint32(b[24:]))
}

func slotOf(b []byte, i int) []byte { return b[i*SuperblockSlotSize : (i+1)*SuperblockSlotSize] }

// TestSuperblockDamage: one slot may be torn, flipped, a copy of the other or
// gone and the other is read; both, and it is an error that leaves the file as
// it is.
func TestSuperblockDamage(t *testing.T) {
	unraced(t)
	t.Parallel()
	pristine, length := twoSlots(t)
	rows := map[string]func(b []byte){
		"zeroed": func(b []byte) { clear(b) },
		"torn":   func(b []byte) { clear(b[256:length]) },
		"the other slot's number": func(b []byte) {
			le.PutUint32(b[12:], 1-le.Uint32(b[12:]))
			le.PutUint32(b[28:], slotCRC(b[:length]))
		},
	}
	for at := range length {
		rows[fmt.Sprintf("byte %d flipped", at)] = func(b []byte) { b[at] ^= 0x40 }
	}
	for name, damage := range rows {
		both := bytes.Clone(pristine)
		for i, want := range []uint64{2, 3} { // what is left without slot i
			b := bytes.Clone(pristine)
			damage(slotOf(b, i))
			damage(slotOf(both, i))
			dir := withSuperblock(t, b)
			file, sb, err := OpenSuperblock(dir)
			if err != nil || sb.Seq != want {
				t.Fatalf("slot %d %s: %v, sequence number %d, want %d", i, name, err, sb.Seq, want)
			}
			// The journal noted 3: only the loss of the older slot is harmless (14d).
			if err := file.CheckNoted(3); (err == nil) != (want == 3) || err != nil && !errors.Is(err, ErrSuperblock) {
				t.Errorf("slot %d %s: %v", i, name, err)
			}
			if err := file.Commit(&sb); err != nil {
				t.Fatal(err)
			}
			if _, got := mustOpen(t, dir); got.Seq != want+1 {
				t.Errorf("slot %d %s: a commit later it is %d", i, name, got.Seq)
			}
		}
		dir := withSuperblock(t, both)
		if _, _, err := OpenSuperblock(dir); !errors.Is(err, ErrSuperblock) || !strings.Contains(err.Error(), "nothing was overwritten") {
			t.Errorf("both slots %s: %v", name, err)
		}
		if !bytes.Equal(both, superblockBytes(t, dir)) {
			t.Errorf("both slots %s: the file was changed", name)
		}
	}
}

// TestSuperblockFileDamage: what can be wrong with the two slots together.
func TestSuperblockFileDamage(t *testing.T) {
	pristine, length := twoSlots(t)
	seal := func(b []byte) { le.PutUint32(b[28:], slotCRC(b[:length])) }
	for _, row := range []struct {
		name   string
		damage func(b []byte) []byte
		want   uint64 // sequence number, 0: an error
		says   string
	}{
		{"slots swapped", func(b []byte) []byte { return append(bytes.Clone(slotOf(b, 1)), slotOf(b, 0)...) }, 0, "copy of slot"},
		{"cut to one slot", func(b []byte) []byte { return slotOf(b, 0) }, 3, ""},
		{"empty", func([]byte) []byte { return nil }, 0, "both slots"},
		{"same number twice", func(b []byte) []byte {
			le.PutUint64(slotOf(b, 1)[16:], 3)
			seal(slotOf(b, 1))
			return b
		}, 0, "both slots carry"},
		{"unknown version beside a known one", func(b []byte) []byte {
			le.PutUint32(slotOf(b, 1)[8:], superblockVersion+1)
			seal(slotOf(b, 1))
			return b
		}, 0, fmt.Sprint("version ", superblockVersion+1)},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, sb, err := OpenSuperblock(withSuperblock(t, row.damage(bytes.Clone(pristine))))
			if row.want == 0 {
				if !errors.Is(err, ErrSuperblock) || !strings.Contains(err.Error(), row.says) {
					t.Error(err)
				}
				return
			}
			if err != nil || sb.Seq != row.want {
				t.Error(sb.Seq, err)
			}
		})
	}
}

// TestSuperblockFields: one row per field of the body that can be out of range.
// The CRC is right: what is tested is the field's own check.
func TestSuperblockFields(t *testing.T) {
	good := sampleSuperblock()
	body := good.appendBody(nil)
	if _, err := decodeBody(body, superblockPlain); err != nil {
		t.Fatal(err)
	}
	afterNames := 16 + 4 + 2         // volume id, "vol", "a"
	afterSet := afterNames + 26 + 21 // size, two bytes, epoch, set version; two members
	afterBoot := afterSet + 1 + 8 + 10
	hist := afterBoot + 1 + 8 + 1 + 24 + 2
	first := hist + 5 + 2 // two names, count
	for _, row := range []struct {
		field string
		at    int
		value byte
	}{
		{"size", afterNames + 7, 0xff},
		{"write cache", afterNames + 8, 2},
		{"protocol", afterNames + 9, 2},
		{"members", afterNames + 26, 10},
		{"member's name", afterNames + 28, 'z'},
		{"excluded", afterSet, 2},
		{"disk state", afterBoot, 7},
		{"resync mark", afterBoot + 9, 3},
		{"history's names", hist, 3},
		{"history's name twice", hist + 2, 'b'},
		{"generations", hist + 6, 0xff},
		{"first generation's LSN", first + 40, 0},
		{"first generation's LSN past the second's", first + 40, 200},
		{"members of a generation", first + 56, 10},
		{"member's name index", first + 57, 1},
		{"second generation's parent", first + 57 + 18 + 16, 9},
	} {
		bad := bytes.Clone(body)
		if bad[row.at] == row.value {
			t.Errorf("%s: byte %d has that value already", row.field, row.at)
		}
		bad[row.at] = row.value
		if _, err := decodeBody(bad, superblockPlain); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v", row.field, err)
		}
	}
	for n := range body {
		if _, err := decodeBody(body[:n], superblockPlain); err == nil {
			t.Errorf("%d bytes of %d were accepted", n, len(body))
		}
	}
	if _, err := decodeBody(append(body, 0), superblockPlain); err == nil {
		t.Error("a byte too many was accepted")
	}
}

// TestSuperblockVector holds each version to the byte.
func TestSuperblockVector(t *testing.T) {
	for name, undo := range map[string]ID{"superblock-v1": {}, "superblock-v2": {7, 8, 9}, "superblock-v3": {7, 8, 9}, "superblock-v4": {7, 8, 9}} {
		sb := sampleSuperblock()
		sb.Seq = 41
		sb.Resync.Undo, sb.Resync.RollingBack = undo, !undo.IsZero()
		switch name {
		case "superblock-v3": // which says in its own way what is in the history now
			sb.Snapshots = sampleSnapshots()[:3]
			sb.History.Last().RollingBack = RollbackTarget{"a", "monday"}
			got, err := decodeSlot(golden(t, name, nil), 1)
			if err != nil || !reflect.DeepEqual(got, sb) {
				t.Errorf("%v\n%+v\n%+v", err, got, sb)
			}
			continue
		case "superblock-v4":
			sb.Snapshots, sb.History = sampleSnapshots(), rolledBackHistory()
		}
		b, err := sb.encodeSlot(1)
		if err != nil {
			t.Fatal(err)
		}
		want := golden(t, name, b)
		got, err := decodeSlot(want, 1)
		if err != nil || !reflect.DeepEqual(got, sb) {
			t.Errorf("%v\n%+v\n%+v", err, got, sb)
		}
	}
}

// An undo that belongs to no resync, or has no id, is none.
func TestSuperblockUndoMustFit(t *testing.T) {
	sb := sampleSuperblock()
	sb.Resync.Undo = ID{1}
	body := sb.appendBody(nil)
	if got, err := decodeBody(body, superblockUndo); err != nil || got.Resync.Undo != sb.Resync.Undo || got.Resync.RollingBack {
		t.Fatalf("%+v, %v", got.Resync, err)
	}
	sb.Resync = nil
	tail := body[len(body)-17:]
	for what, bad := range map[string][]byte{
		"no resync": append(sb.appendBody(nil), tail...),
		"kind 0":    append(append(bytes.Clone(body[:len(body)-17]), 0), tail[1:]...),
		"kind 3":    append(append(bytes.Clone(body[:len(body)-17]), 3), tail[1:]...),
		"no id":     append(append(bytes.Clone(body[:len(body)-17]), 1), make([]byte, 16)...),
		"too short": body[:len(body)-1],
	} {
		if _, err := decodeBody(bad, superblockUndo); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func sampleSnapshots() []SnapshotEntry {
	at := time.Unix(0, 1_700_000_000_123_456_789)
	return []SnapshotEntry{
		{Name: "monday", ID: ID{1}, At: Position{Generation: ID{5}, LSN: 77}, Created: at},
		{Name: "split-1319", ID: ID{2}, At: Position{Generation: ID{6}, LSN: 1319}, Created: at, Peer: "b", Settling: true},
		{Name: "lost", ID: ID{3}, At: Position{LSN: 1}, Created: at, Lost: "snapshot is full"},
		{Name: "before-rollback", ID: ID{4}, At: Position{Generation: ID{6}, LSN: 1400}, Created: at, Before: true},
	}
}

// Snapshots are kept with and without a resync's undo beside them, and what does not
// belong into the list is refused.
func TestSuperblockSnapshots(t *testing.T) {
	for _, undo := range []ID{{}, {7}} {
		sb := sampleSuperblock()
		sb.Resync.Undo, sb.Snapshots = undo, sampleSnapshots()
		body := sb.appendBody(nil)
		if got, err := decodeBody(body, superblockVersion); err != nil || !reflect.DeepEqual(got, sb) {
			t.Fatalf("%v\n%+v\n%+v", err, got, sb)
		}
		for n := range body {
			if _, err := decodeBody(body[:n], superblockVersion); err == nil {
				t.Errorf("%d bytes of %d were accepted", n, len(body))
			}
		}
	}
	var many []SnapshotEntry
	for range MaxSnapshots {
		e := SnapshotEntry{Name: strings.Repeat("n", maxSnapshotName), Created: time.Unix(0, 0), Peer: strings.Repeat("p", maxName), Lost: strings.Repeat("l", maxName)}
		many = append(many, e)
	}
	if b, err := (&Superblock{Name: "v", Node: "n", Snapshots: many}).encodeSlot(0); err != nil || len(b) < MaxSnapshots*(maxSnapshotEntry-1) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for what, list := range map[string][]SnapshotEntry{
		"too many":    append(many, many[0]),
		"no name":     {{}},
		"a bad name":  {{Name: "a/b"}},
		"a long peer": {{Name: "a", Peer: strings.Repeat("p", maxName+1)}},
	} {
		if _, err := (&Superblock{Name: "v", Node: "n", Snapshots: list}).encodeSlot(0); err == nil {
			t.Errorf("%s: it is written", what)
		}
	}
	none := append((&Superblock{Name: "v", Node: "n"}).appendBody(nil), make([]byte, 18)...)
	for _, version := range []uint32{superblockSnapshots, superblockVersion} {
		if _, err := decodeBody(none, version); !errors.Is(err, errFormat) {
			t.Errorf("no snapshot in version %d: %v", version, err)
		}
	}
	// The flag of a snapshot of before a rollback is none of version 3, and that of a
	// rollback none of version 4.
	one := Superblock{Name: "v", Node: "n", History: rolledBackHistory(), Snapshots: sampleSnapshots()[3:]}
	body := one.appendBody(nil)
	flags := len(body) - 3
	if got, err := decodeBody(body, superblockVersion); err != nil || !reflect.DeepEqual(got, one) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := decodeBody(body, superblockSnapshots); !errors.Is(err, errFormat) {
		t.Error(err)
	}
	body[flags] = entryRollingBack
	if _, err := decodeBody(body, superblockVersion); !errors.Is(err, errFormat) {
		t.Error(err)
	}
}

// TestInvariant10NewestSlotLost (14d): the slot that is damaged is the one that
// began the generation of what was written since, so that under the older one
// all of that is outside the history. It is an error, and no cut.
func TestInvariant10NewestSlotLost(t *testing.T) {
	d := fakedisk.New(1)
	createFake(t, d, "a", crashSize)
	c := &crasher{t: t, rng: newRand(1)}
	v := c.open(d)
	cl := &client{t, c.attach(v)}
	cl.write(0, fill(1, 4096))
	cl.flush()
	newest := v.superFile.slot
	v.kill()
	flip(t, d, superblockName, int64(newest)*SuperblockSlotSize+40)
	changes := func() int { return d.Count(fakedisk.AnyChange) - d.Count(fakedisk.OpSyncDir) }
	before := changes()
	_, err := Open(Options{Node: "a", Volume: rigVolume, FS: d, Store: openFake(t, d), BootID: "boot"})
	if !errors.Is(err, ErrSuperblock) {
		t.Fatalf("a volume that lacks its newest superblock opens: %v", err)
	}
	if r, err := Check(d, CheckOptions{}); err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Text, "a slot is damaged") {
		t.Errorf("%v, %v", r.Problems, err)
	}
	if n := changes() - before; n > 0 { // names that are there are synced
		t.Errorf("%d changes of the disk", n)
	}
}

// golden compares b with testdata/name.bin and returns the file's bytes. It compares
// nothing if b is nil: what nobody writes any more.
// LOCKSTEP_GOLDEN=1 writes it; a format that was released never changes.
func golden(t *testing.T, name string, b []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name+".bin")
	if os.Getenv("LOCKSTEP_GOLDEN") != "" && b != nil {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b != nil && !bytes.Equal(b, want) {
		t.Errorf("%s:\n got %x\nwant %x", path, b, want)
	}
	return want
}

// FuzzSuperblock: no slot panics or allocates out of proportion, and what
// decodes encodes to the same bytes.
func FuzzSuperblock(f *testing.F) {
	sb := sampleSuperblock()
	undo := sampleSuperblock()
	undo.Resync.Undo = ID{1}
	snapshots := sampleSuperblock()
	snapshots.Snapshots = sampleSnapshots()
	bare := Superblock{Name: "v", Node: "n", Snapshots: sampleSnapshots()[:1]}
	rolled := Superblock{Name: "v", Node: "n", History: rolledBackHistory()}
	for _, s := range []Superblock{sb, undo, snapshots, bare, rolled, {}, {Name: "v", Node: "n", History: longHistory(3)}} {
		b, err := s.encodeSlot(0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= superblockHeader { // reach past the CRC
			b = bytes.Clone(b)
			n := min(uint64(le.Uint32(b[24:])), uint64(len(b)-superblockHeader))
			le.PutUint32(b[24:], uint32(n))
			crc := crc32.Update(crc32.Checksum(b[:28], journal.Castagnoli), journal.Castagnoli, b[superblockHeader:superblockHeader+n])
			le.PutUint32(b[28:], crc)
		}
		sb, err := decodeSlot(b, 0)
		if err != nil {
			return
		}
		again, err := sb.encodeSlot(0)
		if err != nil {
			t.Fatalf("decoded but not encoded: %v\n%+v", err, sb)
		}
		if le.Uint32(again[8:]) != le.Uint32(b[8:]) {
			return // version 3 said otherwise that a rollback was under way
		}
		n := superblockHeader + int(le.Uint32(again[24:]))
		if n > len(b) || !bytes.Equal(again[:n], b[:n]) {
			t.Fatalf("%x\n%x", b, again[:n])
		}
	})
}
