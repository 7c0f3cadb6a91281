package store

import (
	"errors"
	"io"

	"github.com/lockstep-storage/lockstep/disk"
)

// Disk keeps a replica's bytes in a disk.File, so that a whole replica runs on
// a simulated disk. It knows neither the page cache nor holes. All methods may
// be called concurrently.
type Disk struct {
	f    disk.File
	size int64
	sync latch
}

// OnDisk returns a store of size bytes in f, which it takes over. The file may
// be shorter, and what it lacks reads as zeroes: an empty one will do. Nothing
// in it lies behind size.
func OnDisk(f disk.File, size int64) *Disk { return &Disk{f: f, size: size} }

// Size in bytes.
func (d *Disk) Size() int64 { return d.size }

// ReadAt fills p from byte off. It is all of p or an error.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := checkRange(off, int64(len(p)), d.size); err != nil {
		return 0, err
	}
	n, err := d.f.ReadAt(p, off)
	if n < len(p) && !errors.Is(err, io.EOF) {
		return n, err
	}
	clear(p[n:])
	return len(p), nil
}

// TryReadAt reports false: a disk.File may always wait.
func (d *Disk) TryReadAt(p []byte, off int64) (bool, error) {
	return false, checkRange(off, int64(len(p)), d.size)
}

// WriteAt writes p at byte off. It is all of p or an error.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := checkRange(off, int64(len(p)), d.size); err != nil {
		return 0, err
	}
	return d.f.WriteAt(p, off)
}

// WritevAt writes bufs one after the other from byte off on, all or an error.
// It neither keeps nor changes bufs.
func (d *Disk) WritevAt(bufs [][]byte, off int64) error {
	if err := checkRange(off, vectorLen(bufs), d.size); err != nil {
		return err
	}
	return d.f.WritevAt(bufs, off)
}

// Zero makes n bytes at off read as zeroes; with punch their space may be given
// back.
func (d *Disk) Zero(off, n int64, punch bool) error {
	if err := checkRange(off, n, d.size); err != nil || n == 0 {
		return err
	}
	return d.f.Zero(off, n, punch)
}

// Sync makes every write that returned before durable. Its first failure is
// final and wraps ErrFailed.
func (d *Disk) Sync() error { return d.sync.sync(d.f.Datasync) }

// WriteBack does nothing: a disk.File has no page cache to speak of.
func (d *Disk) WriteBack(off, n int64) error { return checkRange(off, n, d.size) }

// Extents reports the whole range as data, in one piece.
func (d *Disk) Extents(off, n int64, report func(off, n int64, data bool) error) error {
	if err := checkRange(off, n, d.size); err != nil || n == 0 {
		return err
	}
	return report(off, n, true)
}

// Close closes the file.
func (d *Disk) Close() error { return d.f.Close() }
