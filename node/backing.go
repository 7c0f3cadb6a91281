package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
// only with wipe.
func makeStore(path string, size int64, wipe bool) (made bool, err error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := store.CreateFile(path, size, store.FileOptions{}); err != nil {
			return false, fmt.Errorf("store %s can't be made: %w", path, bare(err))
		}
		return true, syncDir(filepath.Dir(path))
	case err != nil:
		return false, fmt.Errorf("store %s can't be used: %w", path, bare(err))
	case st.Mode().Type() != fs.ModeDevice:
		return false, refuse(CodeRefused, "store %s exists already, and nothing is overwritten: name a path that does not exist", path)
	case !wipe:
		return false, refuse(CodeRefused, "store %s is a block device, and a new volume erases all that is on it: say so with --wipe", path)
	}
	return false, wipeDevice(path, size)
}

func wipeDevice(path string, size int64) error {
	f, err := store.OpenFile(path, store.FileOptions{})
	if err != nil {
		return err
	}
	if f.Size() != size {
		return errors.Join(refuse(CodeBadRequest, "device %s has %d bytes, and the volume that fills it must have as many, not %d", path, f.Size(), size), f.Close())
	}
	for off := int64(0); off < size && err == nil; off += wipeStep {
		err = f.Zero(off, min(wipeStep, size-off), true)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("wipe device %s: %w", path, err)
	}
	return nil
}
