package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/store"
)

// wipeStep is how much of a device is zeroed with one call, so that a wipe of a
// large one can be interrupted between two.
const wipeStep = 1 << 30

// storePath is where a volume's bytes are, given its directory.
func storePath(dir string, s Settings) string {
	if s.Store != "" {
		return s.Store
	}
	return filepath.Join(dir, "data")
}

// makeStore makes what a new volume's bytes live on: zeroes throughout, durably.
// A file is made, which made reports; one that is there already is never taken,
// for what is in it may be wanted. A block device is there already, and is taken
// only with wipe. direct is how it will be opened.
func makeStore(path string, r CreateRequest, direct bool) (made bool, err error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := store.CreateFile(path, r.Size, store.FileOptions{Preallocate: r.Preallocate, Direct: direct}); err != nil {
			return false, fmt.Errorf("store %s can't be made: %w", path, bare(err))
		}
		return true, syncDir(filepath.Dir(path))
	case err != nil:
		return false, fmt.Errorf("store %s can't be used: %w", path, bare(err))
	case st.Mode().Type() != fs.ModeDevice:
		return false, refuse(CodeRefused, "store %s exists already, and nothing is overwritten: name a path that does not exist", path)
	case !r.Wipe:
		return false, refuse(CodeRefused, "store %s is a block device, and a new volume erases all that is on it: say so with --wipe", path)
	}
	return false, wipeDevice(path, r.Size, !r.Preallocate, direct)
}

// wipeDevice fills a device with zeroes; with punch, a thin one may give its
// space back.
func wipeDevice(path string, size int64, punch, direct bool) error {
	f, err := store.OpenFile(path, store.FileOptions{Direct: direct})
	if err != nil {
		return err
	}
	if f.Size() != size {
		return errors.Join(refuse(CodeBadRequest, "device %s has %d bytes, and the volume that fills it must have as many, not %d", path, f.Size(), size), f.Close())
	}
	for off := int64(0); off < size && err == nil; off += wipeStep {
		err = f.Zero(off, min(wipeStep, size-off), punch)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("wipe device %s: %w", path, err)
	}
	return nil
}

// openJournal is the directory of a journal that has one of its own, nil for
// one that has not. It is never made: an empty directory in the place of a disk
// that is not mounted would be mistaken for the journal's.
func openJournal(s Settings, open func(dir string) (disk.FS, error)) (disk.FS, error) {
	if s.Journal == "" {
		return nil, nil
	}
	switch st, err := os.Stat(s.Journal); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refuse(CodeRefused, "the journal's directory %s is missing (is its disk mounted?)", s.Journal)
	case err != nil:
		return nil, fmt.Errorf("the journal's directory %s can't be used: %w", s.Journal, bare(err))
	case !st.IsDir():
		return nil, refuse(CodeRefused, "the journal needs a directory, and %s is none", s.Journal)
	}
	return open(s.Journal)
}

// eraseJournal removes the journal of the replica in dir from a directory of its
// own. What is there and not the replica's stays, and so does the directory.
func eraseJournal(dir string, s Settings) error {
	journal, err := openJournal(s, disk.OS)
	if err != nil || journal == nil {
		return err
	}
	fsys, err := disk.OS(dir)
	if err != nil {
		return err
	}
	return mirror.EraseJournal(fsys, journal)
}
