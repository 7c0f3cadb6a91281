package journal

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/disk"
)

// SetAside takes their names from the segments in dir, durably, so that Create
// may make another journal there: each gets suffix, which must be new, behind
// its name, and keeps its bytes. It returns how many there were. Cut short, it
// can be called again. Nobody may have the journal open.
func SetAside(dir disk.FS, suffix string) (segments int, err error) {
	names, err := segmentNames(dir)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if err := dir.Rename(name, name+suffix); err != nil {
			return 0, fmt.Errorf("set segment %s in %v aside: %w", name, dir, err)
		}
	}
	if err := dir.SyncDir(); err != nil {
		return 0, fmt.Errorf("sync the journal's directory %v: %w", dir, err)
	}
	return len(names), nil
}
