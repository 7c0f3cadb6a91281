package disk

import (
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// osFile is a file of the operating system. System calls that package os lacks
// go through conn, which keeps the descriptor from being closed, and given to
// another file, under a call.
type osFile struct {
	*os.File
	conn syscall.RawConn
}

func openFile(path string, flags int) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &osFile{File: f, conn: conn}, nil
}

// iovMax is the most pieces that one pwritev takes (IOV_MAX).
const iovMax = 1024

func (f *osFile) WritevAt(bufs [][]byte, off int64) error {
	for len(bufs) > 0 {
		chunk := bufs[:min(len(bufs), iovMax)]
		n, err := f.pwritev(chunk, off)
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
		if _, err := f.File.WriteAt(rest, off); err != nil {
			return err
		}
		off += int64(len(rest))
		bufs = bufs[1:]
	}
	return nil
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

func (f *osFile) pwritev(bufs [][]byte, off int64) (n int, err error) {
	err = f.call("pwritev", func(fd int) (err error) {
		n, err = unix.Pwritev(fd, bufs, off)
		return err
	})
	if err == nil && n == 0 && size(bufs) > 0 {
		err = &fs.PathError{Op: "pwritev", Path: f.Name(), Err: io.ErrShortWrite}
	}
	return n, err
}

func size(bufs [][]byte) (n int) {
	for _, b := range bufs {
		n += len(b)
	}
	return n
}

// Datasync is fdatasync: it leaves out times, which nobody here needs, and so
// saves a second write to the file system's own journal.
func (f *osFile) Datasync() error { return f.call("fdatasync", unix.Fdatasync) }

func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// call runs one system call on the descriptor, again if a signal interrupts it.
func (f *osFile) call(name string, do func(fd int) error) error {
	var err error
	cerr := f.conn.Control(func(fd uintptr) {
		for {
			if err = do(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil {
		err = fs.ErrClosed
	}
	if err != nil {
		return &fs.PathError{Op: name, Path: f.Name(), Err: err}
	}
	return nil
}
