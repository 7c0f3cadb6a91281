package snapshot

import (
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/disk"
)

// A Report is what Check found.
type Report struct {
	Info
	Used      int64 // length of the file, bytes
	Preserved int64 // bytes of the image, zeroes included
}

// Check reads the whole file of a snapshot of a volume of size bytes that nobody
// has open, and changes nothing. Its errors are those of Open and of Verify.
func Check(dir disk.FS, name string, size int64) (_ Report, err error) {
	s := newSnapshot(dir, name, 0)
	if s.file, err = dir.Open(name); err != nil {
		return Report{}, fmt.Errorf("snapshot %s: %w", s.path, err)
	}
	defer func() { err = errors.Join(err, s.file.Close()) }()
	if _, err := s.load(size); err != nil {
		return Report{}, fmt.Errorf("snapshot %s: %w", s.path, err)
	}
	return Report{Info: s.info, Used: s.end, Preserved: s.index.bytes}, s.Verify()
}
