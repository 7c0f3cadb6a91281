package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096
	// unknownAlignment is what O_DIRECT is taken to want where nobody says: no
	// file system in use wants more.
	unknownAlignment = 4096
)

var errNotDirect = errors.New("its file system has no direct I/O (O_DIRECT), as one in memory has none: put the store elsewhere, or leave direct off")

// alignDirect finds out how f, open with O_DIRECT, wants to be used.
func alignDirect(f *os.File, device, memory bool) (*direct, error) {
	if memory { // newer kernels take the flag there, and ignore it
		return nil, errNotDirect
	}
	fd := int(f.Fd())
	mem, block, known, err := directAlignment(fd)
	if err != nil {
		return nil, fmt.Errorf("alignment of direct I/O: %w", err)
	}
	if !known {
		mem, block = unknownAlignment, unknownAlignment
		if device {
			n, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
			if err != nil {
				return nil, fmt.Errorf("size of the device's blocks: %w", err)
			}
			mem, block = int64(n), int64(n)
		}
	}
	switch {
	case mem <= 0 || block <= 0:
		return nil, errNotDirect
	case mem&(mem-1) != 0 || block&(block-1) != 0 || max(mem, block) > bounceSize:
		return nil, fmt.Errorf("direct I/O wants memory aligned to %d and blocks of %d bytes here, and powers of two up to %d can be had: leave direct off", mem, block, bounceSize)
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return nil, err
	}
	unit := int64(pageSize)
	for unit < min(int64(st.Blksize), bounceSize) {
		unit *= 2
	}
	return newDirect(f, mem, block, unit), nil
}

// directAlignment asks the kernel, which knows since 6.1 and for some file
// systems. Zeroes that are known mean that it cannot be done.
func directAlignment(fd int) (mem, block int64, known bool, err error) {
	var st unix.Statx_t
	err = retry(func() error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) })
	if err == unix.ENOSYS {
		return 0, 0, false, nil
	}
	return int64(st.Dio_mem_align), int64(st.Dio_offset_align), st.Mask&unix.STATX_DIOALIGN != 0, err
}

// try reads the first block of a file of size bytes: what was found out is
// believed no further than that.
func (d *direct) try(size int64) error {
	if size%d.block != 0 {
		return fmt.Errorf("it has %d bytes, and direct I/O wants a multiple of %d here: leave direct off", size, d.block)
	}
	b := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(b)
	switch _, err := d.f.ReadAt((*b)[:d.block], 0); {
	case errors.Is(err, unix.EINVAL):
		return errNotDirect
	case err != nil && err != io.EOF:
		return fmt.Errorf("read its first block: %w", bare(err))
	}
	return nil
}
