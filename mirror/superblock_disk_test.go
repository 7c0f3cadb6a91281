package mirror

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/lockstep-storage/lockstep/disk"
)

// memFS is a directory in memory that can lose power: at operation failAt every
// operation begins to fail, and afterPowerLoss gives what a disk may hold then.
type memFS struct {
	disk.FS // for the methods that no test calls
	names   map[string]*memFile
	durable map[string]*memFile // names after the last SyncDir
	ops     int                 // writes, syncs and changes of names so far
	failAt  int                 // 0: never
}

type memFile struct {
	disk.File
	fs      *memFS
	data    []byte
	durable []byte
}

var errPower = errors.New("the power is gone")

const sector = 512

func newMemFS() *memFS { return &memFS{names: map[string]*memFile{}, durable: map[string]*memFile{}} }

// operate counts an operation and says whether it takes place.
func (m *memFS) operate() error {
	m.ops++
	if m.failAt > 0 && m.ops >= m.failAt {
		return errPower
	}
	return nil
}

// afterPowerLoss is the directory as a disk may have kept it: keep decides for
// every sector that was written since the last sync.
func (m *memFS) afterPowerLoss(keep func() bool) *memFS {
	after := newMemFS()
	for name, f := range m.durable {
		data := bytes.Clone(f.durable)
		data = append(data, make([]byte, max(0, len(f.data)-len(data)))...)
		for at := 0; at < len(f.data); at += sector {
			end := min(at+sector, len(f.data))
			if !bytes.Equal(data[at:end], f.data[at:end]) && keep() {
				copy(data[at:end], f.data[at:end])
			}
		}
		g := &memFile{fs: after, data: data, durable: bytes.Clone(data)}
		after.names[name], after.durable[name] = g, g
	}
	return after
}

func (m *memFS) Create(name string) (disk.File, error) {
	if m.names[name] != nil {
		return nil, fs.ErrExist
	}
	if err := m.operate(); err != nil {
		return nil, err
	}
	m.names[name] = &memFile{fs: m}
	return m.names[name], nil
}

func (m *memFS) Open(name string) (disk.File, error) {
	if m.names[name] == nil {
		return nil, fs.ErrNotExist
	}
	return m.names[name], nil
}

func (m *memFS) Remove(name string) error {
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	if err := m.operate(); err != nil {
		return err
	}
	delete(m.names, name)
	return nil
}

func (m *memFS) Rename(oldname, newname string) error {
	if err := m.operate(); err != nil {
		return err
	}
	m.names[newname] = m.names[oldname]
	delete(m.names, oldname)
	return nil
}

func (m *memFS) SyncDir() error {
	if err := m.operate(); err != nil {
		return err
	}
	m.durable = maps.Clone(m.names)
	return nil
}

func (m *memFS) String() string { return "memory" }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt leaves a write that the power loss interrupts to afterPowerLoss: any
// of its sectors may be there.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.fs.operate()
	f.data = append(f.data, make([]byte, max(0, int(off)+len(p)-len(f.data)))...)
	copy(f.data[off:], p)
	return len(p), err
}

func (f *memFile) Zero(off, n int64, _ bool) error {
	_, err := f.WriteAt(make([]byte, n), off)
	return err
}

func (f *memFile) Datasync() error {
	if err := f.fs.operate(); err != nil {
		return err
	}
	f.durable = slices.Clone(f.data)
	return nil
}

func (f *memFile) Close() error { return nil }
