package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/crashtest"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
	"github.com/lockstep-storage/lockstep/store"
)

// tinyJournal wraps around within some sixty changes, on a volume that is read
// back in no time.
var tinyJournal = journal.Options{Size: 12 * 32 << 10, SegmentSize: 32 << 10, AnySize: true}

const (
	tinyBatch = 4  // changes at once, at most
	tinyWrite = 24 // cells of a write, at most

	tinySize  = 256 << 10
	tinyCells = tinySize / crashCell
)

// A tinyVolume is a volume without peers that one goroutine drives: what the
// volume's own goroutines do, and in which order, a random source says. So a
// crash of it can be repeated.
type tinyVolume struct {
	rng  *rand.Rand
	disk *fakedisk.FS
	v    *Volume
	s    block.Session
	boot int

	all    []numbered
	cells  []uint32 // of the image after all changes, by the number of a change
	sums   []uint64 // of the image after the first so many changes
	acked  int
	synced int // changes that no crash may take
}

// createTiny makes a replica whose journal has all its segments, each of them
// full of records with good CRCs.
func createTiny(d *fakedisk.FS) error {
	f, err := d.Create(fakeData)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(tinySize), f.Datasync(), f.Close()); err != nil {
		return err
	}
	if err := Create(d, CreateOptions{Node: "a", Volume: rigVolume, Size: tinySize, JournalSize: 64 << 20}); err != nil {
		return err
	}
	if err := remakeJournal(d, tinyJournal); err != nil {
		return err
	}
	dir, err := d.Sub(journalDir)
	if err != nil {
		return err
	}
	j, _, err := journal.Open(dir, tinyJournal)
	if err != nil {
		return err
	}
	for j.Size()-j.Used() > tinyJournal.SegmentSize {
		r := &journal.Record{LSN: j.End() + 1, Kind: journal.KindTrim, Length: crashCell, Flags: journal.FlagLast}
		r.Seal(j.EndCRC())
		if err := j.Append([]*journal.Record{r}, journal.Notes{}, true); err != nil {
			return err
		}
	}
	return errors.Join(j.Truncate(j.End()-1), j.Reset(1, 0), j.Close())
}

// start opens the volume on a disk and makes it Primary, as a boot would.
func (l *tinyVolume) start(d *fakedisk.FS) error {
	f, err := d.Open(fakeData)
	if err != nil {
		return err
	}
	l.boot++
	o := Options{Node: "a", Volume: rigVolume, FS: d, Store: store.OnDisk(f, tinySize), BootID: fmt.Sprint("boot ", l.boot)}
	o.EnsureDefaults()
	l.v = newVolume(o)
	if err := errors.Join(l.v.openFiles()); err != nil {
		return err
	}
	if err := l.v.recover(); err != nil {
		return err
	}
	return l.promote()
}

func (l *tinyVolume) promote() error {
	v := l.v
	v.change.Lock()
	defer v.change.Unlock()
	if err := v.promote(false); err != nil {
		return err
	}
	if err := v.syncNow(); err != nil {
		return err
	}
	var err error
	l.s, err = v.Attach(context.Background(), nil)
	return err
}

// end closes the files as they are: nothing is settled.
func (l *tinyVolume) end() {
	l.v.stop()
	l.v.wg.Wait()
	l.v.closeFiles()
}

// step is what a client does, or one of the volume's goroutines.
func (l *tinyVolume) step() error {
	v := l.v
	// There is nobody else to make room while a client waits for it.
	if v.journal.Size()-v.journal.Used() < v.limits.room(tinyBatch*tinyWrite*crashCell)+v.limits.segment {
		return l.makeRoom()
	}
	switch k := l.rng.IntN(64); {
	case k < 30:
		return l.change(1 + l.rng.IntN(tinyBatch))
	case k < 40:
		return l.request(&block.Request{Op: block.OpFlush}, func() { l.synced = l.acked })
	case k < 46:
		v.syncRound(true)
	case k < 52:
		v.applyRound()
	case k < 56:
		return v.takeCheckpoint()
	case k < 58:
		v.trim()
	case k < 60:
		v.clearIntent()
	case k < 61:
		return l.changeRoles()
	}
	return v.failure
}

// makeRoom is what background work comes to when the journal fills.
func (l *tinyVolume) makeRoom() error {
	l.v.syncRound(true)
	l.v.syncRound(true) // the first may only have made records stable
	for l.v.applyRound() {
	}
	err := l.v.takeCheckpoint()
	l.v.trim()
	return errors.Join(err, l.v.failure)
}

// changeRoles hands the role back and takes it again: two generations meet in
// the journal, and the superblock changes.
func (l *tinyVolume) changeRoles() error {
	if err := l.v.syncNow(); err != nil {
		return err
	}
	l.s.Close()
	if !l.v.stepDown() {
		return errors.New("a volume that is all stable keeps its role")
	}
	return l.promote()
}

// change submits n changes at once.
func (l *tinyVolume) change(n int) error {
	var reqs []*block.Request
	var waits []waitDone
	fua := false
	for range n {
		c := l.next()
		l.apply(c)
		r, w := c.request(), make(waitDone, 1)
		r.Done, r.FUA = w, l.rng.IntN(20) == 0
		fua = fua || r.FUA
		reqs, waits = append(reqs, r), append(waits, w)
	}
	all := len(l.sums) - 1
	return l.submit(reqs, waits, func() {
		l.acked = all
		if fua { // the last of them was, or one before it that took these along
			l.synced = all
		}
	})
}

func (l *tinyVolume) request(r *block.Request, done func()) error {
	w := make(waitDone, 1)
	r.Done = w
	return l.submit([]*block.Request{r}, []waitDone{w}, done)
}

// submit has requests carried out, with the syncer's help if they need it.
func (l *tinyVolume) submit(reqs []*block.Request, waits []waitDone, done func()) error {
	l.s.Submit(reqs)
	l.v.syncRound(false)
	for _, w := range waits {
		select {
		case err := <-w:
			if err != nil {
				return err
			}
		default:
			return errors.New("a request is not answered although everything is synced")
		}
	}
	done()
	return nil
}

// next is a change of a random kind, size and place.
func (l *tinyVolume) next() numbered {
	n := numbered{n: uint32(len(l.sums)), op: block.OpWrite}
	cells := 1 + l.rng.Int64N(tinyWrite)
	switch l.rng.IntN(20) {
	case 0:
		n.op, cells = block.OpTrim, 1+l.rng.Int64N(tinyCells)
	case 1:
		n.op, cells = block.OpWriteZeroes, 1+l.rng.Int64N(tinyCells/4)
	}
	n.ln = cells * crashCell
	n.off = l.rng.Int64N(tinyCells-cells+1) * crashCell
	return n
}

// apply does a change to the image that the volume has to have, and notes its
// sum: the sum of the cells' own, so that it need not be taken anew.
func (l *tinyVolume) apply(c numbered) {
	l.all = append(l.all, c)
	n, sum := c.n, l.sums[len(l.sums)-1]
	if c.op != block.OpWrite {
		n = 0
	}
	for i := c.off / crashCell; i < (c.off+c.ln)/crashCell; i++ {
		sum += cellSum(i, n) - cellSum(i, l.cells[i])
		l.cells[i] = n
	}
	l.sums = append(l.sums, sum)
}

// cellSum is what a cell adds to its image's sum.
func cellSum(cell int64, n uint32) uint64 {
	if n == 0 {
		return 0
	}
	x := (uint64(cell)<<32 | uint64(n)) * 0x9e3779b97f4a7c15
	x = (x ^ x>>31) * 0xbf58476d1ce4e5b9
	return x ^ x>>29
}

// found recovers what a crash left: its image is that of the first k changes,
// with no fewer than were promised. It returns k.
func (l *tinyVolume) found(left *fakedisk.FS, atLeast int) (k int, err error) {
	r := &tinyVolume{boot: l.boot}
	if err := r.start(left); err != nil {
		return 0, err
	}
	defer r.end()
	p := make([]byte, tinySize)
	if err := r.s.ReadAt(p, 0); err != nil {
		return 0, err
	}
	sum, newest := uint64(0), uint32(0)
	for i := range int64(tinyCells) {
		n, whole := numberOf(p[i*crashCell:][:crashCell], i)
		if !whole {
			return 0, fmt.Errorf("cell %d is torn; it begins with change %d", i, n)
		}
		sum += cellSum(i, n)
		newest = max(newest, n)
	}
	for k := atLeast; k < len(l.sums); k++ {
		if l.sums[k] == sum {
			return k, nil
		}
	}
	if k := slices.Index(l.sums, sum); k >= 0 {
		return 0, fmt.Errorf("it is as after the first %d changes, %d were promised", k, atLeast)
	}
	return 0, fmt.Errorf("it is no prefix of the %d changes; the newest in it is %d", len(l.sums)-1, newest)
}

// workload is so many steps, ready to be crashed.
func (l *tinyVolume) workload(steps int) *crashtest.Workload {
	return &crashtest.Workload{
		Disk: l.disk,
		Do: func() error {
			for range steps {
				if err := l.step(); err != nil {
					return err
				}
			}
			return nil
		},
		Promised: func() uint64 { return uint64(l.synced)<<32 | uint64(l.acked) },
		Check: func(left *fakedisk.FS, killed bool) error {
			atLeast := l.synced
			if killed {
				atLeast = l.acked
			}
			k, err := l.found(left, atLeast)
			if err != nil {
				return err
			}
			// What a restart found and synced, another crash does not take.
			again, err := l.found(left.CrashClone(fakedisk.LoseAll), 0)
			if err != nil {
				return fmt.Errorf("after another crash: %w", err)
			}
			if l.sums[k] != l.sums[again] {
				return fmt.Errorf("as after %d changes, and after another crash as after %d", k, again)
			}
			return nil
		},
		Close: l.end,
	}
}

// newTinyVolume is a volume that has been through as many crashes.
func newTinyVolume(rng *rand.Rand, crashes int) (*tinyVolume, error) {
	l := &tinyVolume{rng: rng, disk: fakedisk.New(rng.Uint64()), cells: make([]uint32, tinyCells), sums: []uint64{0}}
	if err := createTiny(l.disk); err != nil {
		return nil, err
	}
	if err := l.start(l.disk); err != nil {
		return nil, err
	}
	for range crashes {
		for range 60 {
			if err := l.step(); err != nil {
				return nil, err
			}
		}
		left := l.disk.CrashClone(fakedisk.KeepSome(rng.Uint64()))
		l.end()
		k, err := l.found(left, l.synced)
		if err != nil {
			return nil, fmt.Errorf("after a power loss: %w", err)
		}
		l.disk = left
		l.cutTo(k)
		if err := l.start(left); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// cutTo forgets every change after the first k.
func (l *tinyVolume) cutTo(k int) {
	kept := l.all[:k]
	l.all, l.sums = nil, []uint64{0}
	clear(l.cells)
	for _, c := range kept {
		l.apply(c)
	}
	l.acked, l.synced = k, k
}

// TestP1P2CrashStates cuts the power at every operation of a volume's disk, in
// every way: it comes back as after exactly the first k changes, and k is no
// less than what was flushed (after a kill: acknowledged). A restart needs no
// help (P1, P2; invariant 1).
func TestP1P2CrashStates(t *testing.T) {
	unraced(t)
	crashtest.Run(t, crashtest.Options{States: crashtest.Share(t, 0.3)}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		l, err := newTinyVolume(rng, rng.IntN(4))
		if err != nil {
			return nil, err
		}
		return l.workload(150), nil
	})
}
