package disk

import (
	"errors"

	"golang.org/x/sys/unix"
)

// zeroes is what is written where a file system cannot zero a range itself.
var zeroes [1 << 20]byte

func (f *osFile) Zero(off, n int64, punch bool) error {
	if n == 0 {
		return nil
	}
	err := f.zeroRange(off, n, punch)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.writeZeroes(off, n)
	}
	return err
}

// zeroRange has the file system do it. A hole never makes a file longer, so one
// that reaches past the end is made of zeroes first.
func (f *osFile) zeroRange(off, n int64, punch bool) error {
	if punch {
		size, err := f.Size()
		if err != nil {
			return err
		}
		if off+n > size {
			if err := f.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n); err != nil {
				return err
			}
		}
		return f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	return f.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
}

// Reserve leaves the file's size alone, so that what was written still has an end.
func (f *osFile) Reserve(off, n int64) error {
	err := f.fallocate(unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

func (f *osFile) fallocate(mode uint32, off, n int64) error {
	return f.call("fallocate", func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
}

func (f *osFile) writeZeroes(off, n int64) error {
	for n > 0 {
		p := zeroes[:min(n, int64(len(zeroes)))]
		if _, err := f.WriteAt(p, off); err != nil {
			return err
		}
		off += int64(len(p))
		n -= int64(len(p))
	}
	return nil
}
