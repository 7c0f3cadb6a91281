package disk

import (
	"errors"
	"io"
)

// ErrLocked says that somebody else holds a lock.
var ErrLocked = errors.New("another process holds it")

// FS is one directory. Names hold no slash. Its methods may be called
// concurrently. Errors satisfy errors.Is(err, fs.ErrNotExist) and fs.ErrExist.
type FS interface {
	// Create makes a new, empty file, open for reading and writing. It fails
	// with fs.ErrExist if there is one of that name.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	Remove(name string) error
	// Rename replaces newname if it exists.
	Rename(oldname, newname string) error
	// List returns the names of the files, sorted; directories are left out.
	List() ([]string, error)
	// SyncDir makes every earlier Create, Rename and Remove durable.
	SyncDir() error
	// Sub opens the directory name below this one, making it if need be.
	Sub(name string) (FS, error)
	// Lock takes an exclusive lock that ends with the process or when closed.
	// It fails at once, with ErrLocked, if another process (or another FS on
	// the same directory) holds it.
	Lock(name string) (io.Closer, error)
	// String is the directory's path, for messages.
	String() string
}

// File is one open file. ReadAt, WriteAt, WritevAt, Zero and Datasync may run
// concurrently with each other.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WritevAt writes bufs one after the other from byte off on, in one system
	// call where possible, all of it or an error. It neither keeps nor changes
	// bufs.
	WritevAt(bufs [][]byte, off int64) error
	// Zero makes the n bytes at off read as zeroes. With punch their space is
	// given back where the file system can, else it stays allocated.
	Zero(off, n int64, punch bool) error
	// Reserve takes the space that a later write of the n bytes at off will need,
	// and changes neither content nor size. It fails if the disk has none left;
	// where the file system cannot reserve it does nothing.
	Reserve(off, n int64) error
	// Datasync returns once every write that returned before it was called is
	// durable, with the size needed to read it.
	Datasync() error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}
