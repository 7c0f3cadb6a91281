package mirror

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/journal"
)

// What DumpJournal shows.
type (
	JournalVisitor = journal.Visitor
	JournalSegment = journal.SegmentInfo
	JournalBatch   = journal.BatchInfo
	JournalRecord  = journal.Record
)

// Flags of a JournalRecord.
const (
	FlagLast   = journal.FlagLast
	FlagNoHole = journal.FlagNoHole
)

// DumpJournal shows the segments, batches and records of the journal of the
// replica in dir, in order, up to the end or to what is damaged, which is the
// error; the last batch shown may be torn, and then is no part of the journal.
// dir may also be a journal's directory itself, whose replica nobody knows: then
// no record is outside the history. Nothing is changed, and nobody may have the
// replica open.
func DumpJournal(dir disk.FS, o CheckOptions, v JournalVisitor) (CheckedJournal, error) {
	jdir, valid := dir, (func(LSN, uint64) bool)(nil)
	f, sb, err := OpenSuperblock(dir)
	if err == nil {
		_ = f.Close() // it was only read
		valid = sb.History.Valid
	}
	// One that cannot be read hides no journal.
	if !errors.Is(err, fs.ErrNotExist) {
		if o.JournalErr != nil {
			return CheckedJournal{}, o.JournalErr
		}
		own, lock, err := openJournalDir(dir, o.Journal)
		if err != nil {
			return CheckedJournal{}, err
		}
		if lock != nil {
			defer lock.Close() // nothing is written through it
		}
		jdir = own
	}
	at := place{}
	r, err := journal.Dump(jdir, journal.Options{Valid: valid}, both(at.visitor(), v))
	end := at.lastWhole()
	if err != nil {
		return *checkedJournal(&r, end), fmt.Errorf("read the journal in %v: %w", jdir, err)
	}
	return *checkedJournal(&r, r.End), nil
}

// both shows everything to a, and then to b.
func both(a, b JournalVisitor) JournalVisitor {
	return JournalVisitor{
		Segment: func(s JournalSegment) {
			a.Segment(s)
			if b.Segment != nil {
				b.Segment(s)
			}
		},
		Batch: func(i JournalBatch) {
			a.Batch(i)
			if b.Batch != nil {
				b.Batch(i)
			}
		},
		Record: func(off int64, r *JournalRecord) {
			a.Record(off, r)
			if b.Record != nil {
				b.Record(off, r)
			}
		},
	}
}
