package mirror

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/lockstep-storage/lockstep/disk"
)

const (
	superblockName = "superblock"
	superblockTemp = "superblock.new"
)

// ErrSuperblock says that a superblock cannot be read. Errors that wrap it say
// why. Nothing was changed: a superblock that cannot be read is never started
// afresh (invariant 10).
var ErrSuperblock = errors.New("the superblock cannot be read; nothing was overwritten")

// A SuperblockFile is a replica's open superblock. Its methods are not to be
// called concurrently.
type SuperblockFile struct {
	file  disk.File
	where string
	seq   uint64
	slot  uint32 // that holds seq
	err   error  // of the first failed commit
}

// CreateSuperblock makes a replica's superblock, durably and with sequence
// number 2 (each slot gets a copy, so either may be lost from the start). It
// fails with an error that satisfies errors.Is(err, fs.ErrExist) if there is
// one. A crash leaves the whole superblock or none.
func CreateSuperblock(dir disk.FS, sb Superblock) error {
	fail := func(err error) error {
		return fmt.Errorf("creating the superblock in %v: %w", dir, err)
	}
	if f, err := dir.Open(superblockName); err == nil {
		return fail(errors.Join(fs.ErrExist, f.Close()))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	if err := dir.Remove(superblockTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	f, err := dir.Create(superblockTemp)
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(writeBothSlots(f, sb), f.Close()); err != nil {
		return fail(err)
	}
	if err := dir.Rename(superblockTemp, superblockName); err != nil {
		return fail(err)
	}
	if err := dir.SyncDir(); err != nil {
		return fail(err)
	}
	return nil
}

func writeBothSlots(f disk.File, sb Superblock) error {
	// Allocated at once, so that no later commit finds the disk full.
	if err := f.Zero(0, 2*SuperblockSlotSize, false); err != nil {
		return err
	}
	for slot := range uint32(2) {
		sb.Seq = uint64(slot) + 1
		b, err := sb.encodeSlot(slot)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(b, int64(slot)*SuperblockSlotSize); err != nil {
			return err
		}
	}
	return f.Datasync()
}

// OpenSuperblock reads the newer of the two slots. One that cannot be read is
// taken for a commit that never completed: CheckNoted tells whether it was. With
// neither readable, or one that a newer program wrote, it fails with ErrSuperblock.
func OpenSuperblock(dir disk.FS) (*SuperblockFile, Superblock, error) {
	f, err := dir.Open(superblockName)
	if err != nil {
		return nil, Superblock{}, fmt.Errorf("opening the superblock in %v: %w", dir, err)
	}
	// Should the process that created it have been killed before it did so: what
	// is found may be built on, and must not be gone after a power loss.
	if err := dir.SyncDir(); err != nil {
		return nil, Superblock{}, errors.Join(fmt.Errorf("syncing the superblock's name in %v: %w", dir, err), f.Close())
	}
	sb, slot, err := readSlots(f)
	if err != nil {
		err = fmt.Errorf("%w: file %s in %v: %w", ErrSuperblock, superblockName, dir, err)
		return nil, Superblock{}, errors.Join(err, f.Close())
	}
	return &SuperblockFile{file: f, where: dir.String(), seq: sb.Seq, slot: slot}, sb, nil
}

// readSlots returns the newer readable slot and its number.
func readSlots(f disk.File) (Superblock, uint32, error) {
	var slots [2]Superblock
	var errs [2]error
	buf := make([]byte, SuperblockSlotSize)
	for i := range slots {
		n, err := f.ReadAt(buf, int64(i)*SuperblockSlotSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return Superblock{}, 0, err
		}
		slots[i], errs[i] = decodeSlot(buf[:n], uint32(i))
		if errors.Is(errs[i], errSlotVersion) {
			return Superblock{}, 0, fmt.Errorf("slot %d: %w: start the program that wrote it, or a newer one", i, errs[i])
		}
	}
	switch {
	case errs[0] != nil && errs[1] != nil:
		return Superblock{}, 0, fmt.Errorf("both slots are bad (slot 0: %w; slot 1: %w): remove this replica and create it anew, its peer will fill it", errs[0], errs[1])
	case errs[0] == nil && errs[1] == nil && slots[0].Seq == slots[1].Seq:
		return Superblock{}, 0, fmt.Errorf("both slots carry sequence number %d", slots[0].Seq)
	case errs[1] != nil || errs[0] == nil && slots[0].Seq > slots[1].Seq:
		return slots[0], 0, nil
	}
	return slots[1], 1, nil
}

// Seq is the sequence number of the last commit.
func (f *SuperblockFile) Seq() uint64 { return f.seq }

// Commit gives sb the next sequence number and makes it durable, in the older
// slot: one write, one sync. Once it has returned nil, every OpenSuperblock
// returns sb or a later one. A failed write or sync is final (invariant 9): what
// is on the disk is unknown, and every later Commit fails with the same error.
// An sb beyond the format's bounds is refused without writing and is not final.
func (f *SuperblockFile) Commit(sb *Superblock) error {
	if f.err != nil {
		return f.err
	}
	next := *sb
	next.Seq = f.seq + 1
	slot := 1 - f.slot
	b, err := next.encodeSlot(slot)
	if err != nil {
		return fmt.Errorf("committing superblock %d in %s: %w", next.Seq, f.where, err)
	}
	if _, err = f.file.WriteAt(b, int64(slot)*SuperblockSlotSize); err == nil {
		err = f.file.Datasync()
	}
	if err != nil {
		f.err = fmt.Errorf("committing superblock %d in %s: %w", next.Seq, f.where, err)
		return f.err
	}
	sb.Seq, f.seq, f.slot = next.Seq, next.Seq, slot
	return nil
}

// CheckNoted compares the superblock with the greatest sequence number that any
// batch of the journal noted (journal.Notes): a batch notes only what was
// durable before it, so a higher number than ours means that the newest slot is
// damaged and that an older one was read in its place (14d).
func (f *SuperblockFile) CheckNoted(seq uint64) error {
	if seq <= f.seq {
		return nil
	}
	return fmt.Errorf("%w: in %s the journal was written under superblock %d, but the newest readable one is %d: a slot is damaged; remove this replica and create it anew, its peer will fill it",
		ErrSuperblock, f.where, seq, f.seq)
}

// Close closes the file. It does not commit.
func (f *SuperblockFile) Close() error { return f.file.Close() }

// following is the history that a generation which begins at first is appended
// to. An entry at or past first is dropped: its record never came into the
// journal, because the session that brought it ended in between. At MaxGenerations
// room is made; see History.Prune.
func (s *Superblock) following(first, keepFrom LSN) History {
	return s.History.CutTo(first - 1).Prune(keepFrom)
}
