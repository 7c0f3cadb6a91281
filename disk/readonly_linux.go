package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrReadOnly is what every change of a ReadOnly directory answers.
var ErrReadOnly = errors.New("opened for reading only")

// ReadOnly opens the directory dir of the operating system for reading: nothing
// is made, and whatever would change something answers ErrReadOnly. Sub of a
// directory that is missing is fs.ErrNotExist. Lock takes the lock if its file
// is there, and nothing if not, for then nobody can hold it.
func ReadOnly(dir string) (FS, error) {
	switch info, err := os.Stat(dir); {
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, &fs.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
	}
	return readOnlyDir{osDir(dir)}, nil
}

type readOnlyDir struct{ osDir }

func (d readOnlyDir) refuse(op, name string) error {
	return &fs.PathError{Op: op, Path: d.path(name), Err: ErrReadOnly}
}

func (d readOnlyDir) Create(name string) (File, error) { return nil, d.refuse("create", name) }
func (d readOnlyDir) Remove(name string) error         { return d.refuse("remove", name) }
func (d readOnlyDir) Rename(_, newname string) error   { return d.refuse("rename", newname) }
func (d readOnlyDir) SyncDir() error                   { return d.refuse("sync", "") }

// Sub implements FS.
func (d readOnlyDir) Sub(name string) (FS, error) { return ReadOnly(d.path(name)) }

// Open implements FS.
func (d readOnlyDir) Open(name string) (File, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
}

// Lock implements FS.
func (d readOnlyDir) Lock(name string) (io.Closer, error) {
	f, err := os.Open(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return noLock{}, nil
	}
	if err != nil {
		return nil, err
	}
	return flock(f)
}

type noLock struct{}

func (noLock) Close() error { return nil }

// flock takes the lock of an open file, whose Close gives it up. It takes over f.
func flock(f *os.File) (io.Closer, error) {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return f, nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			f.Close()
			return nil, fmt.Errorf("lock %s: %w; stop the one that uses this directory first", f.Name(), ErrLocked)
		default:
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

type readOnlyFile struct{ *os.File }

func (f readOnlyFile) refuse(op string) error {
	return &fs.PathError{Op: op, Path: filepath.Clean(f.Name()), Err: ErrReadOnly}
}

func (f readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, f.refuse("write") }
func (f readOnlyFile) WritevAt([][]byte, int64) error     { return f.refuse("write") }
func (f readOnlyFile) Zero(_, _ int64, _ bool) error      { return f.refuse("write") }
func (f readOnlyFile) Reserve(_, _ int64) error           { return f.refuse("reserve") }
func (f readOnlyFile) Datasync() error                    { return f.refuse("sync") }
func (f readOnlyFile) Truncate(int64) error               { return f.refuse("truncate") }

// Size implements File.
func (f readOnlyFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
