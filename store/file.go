//go:build linux

package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lockstep-storage/lockstep/disk"
)

// FileOptions say how a file store is made or opened. The zero value works.
type FileOptions struct {
	// Size, if not 0, is how many bytes OpenFile has to find: a file has exactly
	// as many, and of a device that is larger only the first Size bytes are
	// used. CreateFile ignores it.
	Size int64
	// Preallocate makes CreateFile take the space at once, so that no later
	// write fails for lack of it. Without it the file is sparse.
	Preallocate bool
	// Direct opens the file or device with O_DIRECT: its bytes do not pass
	// through the page cache. Calls may be of any alignment all the same; those
	// that are aligned as the file wants it cost no copy. Opening fails where
	// that cannot be had, and so does CreateFile, which leaves nothing then. A
	// file's size must be a multiple of its block, mostly 512 or 4096 bytes.
	Direct bool
}

// File keeps a replica's bytes in a regular file or on a block device, through
// the page cache or past it (FileOptions.Direct). All methods may be called concurrently; Close waits for those
// that run, and later ones return ErrClosed.
type File struct {
	path   string
	size   int64
	device bool

	// open is held, shared, while the descriptor is used.
	open sync.RWMutex
	f    *os.File
	fd   int

	direct *direct // nil: through the page cache
	sync   latch
	cold   atomic.Bool // the file system cannot say what is in the page cache
	memory bool        // the file system is memory: no read waits for a disk
	noHole atomic.Bool // nor where holes are

	full    atomic.Pointer[dataRun] // that was found last
	punched atomic.Uint64           // times that holes were made
}

// A dataRun is a range that holds no hole, as long as none has been made since. To
// look for the next hole costs a file system up to the rest of the file.
type dataRun struct {
	off, end int64
	punched  uint64
}

// CreateFile makes a file of size bytes, at least 1, that read as zeroes, and
// returns once it is durable under its name. It never overwrites: it fails with
// fs.ErrExist if there is anything at path, a device too.
func CreateFile(path string, size int64, opts FileOptions) error {
	if size <= 0 {
		return fmt.Errorf("create store %s: a size of %d bytes", path, size)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create store %s: %w", path, bare(err))
	}
	err = f.Truncate(size)
	if err == nil && opts.Preallocate {
		err = preallocate(f, size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil && opts.Direct {
		err = tryDirect(path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create store %s of %d bytes: %w", path, size, bare(err)), os.Remove(path))
	}
	return syncDir(filepath.Dir(path))
}

// tryDirect says, before anybody relies on a new file, whether it can be opened
// as it will be.
func tryDirect(path string) error {
	s, err := openFile(path, true)
	if err != nil {
		return err
	}
	return errors.Join(s.settle(0), s.f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// OpenFile opens a file or a block device, of which it takes possession: a
// second OpenFile of it, in any process, fails with ErrInUse, and so does that
// of a device that is mounted. Nothing is changed or made.
func OpenFile(path string, opts FileOptions) (*File, error) {
	s, err := openFile(path, opts.Direct)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, bare(err))
	}
	if err := s.settle(opts.Size); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), s.f.Close())
	}
	return s, nil
}

func openFile(path string, direct bool) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	s := &File{path: path}
	flags := os.O_RDWR
	switch st.Mode().Type() {
	case 0:
	case fs.ModeDevice:
		s.device = true
		flags |= unix.O_EXCL // with a block device: not beside a mount
	default:
		return nil, fmt.Errorf("it is %s, and a file or a block device is wanted", kindOf(st.Mode()))
	}
	if direct {
		flags |= unix.O_DIRECT
	}
	if s.f, err = os.OpenFile(path, flags, 0); errors.Is(err, unix.EBUSY) {
		return nil, ErrInUse
	} else if direct && errors.Is(err, unix.EINVAL) {
		return nil, errNotDirect
	} else if err != nil {
		return nil, err
	}
	s.fd = int(s.f.Fd())
	s.memory = !s.device && inMemory(s.fd) // of a device it would be /dev's file system
	if err := retry(func() error { return unix.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		if err == unix.EWOULDBLOCK {
			err = ErrInUse
		}
		return nil, errors.Join(err, s.f.Close())
	}
	if direct {
		if s.direct, err = alignDirect(s.f, s.device, s.memory); err != nil {
			return nil, errors.Join(err, s.f.Close())
		}
	}
	return s, nil
}

func kindOf(m fs.FileMode) string {
	if m.IsDir() {
		return "a directory"
	}
	return "neither a file nor a block device"
}

// settle finds the size and compares it with the one that is wanted, and with
// what O_DIRECT wants.
func (s *File) settle(want int64) error {
	found, err := s.found()
	switch {
	case err != nil:
		return fmt.Errorf("size: %w", err)
	case found == 0:
		return errors.New("it is empty")
	case want < 0 || want > found, want != 0 && want != found && !s.device:
		return fmt.Errorf("it has %d bytes, and %d are wanted", found, want)
	}
	if s.direct != nil {
		if err := s.direct.try(found); err != nil {
			return err
		}
	}
	s.size = found
	if want != 0 {
		s.size = want
	}
	return nil
}

func (s *File) found() (int64, error) {
	if s.device {
		return deviceSize(s.fd)
	}
	st, err := s.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Size in bytes.
func (s *File) Size() int64 { return s.size }

// use begins the use of the descriptor for the n bytes at off; done ends it if
// there is no error.
func (s *File) use(off, n int64) error {
	if err := checkRange(off, n, s.size); err != nil {
		return err
	}
	s.open.RLock()
	if s.f == nil {
		s.open.RUnlock()
		return fmt.Errorf("store %s: %w", s.path, ErrClosed)
	}
	return nil
}

func (s *File) done() { s.open.RUnlock() }

// bytes is what reads and writes them.
func (s *File) bytes() interface {
	io.ReaderAt
	io.WriterAt
} {
	if s.direct != nil {
		return s.direct
	}
	return s.f
}

// ReadAt fills p from byte off. It is all of p or an error.
func (s *File) ReadAt(p []byte, off int64) (int, error) {
	if err := s.use(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer s.done()
	n, err := s.bytes().ReadAt(p, off)
	if err == io.EOF { // somebody cut the file
		err = fmt.Errorf("read store %s at offset %d: the file became shorter: %w", s.path, off, io.ErrUnexpectedEOF)
	}
	return n, err
}

// TryReadAt fills p if all of it is in the page cache. Otherwise it reports
// false, p's content is undefined, and ReadAt is needed, which may wait for the
// disk; of a file that is open past the page cache always. It allocates nothing.
func (s *File) TryReadAt(p []byte, off int64) (bool, error) {
	if err := s.use(off, int64(len(p))); err != nil {
		return false, err
	}
	defer s.done()
	if len(p) == 0 {
		return true, nil
	}
	if s.direct != nil {
		return false, nil
	}
	if s.memory {
		n, err := s.f.ReadAt(p, off)
		return err == nil && n == len(p), nil
	}
	if s.cold.Load() {
		return false, nil
	}
	n, err := preadNoWait(s.fd, p, off)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL {
		s.cold.Store(true)
	}
	return err == nil && n == len(p), nil // a true error ReadAt will meet too
}

// WriteAt writes p at byte off. It is all of p or an error; of a full disk's,
// errors.Is(err, syscall.ENOSPC).
func (s *File) WriteAt(p []byte, off int64) (int, error) {
	if err := s.use(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer s.done()
	return s.bytes().WriteAt(p, off)
}

// WritevAt writes bufs one after the other from byte off on, in few system
// calls, all or an error. It neither keeps nor changes bufs.
func (s *File) WritevAt(bufs [][]byte, off int64) error {
	if err := s.use(off, vectorLen(bufs)); err != nil {
		return err
	}
	defer s.done()
	var err error
	if s.direct != nil {
		err = s.direct.WritevAt(bufs, off)
	} else {
		err = disk.WriteVector(s.f, s.fd, bufs, off)
	}
	if err != nil {
		return fmt.Errorf("write store %s at offset %d: %w", s.path, off, bare(err))
	}
	return nil
}

// Zero makes n bytes at off read as zeroes. With punch their space is given
// back where that can be done and the zeroes are certain; otherwise it stays
// allocated.
func (s *File) Zero(off, n int64, punch bool) error {
	if err := s.use(off, n); err != nil {
		return err
	}
	defer s.done()
	if n == 0 {
		return nil
	}
	defer s.punched.Add(1) // not before: what was found meanwhile is void
	whole := func(off, n int64) error { return zeroRange(s.fd, off, n, punch) }
	var err error
	if s.direct != nil {
		err = s.direct.Zero(off, n, whole)
	} else if err = whole(off, n); cannotZero(err) {
		err = writeZeroes(s.f, off, n)
	}
	if err != nil {
		return fmt.Errorf("zero %d bytes of store %s at offset %d: %w", n, s.path, off, bare(err))
	}
	return nil
}

// Sync makes every write that returned before durable (fdatasync). Its first
// failure is final and wraps ErrFailed.
func (s *File) Sync() error {
	if err := s.use(0, 0); err != nil {
		return err
	}
	defer s.done()
	return s.sync.sync(func() error {
		if err := retry(func() error { return unix.Fdatasync(s.fd) }); err != nil {
			return fmt.Errorf("sync store %s: %w", s.path, err)
		}
		return nil
	})
}

// DropCache forgets what the page cache holds of the store, as far as it is on the
// disk: what is read next comes from there. Sync before, or what was written since
// stays. Direct stores and those in memory have no cache.
func (s *File) DropCache() error {
	if err := s.use(0, 0); err != nil {
		return err
	}
	defer s.done()
	if s.direct != nil || s.memory {
		return nil
	}
	if err := retry(func() error { return unix.Fadvise(s.fd, 0, 0, unix.FADV_DONTNEED) }); err != nil {
		return fmt.Errorf("drop the page cache of store %s: %w", s.path, err)
	}
	return nil
}

// WriteBack begins to bring what was written to n bytes at off to the disk, so
// that a later Sync has less to wait for. It makes nothing durable, and waits only
// while the disk's queue is full. What fails makes every later Sync fail.
func (s *File) WriteBack(off, n int64) error {
	if err := s.use(off, n); err != nil {
		return err
	}
	defer s.done()
	if n == 0 || s.direct != nil || s.memory { // nothing lies in the page cache that has to leave it
		return nil
	}
	err := retry(func() error { return unix.SyncFileRange(s.fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
	if err == nil || err == unix.ENOSYS || err == unix.EINVAL || err == unix.ESPIPE || err == unix.EOPNOTSUPP {
		return nil // Sync does all of it then
	}
	return s.sync.fail(fmt.Errorf("write %d bytes of store %s back at offset %d: %w", n, s.path, off, err))
}

// Extents reports, in order, which parts of the range hold data and which are
// holes that read as zeroes. Where the file system cannot tell, and on devices,
// all is data. report may use the store. An error of report ends it and is
// returned.
func (s *File) Extents(off, n int64, report func(off, n int64, data bool) error) error {
	if err := checkRange(off, n, s.size); err != nil {
		return err
	}
	for end := off + n; off < end; {
		next, data, err := s.extent(off, end)
		if err != nil {
			return fmt.Errorf("find holes of store %s at offset %d: %w", s.path, off, err)
		}
		if next > off { // else it changed between two looks
			err = report(off, next-off, data)
		}
		if err != nil {
			return err
		}
		off = next
	}
	return nil
}

// extent is where the data, or the hole, that begins at off ends. Seeking moves
// the descriptor's offset, which nobody uses.
func (s *File) extent(off, end int64) (next int64, data bool, err error) {
	if err := s.use(off, end-off); err != nil {
		return 0, false, err
	}
	defer s.done()
	if s.device || s.noHole.Load() {
		return end, true, nil
	}
	punched := s.punched.Load()
	if r := s.full.Load(); r != nil && r.punched == punched && r.off <= off && off < r.end {
		return min(r.end, end), true, nil
	}
	next, err = unix.Seek(s.fd, off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: // no data behind off
		return end, false, nil
	case err == unix.EINVAL || err == unix.EOPNOTSUPP:
		s.noHole.Store(true)
		return end, true, nil
	case err != nil:
		return 0, false, err
	case next > off:
		return min(next, end), false, nil
	}
	next, err = unix.Seek(s.fd, off, unix.SEEK_HOLE)
	if err == nil {
		s.full.Store(&dataRun{off, next, punched})
	}
	return min(next, end), true, err
}

// Close closes the file and gives it up for others. What was not synced may be
// lost with the power. Closing twice is no error.
func (s *File) Close() error {
	s.open.Lock()
	defer s.open.Unlock()
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f, s.fd = nil, -1
	return err
}

// bare takes the path and the call's name off an error, for a message that has
// both.
func bare(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
