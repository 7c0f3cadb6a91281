package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/disk"
)

// A Snapshot is one image of a store, and its file. Its methods may be called
// concurrently.
type Snapshot struct {
	dir  disk.FS
	name string
	path string // for messages
	file disk.File
	info Info

	used atomic.Int64 // s.end, for whoever does not want to wait

	// write is held by whatever appends. Taken before mu.
	write    sync.Mutex
	limit    int64  // bytes of the file, 0 for none
	seq      uint64 // of the last batch
	end      int64  // of the last batch
	reserved int64  // the file has space up to here
	vouched  bool   // the last batch is an empty one
	failed   error
	entries  []extent // the batch that is being made
	data     []byte

	mu    sync.RWMutex
	index *index
}

// Create begins a snapshot of a store that nobody writes to meanwhile, in the
// file name, durably. limit is the most bytes that the file may have, 0 for none.
// It fails with fs.ErrExist if the file is there. A crash leaves the whole file or
// none of that name.
func Create(dir disk.FS, name string, info Info, limit int64) (*Snapshot, error) {
	s := newSnapshot(dir, name, limit)
	s.info = info
	fail := func(err error) (*Snapshot, error) {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
		return nil, fmt.Errorf("create snapshot %s: %w", s.path, err)
	}
	if len(info.Note) > MaxNote {
		return fail(fmt.Errorf("a note of %d bytes, the limit is %d", len(info.Note), MaxNote))
	}
	if err := checkSize(info.Size); err != nil {
		return fail(err)
	}
	if f, err := dir.Open(name); err == nil {
		return fail(errors.Join(fs.ErrExist, f.Close()))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	if err := s.create(); err != nil {
		return fail(err)
	}
	return s, nil
}

func newSnapshot(dir disk.FS, name string, limit int64) *Snapshot {
	return &Snapshot{dir: dir, name: name, path: fmt.Sprintf("%v/%s", dir, name), limit: limit, index: newIndex()}
}

func (s *Snapshot) create() (err error) {
	temp := s.name + ".new" // left by a crash, if it is there
	if err := s.dir.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s.file, err = s.dir.Create(temp); err != nil {
		return err
	}
	h := s.info.encode()
	if err := s.file.WritevAt([][]byte{h, h}, 0); err != nil {
		return err
	}
	if err := s.file.Datasync(); err != nil {
		return err
	}
	if err := s.dir.Rename(temp, s.name); err != nil {
		return err
	}
	s.end, s.vouched = firstBatch, true
	s.used.Store(s.end)
	return s.dir.SyncDir()
}

// Open finds a snapshot of a volume of size bytes again. The errors wrap
// fs.ErrNotExist, ErrDamaged, ErrVersion or ErrMismatch. A batch that a crash left
// torn is cut: nothing was overwritten on the strength of it. What is found is
// durable when Open returns.
func Open(dir disk.FS, name string, size, limit int64) (*Snapshot, error) {
	s := newSnapshot(dir, name, limit)
	fail := func(err error) (*Snapshot, error) {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
		return nil, fmt.Errorf("open snapshot %s: %w", s.path, err)
	}
	var err error
	if s.file, err = dir.Open(name); err != nil {
		return fail(err)
	}
	found, err := s.load(size)
	if err != nil {
		return fail(err)
	}
	// Should Create have been killed before its own.
	if err := dir.SyncDir(); err != nil {
		return fail(err)
	}
	if err := s.settle(found); err != nil {
		return fail(err)
	}
	return s, nil
}

// settle makes the last batch durable and vouches for it: a process that was
// killed, or whose sync failed, may have left it in the page cache alone.
func (s *Snapshot) settle(last lastBatch) error {
	if last.raw != nil && !s.vouched {
		if _, err := s.file.WriteAt(last.raw, last.pos); err != nil {
			return err
		}
		if err := s.file.Datasync(); err != nil {
			return err
		}
	}
	return s.vouch()
}

// vouch appends an empty batch: what is damaged before it is no torn end. It needs
// no limit, for it is never more than one at the end.
func (s *Snapshot) vouch() error {
	if s.vouched {
		return nil
	}
	b := batch{id: s.info.ID, seq: s.seq + 1, length: batchHeader(0)}
	if _, err := s.file.WriteAt(b.encode(), s.end); err != nil {
		return err
	}
	if err := s.file.Datasync(); err != nil {
		return err
	}
	s.seq, s.end, s.vouched = b.seq, s.end+b.length, true
	s.used.Store(s.end)
	return nil
}

// Info is what the snapshot was created with. Its note is not to be changed.
func (s *Snapshot) Info() Info { return s.info }

// Used is how long the file is, bytes.
func (s *Snapshot) Used() int64 { return s.used.Load() }

// Preserved is how many bytes of the image are preserved, zeroes included.
func (s *Snapshot) Preserved() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index.bytes
}

// Close closes the file; the snapshot stays. Closing twice is no error.
func (s *Snapshot) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	if errors.Is(s.failed, ErrClosed) {
		return nil
	}
	var err error
	if s.failed == nil {
		err = s.vouch()
	}
	s.failed = fmt.Errorf("snapshot %s: %w", s.path, ErrClosed)
	return errors.Join(err, s.file.Close())
}

// Discard ends the snapshot: its file is removed.
func (s *Snapshot) Discard() error {
	s.write.Lock()
	defer s.write.Unlock()
	var err error
	if !errors.Is(s.failed, ErrClosed) {
		err = s.file.Close()
		s.failed = fmt.Errorf("snapshot %s: %w", s.path, ErrClosed)
	}
	return errors.Join(err, Remove(s.dir, s.name))
}

// Remove removes a snapshot that is not open, and whatever a Create that crashed
// left of it. It is no error if there is none.
func Remove(dir disk.FS, name string) error {
	removed := false
	for _, n := range []string{name, name + ".new"} {
		switch err := dir.Remove(n); {
		case err == nil:
			removed = true
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("remove snapshot %v/%s: %w", dir, n, err)
		}
	}
	if !removed {
		return nil
	}
	return dir.SyncDir()
}
