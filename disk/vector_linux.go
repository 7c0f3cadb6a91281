package disk

import (
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovMax is the most pieces that one pwritev takes (IOV_MAX).
const iovMax = 1024

// vectors are pwritev's descriptions of buffers: the wrapper of x/sys would
// allocate one for each call.
var vectors = sync.Pool{New: func() any { return new([iovMax]unix.Iovec) }}

// WriteVector writes bufs one after the other to f from byte off on, in few
// system calls, all of it or an error. fd is f's descriptor; the caller sees to
// it that f is not closed meanwhile. It neither keeps nor changes bufs, and
// allocates nothing.
func WriteVector(f *os.File, fd int, bufs [][]byte, off int64) error {
	for len(bufs) > 1 {
		chunk := bufs[:min(len(bufs), iovMax)]
		n, err := pwritev(fd, chunk, off)
		if err != nil {
			return err
		}
		off += int64(n)
		done, rest := consume(chunk, n)
		bufs = bufs[done:]
		if len(rest) == 0 {
			continue
		}
		// Cut short within a piece. Its rest goes alone: bufs are the caller's
		// and stay as they are.
		if _, err := f.WriteAt(rest, off); err != nil {
			return err
		}
		off += int64(len(rest))
		bufs = bufs[1:]
	}
	if len(bufs) == 0 {
		return nil
	}
	_, err := f.WriteAt(bufs[0], off)
	return err
}

// consume returns how many of bufs the first n bytes fill, and what is left of
// the next one if those end within it.
func consume(bufs [][]byte, n int) (done int, rest []byte) {
	for i, b := range bufs {
		if n < len(b) {
			if n == 0 {
				return i, nil
			}
			return i, b[n:]
		}
		n -= len(b)
	}
	return len(bufs), nil
}

// pwritev is one system call, again if a signal interrupts it. io.ErrShortWrite:
// it wrote nothing.
func pwritev(fd int, bufs [][]byte, off int64) (int, error) {
	v := vectors.Get().(*[iovMax]unix.Iovec)
	k := 0
	for _, b := range bufs {
		if len(b) > 0 {
			v[k].Base = unsafe.SliceData(b)
			v[k].SetLen(len(b))
			k++
		}
	}
	var n uintptr
	errno := unix.EINTR
	for errno == unix.EINTR {
		// The last argument is the offset's upper half, where a register is too
		// short for all of it; elsewhere the kernel shifts it out.
		n, _, errno = unix.Syscall6(unix.SYS_PWRITEV, uintptr(fd), uintptr(unsafe.Pointer(v)), uintptr(k),
			uintptr(off), uintptr(uint64(off)>>32), 0)
	}
	clear(v[:k]) // the buffers are the caller's
	vectors.Put(v)
	switch {
	case errno != 0:
		return 0, errno
	case n == 0 && k > 0:
		return 0, io.ErrShortWrite
	}
	return int(n), nil
}
