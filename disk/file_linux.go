package disk

import (
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// osFile is a file of the operating system.
type osFile struct {
	*os.File
	// open is held, shared, under a system call that package os lacks, so that
	// the descriptor is not closed, and given to another file, meanwhile.
	open sync.RWMutex
	fd   int // -1: closed
}

func openFile(path string, flags int) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f, fd: int(f.Fd())}, nil
}

func (f *osFile) WritevAt(bufs [][]byte, off int64) error {
	f.open.RLock()
	defer f.open.RUnlock()
	if f.fd < 0 {
		return f.failed("pwritev", fs.ErrClosed)
	}
	if err := WriteVector(f.File, f.fd, bufs, off); err != nil {
		return f.failed("pwritev", err)
	}
	return nil
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

func (f *osFile) Close() error {
	f.open.Lock()
	defer f.open.Unlock()
	f.fd = -1
	return f.File.Close()
}

// call runs one system call on the descriptor, again if a signal interrupts it.
func (f *osFile) call(name string, do func(fd int) error) error {
	f.open.RLock()
	defer f.open.RUnlock()
	if f.fd < 0 {
		return f.failed(name, fs.ErrClosed)
	}
	for {
		switch err := do(f.fd); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return f.failed(name, err)
		}
	}
}

// failed names the file in an error that does not.
func (f *osFile) failed(name string, err error) error {
	if _, ok := err.(*fs.PathError); ok {
		return err
	}
	return &fs.PathError{Op: name, Path: f.Name(), Err: err}
}
