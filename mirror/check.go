package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/journal"
	"github.com/lockstep-storage/lockstep/snapshot"
)

// CheckOptions say what of a replica is not in its directory.
type CheckOptions struct {
	// Journal is the journal's directory, if Create was given one.
	Journal disk.FS
	// JournalErr, if not nil, is why that directory could not be opened.
	JournalErr error
	// StoreSize is the size of the backing store, bytes; 0: unknown.
	StoreSize int64
}

// A CheckReport is what Check found. What could not be read is left out.
type CheckReport struct {
	Superblock *CheckedSuperblock `json:"superblock,omitempty"`
	Journal    *CheckedJournal    `json:"journal,omitempty"`
	Bitmaps    []CheckedBitmap    `json:"bitmaps"`
	StoreSize  int64              `json:"storeSize,omitempty"` // bytes; 0: not looked at
	Undo       *UndoStatus        `json:"undo,omitempty"`      // of a bitmap resync that is not through
	Snapshots  []SnapshotStatus   `json:"snapshots"`
	// Problems are damage: the replica does not open, or gives something up.
	Problems []Finding `json:"problems"`
	// Remarks are what the next Open mends by itself, and nothing is lost by: a
	// crash leaves such things.
	Remarks []Finding `json:"remarks"`
}

// Sound reports whether there is no problem.
func (r *CheckReport) Sound() bool { return len(r.Problems) == 0 }

// A Finding is a sentence about a place in a file of the replica.
type Finding struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`        // bytes; -1: the file as a whole
	LSN    LSN    `json:"lsn,omitempty"` // 0: none
	// Text says what was found and, of a problem, what can be done.
	Text string `json:"text"`
}

func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Offset >= 0 {
		fmt.Fprintf(&b, ", offset %d", f.Offset)
	}
	if f.LSN > 0 {
		fmt.Fprintf(&b, ", LSN %d", f.LSN)
	}
	b.WriteString(": " + f.Text)
	return b.String()
}

// CheckedSuperblock is what the newer of a superblock's two slots says.
type CheckedSuperblock struct {
	Sequence    uint64    `json:"sequence"`
	ID          ID        `json:"id"` // of the volume
	Volume      string    `json:"volume"`
	Node        string    `json:"node"`
	Size        int64     `json:"size"` // bytes
	Disk        DiskState `json:"disk"`
	Epoch       uint64    `json:"epoch"`
	SetVersion  uint64    `json:"setVersion"`
	InSync      []Member  `json:"inSync"`
	Generations int       `json:"generations"` // of the history
}

// CheckedJournal is what a journal holds, up to its end or its damage.
type CheckedJournal struct {
	Segments int           `json:"segments"` // that hold records
	Free     int           `json:"free"`     // segments that hold none
	Size     int64         `json:"size"`     // bytes
	Used     int64         `json:"used"`     // bytes
	Batches  int           `json:"batches"`
	Records  int           `json:"records"`
	First    LSN           `json:"first"` // of the records held; End+1 if there is none
	End      LSN           `json:"end"`
	Noted    journal.Notes `json:"noted"`
	// Torn: unreadable records, or such as are outside the history, follow.
	Torn bool `json:"torn"`
}

// checkedJournal is what a dump found, which came to end.
func checkedJournal(r *journal.Report, end LSN) *CheckedJournal {
	return &CheckedJournal{
		Segments: r.Segments, Free: r.Free, Size: r.Size, Used: r.Used, Batches: r.Batches, Records: r.Records,
		First: r.First, End: end, Noted: r.Noted, Torn: r.Torn,
	}
}

// CheckedBitmap is what one bitmap says.
type CheckedBitmap struct {
	File string `json:"file"`
	// Peer is whose out-of-sync bitmap it is, "" for the write-intent bitmap.
	Peer   string    `json:"peer,omitempty"`
	Marked int64     `json:"marked"` // bytes of the volume, in whole units
	Base   *Position `json:"base,omitempty"`
}

// Check reads everything in a replica's directory but the bytes of its store,
// and judges each part and whether they fit each other. It changes nothing, and
// locks nothing but a journal's directory of its own; nobody may have the
// replica open. Damage is no error but a problem of the report; an error means
// that Check could not look.
func Check(dir disk.FS, o CheckOptions) (CheckReport, error) {
	names, err := dir.List()
	if err != nil {
		return CheckReport{}, fmt.Errorf("check the replica in %v: %w", dir, err)
	}
	c := checker{dir: dir, o: o, names: names}
	c.r = CheckReport{StoreSize: o.StoreSize, Bitmaps: []CheckedBitmap{}, Snapshots: []SnapshotStatus{}, Problems: []Finding{}, Remarks: []Finding{}}
	if c.superblock() {
		err = c.journal()
		noted := uint64(0)
		if c.whole {
			noted = c.r.Journal.Noted.SuperblockSeq
		}
		c.slots(noted)
		c.bitmaps()
		c.undo()
		c.snapshots()
	}
	c.leftovers()
	return c.r, err
}

// undo checks what a bitmap resync can be rolled back by, data and all.
func (c *checker) undo() {
	mark, file := c.super.Resync, fileIn(c.dir, undoName)
	if mark == nil || mark.Undo.IsZero() {
		if slices.Contains(c.names, undoName) {
			c.remark(file, -1, 0, "the undo of a resync that is over; the next start removes it")
		}
		return
	}
	rep, err := snapshot.Check(c.dir, undoName, c.super.Size)
	if err == nil && ID(rep.ID) != mark.Undo {
		err = fmt.Errorf("it is undo %v, and the superblock names %v", ID(rep.ID), mark.Undo)
	}
	note, noteErr := decodeUndoNote(rep.Note)
	switch {
	case errors.Is(err, snapshot.ErrVersion):
		c.problem(file, -1, 0, "%v", err)
	case err != nil, noteErr != nil:
		c.problem(file, -1, 0, "%v: the replica is Inconsistent until a resync is through, and cannot be rolled back", cmp.Or(err, noteErr))
	default:
		c.r.Undo = &UndoStatus{Base: note.base, Began: rep.Created, Preserved: rep.Preserved, Used: rep.Used, RollingBack: mark.RollingBack}
	}
}

// snapshots checks each that the superblock names, data and all.
func (c *checker) snapshots() {
	for _, e := range c.super.Snapshots {
		file := fileIn(c.dir, snapshotFile(e.ID))
		s := SnapshotStatus{Name: e.Name, ID: e.ID, At: e.At, Created: e.Created, Peer: e.Peer, Before: e.Before, Lost: e.Lost}
		if e.Lost == "" {
			rep, err := snapshot.Check(c.dir, snapshotFile(e.ID), c.super.Size)
			if err == nil && ID(rep.ID) != e.ID {
				err = fmt.Errorf("it is snapshot %v", ID(rep.ID))
			}
			if err != nil {
				c.problem(file, -1, 0, "snapshot %q: %v: it is lost, and the volume goes on without", e.Name, err)
			}
			s.Preserved, s.Used = rep.Preserved, rep.Used
		}
		c.r.Snapshots = append(c.r.Snapshots, s)
	}
	for _, name := range c.names {
		id, ok := strings.CutPrefix(name, snapshotPrefix)
		if ok && !strings.HasSuffix(name, brokenSuffix) && !namesSnapshot(c.super.Snapshots, id) {
			c.remark(fileIn(c.dir, name), -1, 0, "a snapshot that was not made, or was deleted or lost; the next start removes it")
		}
	}
}

// checker is one Check.
type checker struct {
	dir   disk.FS
	o     CheckOptions
	names []string // files in dir
	super Superblock
	end   LSN // of the journal; where it is damaged, as far as it is whole
	whole bool
	r     CheckReport

	slot    int64 // the superblock's slot that is not in force, and
	slotErr error // why it cannot be read
}

// What can be done about damage that only a peer can mend.
const refill = "if a peer holds the volume, delete this replica and create it anew: the peer fills it"

// remake is the remedy of a replica whose journal is lost, or that failed.
const remake = "if a peer holds the volume, 'lockstep repair' has this replica resynced from it"

func fileIn(dir disk.FS, name string) string { return fmt.Sprintf("%v/%s", dir, name) }

func (c *checker) problem(file string, off int64, lsn LSN, format string, a ...any) {
	c.r.Problems = append(c.r.Problems, finding(file, off, lsn, format, a...))
}

func (c *checker) remark(file string, off int64, lsn LSN, format string, a ...any) {
	c.r.Remarks = append(c.r.Remarks, finding(file, off, lsn, format, a...))
}

// finding has one line: joined errors have several.
func finding(file string, off int64, lsn LSN, format string, a ...any) Finding {
	text := strings.ReplaceAll(fmt.Sprintf(format, a...), "\n", "; ")
	return Finding{file, off, lsn, text}
}

// superblock reports whether one slot can be believed.
func (c *checker) superblock() bool {
	file := fileIn(c.dir, superblockName)
	f, err := c.dir.Open(superblockName)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			c.problem(file, -1, 0, "there is no superblock, so this is no replica, or what is left of one: %s", refill)
		} else {
			c.problem(file, -1, 0, "it cannot be opened: %v", err)
		}
		return false
	}
	defer f.Close() // it was only read
	sb, slot, err := readSlots(f)
	if err != nil {
		c.problem(file, -1, 0, "%v", err)
		return false
	}
	c.super = sb
	c.r.Superblock = &CheckedSuperblock{
		Sequence: sb.Seq, ID: sb.Volume, Volume: sb.Name, Node: sb.Node, Size: sb.Size, Disk: sb.Disk,
		Epoch: sb.Epoch, SetVersion: sb.SetVersion, InSync: sb.Set, Generations: len(sb.History),
	}
	c.otherSlot(f, 1-slot)
	switch {
	case sb.Disk == Failed || slices.Contains(c.names, failedName):
		c.problem(file, int64(slot)*SuperblockSlotSize, 0, "the replica is Failed: a write or an fsync failed earlier, and nothing unsynced of it may be believed; %s", remake)
	case sb.Disk == Inconsistent:
		c.remark(file, int64(slot)*SuperblockSlotSize, 0, "the replica is Inconsistent, in the middle of a resync: it cannot be promoted before that is through")
	}
	if size := c.o.StoreSize; size != 0 && size != sb.Size {
		c.problem(file, int64(slot)*SuperblockSlotSize, 0, "the volume has %d bytes, and the backing store %d: name the store that belongs to it, or give this one its size back", sb.Size, size)
	}
	return true
}

// otherSlot reads the slot that is not in force.
func (c *checker) otherSlot(f disk.File, slot uint32) {
	off := int64(slot) * SuperblockSlotSize
	buf := make([]byte, SuperblockSlotSize)
	n, err := f.ReadAt(buf, off)
	if err == nil || errors.Is(err, io.EOF) {
		_, err = decodeSlot(buf[:n], slot)
	}
	c.slot, c.slotErr = off, err
}

// slots judges the slot that is not in force by what the journal knows of it:
// noted is the greatest sequence number that a batch was written under.
func (c *checker) slots(noted uint64) {
	file, off := fileIn(c.dir, superblockName), c.slot
	if c.slotErr == nil {
		off = -1
	}
	switch {
	case noted > c.super.Seq:
		c.problem(file, off, 0, "the journal was written under superblock %d, and the newest readable one is %d: a slot is damaged; %s", noted, c.super.Seq, refill)
	case c.slotErr != nil:
		c.remark(file, off, 0, "slot cannot be read: %v. A crash in the middle of a commit leaves that; the next commit writes it", c.slotErr)
	}
}

// journal checks the journal, and that the superblock and it fit. Its error is
// that of a lock that another process holds.
func (c *checker) journal() error {
	if c.o.JournalErr != nil {
		c.problem(fileIn(c.dir, linkName), -1, 0, "%v", c.o.JournalErr)
		return nil
	}
	jdir, lock, err := openJournalDir(c.dir, c.o.Journal)
	switch {
	case errors.Is(err, disk.ErrLocked):
		return err
	case errors.Is(err, fs.ErrNotExist):
		c.problem(fileIn(c.dir, journalDir), -1, 0, "the journal is missing: %s", remake)
		return nil
	case err != nil:
		c.problem(fileIn(c.dir, linkName), -1, 0, "%v", err)
		return nil
	}
	if lock != nil {
		defer lock.Close() // nothing is written through it
	}
	var at place
	rep, err := journal.Dump(jdir, journal.Options{Valid: c.super.History.Valid}, at.visitor())
	c.end = at.lastWhole()
	if err != nil {
		file, off, lsn := at.ended(jdir)
		text := strings.Replace(err.Error(), fmt.Sprintf("segment %s, offset %d, LSN %d: ", at.segment, off, lsn), "", 1)
		if errors.Is(err, journal.ErrVersion) {
			c.problem(file, off, lsn, "%s: start the program that wrote it, or a newer one", text)
		} else {
			c.problem(file, off, lsn, "%s. Writes that were acknowledged are in doubt: %s", text, remake)
		}
	} else {
		c.end, c.whole = rep.End, true
		c.fit(jdir, &rep, &at)
	}
	if rep.Segments > 0 {
		c.r.Journal = checkedJournal(&rep, c.end)
	}
	return nil
}

// fit judges a journal that is whole against the superblock.
func (c *checker) fit(jdir disk.FS, rep *journal.Report, at *place) {
	for _, name := range rep.Worn {
		c.remark(fileIn(jdir, name), 0, 0, "one copy of the segment's header is lost; the next start writes it")
	}
	dir, h := fmt.Sprint(jdir), c.super.History
	if rep.Torn {
		file, off, lsn := at.ended(jdir)
		c.remark(file, off, lsn, "the journal ends here, in front of records that a crash left torn or that are outside the history; the next start cuts them off")
	}
	n := rep.Noted
	if n.Stable > rep.End {
		c.problem(dir, -1, rep.End, "it ends here, and notes that every member had LSN %d durably: journal and superblock do not belong together; %s", n.Stable, refill)
	}
	if n.Checkpoint > n.Stable {
		c.problem(dir, -1, n.Checkpoint, "it notes that the backing store has this record, which is newer than the newest stable one, LSN %d; %s", n.Stable, refill)
	}
	if last := h.Last(); last != nil && last.First > rep.End {
		c.remark(fileIn(c.dir, superblockName), -1, last.First, "the generation that begins here never had a record; the next start drops it")
	}
}

// bitmaps checks the write-intent bitmap and each peer's out-of-sync bitmap.
func (c *checker) bitmaps() {
	file := fileIn(c.dir, intentName)
	if rep, err := bitmap.CheckIntent(c.dir, intentName, c.super.Size); err != nil {
		renewed := errors.Is(err, bitmap.ErrDamaged) || errors.Is(err, fs.ErrNotExist)
		c.bitmap(file, err, renewed, "with every region marked")
	} else {
		c.pages(file, &rep)
		c.r.Bitmaps = append(c.r.Bitmaps, CheckedBitmap{File: file, Marked: rep.Set * rep.Unit})
	}
	for _, name := range c.names {
		node, isBitmap := strings.CutSuffix(name, bitmapSuffix)
		node, isPeers := strings.CutPrefix(node, bitmapPrefix)
		if !isBitmap || !isPeers {
			continue
		}
		file := fileIn(c.dir, name)
		rep, err := bitmap.CheckMap(c.dir, name, c.super.Size)
		if err != nil {
			c.bitmap(file, err, true, fmt.Sprintf("and a resync with %q is a full one should the journal not reach back", node))
			continue
		}
		c.pages(file, &rep)
		base := Position{Generation: rep.Base.Generation, LSN: LSN(rep.Base.LSN)}
		c.base(file, node, base, rep.Set == rep.Bits)
		c.r.Bitmaps = append(c.r.Bitmaps, CheckedBitmap{File: file, Peer: node, Marked: min(rep.Set*rep.Unit, c.super.Size), Base: &base})
	}
}

// bitmap reports one that cannot be read. What is renewed is set aside by the next
// start, but for one of another version, whose error says what to do.
func (c *checker) bitmap(file string, err error, renewed bool, then string) {
	switch {
	case errors.Is(err, bitmap.ErrVersion):
		c.problem(file, -1, 0, "%v", err)
	case renewed:
		c.problem(file, -1, 0, "%v. The next start makes a new one, %s", err, then)
	default:
		c.problem(file, -1, 0, "%v: %s", err, refill)
	}
}

func (c *checker) pages(file string, rep *bitmap.Report) {
	for _, i := range rep.Worn {
		c.remark(file, bitmap.HeaderOffset(i), 0, "copy %d of the header is lost, or older than the other; the next start writes it", i)
	}
	for _, i := range rep.Damaged {
		c.remark(file, bitmap.PageOffset(i), 0, "page %d cannot be read: all of its bits count as set, so more may be resynced than is needed; the next start writes it", i)
	}
}

// base judges what an out-of-sync bitmap is relative to.
func (c *checker) base(file, node string, base Position, all bool) {
	h := c.super.History
	switch {
	case h.Holds(base, c.end):
	case c.whole && !all && base.LSN > c.end && h.Position(base.LSN) == base && c.super.Resync == nil:
		// What a bitmap is relative to was durable here before, and is never
		// truncated, but where a resync goes on from an empty journal. With all bits
		// set it means nothing.
		c.problem(file, -1, base.LSN, "the bits are relative to this record, and the journal ends at LSN %d, before it: records that were durable are gone; %s", c.end, refill)
	case c.whole:
		c.remark(file, -1, base.LSN, "the bits are relative to a record that is not in the history: a resync with %q is a full one", node)
	}
}

// leftovers names the files that are there for people.
func (c *checker) leftovers() {
	for _, name := range c.names {
		switch {
		case strings.HasPrefix(name, setAsidePrefix):
			c.remark(fileIn(c.dir, name), -1, 0, "records that a truncation took away, kept for inspection: remove it when nobody needs it")
		case strings.HasPrefix(name, snapshotPrefix) && strings.HasSuffix(name, brokenSuffix):
			c.remark(fileIn(c.dir, name), -1, 0, "a snapshot that could not be read, kept for inspection: remove it when nobody needs it")
		case name == undoName+brokenSuffix:
			c.remark(fileIn(c.dir, name), -1, 0, "the undo of a resync, which could not be read, kept for inspection: remove it when nobody needs it")
		case strings.HasSuffix(name, bitmapSuffix+brokenSuffix):
			c.remark(fileIn(c.dir, name), -1, 0, "a bitmap that could not be read, kept for inspection: remove it when nobody needs it")
		}
	}
}

// A place is how far a dump came.
type place struct {
	segment string
	batch   journal.BatchInfo
	begun   bool // batch is one of segment
	seen    int  // records of batch
	next    LSN  // the first LSN of segment, or past the batches before batch
	off     int64
}

func (p *place) visitor() journal.Visitor {
	return journal.Visitor{
		Segment: func(s journal.SegmentInfo) {
			*p = place{segment: s.Name, next: s.First, off: journal.FirstBatch}
		},
		Batch: func(b journal.BatchInfo) {
			p.pass()
			p.batch, p.begun, p.seen = b, true, 0
		},
		Record: func(int64, *journal.Record) { p.seen++ },
	}
}

// pass takes batch for a whole one.
func (p *place) pass() {
	if p.begun {
		p.next, p.off = p.batch.First+LSN(p.batch.Records), p.batch.Next()
		p.begun = false
	}
}

// settle takes the last batch for a whole one if all of its records were seen.
func (p *place) settle() {
	if p.seen == p.batch.Records {
		p.pass()
	}
}

// lastWhole is the last LSN before the damage.
func (p *place) lastWhole() LSN {
	p.settle()
	return max(p.next, 1) - 1
}

// ended is where the dump did: the file, the offset of the batch that is not the
// journal's any more, and the LSN that was due.
func (p *place) ended(jdir disk.FS) (file string, off int64, lsn LSN) {
	if p.segment == "" {
		return fmt.Sprint(jdir), -1, 0
	}
	p.settle()
	return fileIn(jdir, p.segment), p.off, p.next
}
