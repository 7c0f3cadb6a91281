package store

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func deviceSize(fd int) (int64, error) {
	var size uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	return int64(size), nil
}

// inMemory reports whether a file lies on tmpfs or ramfs, which refuse
// RWF_NOWAIT although no read of theirs waits for a disk.
func inMemory(fd int) bool {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return false
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}

// preadNoWait reads what is in the page cache. It is the raw call: the wrapper
// of x/sys would allocate a vector for each read.
func preadNoWait(fd int, p []byte, off int64) (int, error) {
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(off>>32>>32), unix.RWF_NOWAIT)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// zeroRange has the file system or the device make the zeroes. On a device
// PUNCH_HOLE unmaps only where the device promises zeroes for that, which
// BLKDISCARD does not; it is refused elsewhere.
func zeroRange(fd int, off, n int64, punch bool) error {
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if punch {
		mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	}
	return retry(func() error { return unix.Fallocate(fd, mode, off, n) })
}

// cannotZero reports whether zeroRange's error means that zeroes have to be
// written. A device answers EINVAL to what is not made of its whole sectors.
func cannotZero(err error) bool {
	return err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL || err == unix.ENODEV
}

var zeroes [256 << 10]byte

func writeZeroes(f *os.File, off, n int64) error {
	for n > 0 {
		k := min(n, int64(len(zeroes)))
		if _, err := f.WriteAt(zeroes[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// preallocate takes the space of a new file.
func preallocate(f *os.File, size int64) error {
	err := retry(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return writeZeroes(f, 0, size)
	}
	return err
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
