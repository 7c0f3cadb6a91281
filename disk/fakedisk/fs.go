package fakedisk

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/lockstep-storage/lockstep/disk"
)

// FS is a directory of a fake disk.
type FS struct {
	disk *disks
	dir  *dir
	path string
}

// disks is what all directories of one disk share.
type disks struct {
	mu     sync.Mutex
	rng    *rand.Rand
	number int
	counts map[Op]int
	faults []fault
	hook   func(Op, string) error
	off    bool
}

// dir is a directory. The disk's lock guards it.
type dir struct {
	now     map[string]*inode
	durable map[string]*inode
	pending []naming
	subs    map[string]*dir
	locks   map[string]bool
}

// naming is an unsynced change of names: name leads to file, gone to nothing.
type naming struct {
	kind   Op
	number int
	name   string
	file   *inode // nil for OpRemove
	gone   string // OpRename: the old name
}

// New returns an empty disk. The seed decides whatever is left to chance.
func New(seed uint64) *FS {
	return newFS(seed, newDir(), "fake:")
}

func newFS(seed uint64, root *dir, path string) *FS {
	return &FS{
		disk: &disks{rng: rand.New(rand.NewPCG(seed, 0)), counts: map[Op]int{}},
		dir:  root, path: path,
	}
}

func newDir() *dir {
	return &dir{now: map[string]*inode{}, durable: map[string]*inode{}, subs: map[string]*dir{}, locks: map[string]bool{}}
}

func (d *FS) String() string { return d.path }

func pathError(op Op, name string, err error) error {
	return &fs.PathError{Op: string(op), Path: name, Err: err}
}

// Create implements disk.FS.
func (d *FS) Create(name string) (disk.File, error) {
	number, err := d.disk.begin(OpCreate, name)
	defer d.disk.mu.Unlock()
	switch {
	case err != nil:
		return nil, pathError(OpCreate, name, err)
	case d.dir.now[name] != nil:
		return nil, pathError(OpCreate, name, fs.ErrExist)
	}
	n := newInode()
	d.dir.rename(naming{kind: OpCreate, number: number, name: name, file: n})
	return &file{disk: d.disk, node: n, name: name}, nil
}

// Open implements disk.FS.
func (d *FS) Open(name string) (disk.File, error) {
	_, err := d.disk.begin(OpOpen, name)
	defer d.disk.mu.Unlock()
	if err == nil && d.dir.now[name] == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, pathError(OpOpen, name, err)
	}
	return &file{disk: d.disk, node: d.dir.now[name], name: name}, nil
}

// Remove implements disk.FS.
func (d *FS) Remove(name string) error {
	number, err := d.disk.begin(OpRemove, name)
	defer d.disk.mu.Unlock()
	if err == nil && d.dir.now[name] == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return pathError(OpRemove, name, err)
	}
	d.dir.rename(naming{kind: OpRemove, number: number, name: name})
	return nil
}

// Rename implements disk.FS.
func (d *FS) Rename(oldname, newname string) error {
	number, err := d.disk.begin(OpRename, newname)
	defer d.disk.mu.Unlock()
	n := d.dir.now[oldname]
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return pathError(OpRename, oldname, err)
	}
	d.dir.rename(naming{kind: OpRename, number: number, name: newname, file: n, gone: oldname})
	return nil
}

func (d *dir) rename(n naming) {
	d.pending = append(d.pending, n)
	n.replay(d.now)
}

func (n naming) replay(names map[string]*inode) {
	if n.gone != "" {
		delete(names, n.gone)
	}
	if n.file == nil {
		delete(names, n.name)
		return
	}
	names[n.name] = n.file
}

// List implements disk.FS.
func (d *FS) List() ([]string, error) {
	_, err := d.disk.begin(OpList, d.path)
	defer d.disk.mu.Unlock()
	if err != nil {
		return nil, pathError(OpList, d.path, err)
	}
	return sortedKeys(d.dir.now), nil
}

// SyncDir implements disk.FS. One that fails leaves the names unsynced.
func (d *FS) SyncDir() error {
	_, err := d.disk.begin(OpSyncDir, d.path)
	defer d.disk.mu.Unlock()
	if err != nil {
		return pathError(OpSyncDir, d.path, err)
	}
	d.dir.durable, d.dir.pending = maps.Clone(d.dir.now), nil
	return nil
}

// Sub implements disk.FS.
func (d *FS) Sub(name string) (disk.FS, error) {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	sub := d.dir.subs[name]
	if sub == nil {
		sub = newDir()
		d.dir.subs[name] = sub
	}
	return &FS{disk: d.disk, dir: sub, path: d.path + "/" + name}, nil
}

// Lock implements disk.FS.
func (d *FS) Lock(name string) (io.Closer, error) {
	_, err := d.disk.begin(OpLock, name)
	defer d.disk.mu.Unlock()
	switch {
	case err != nil:
		return nil, pathError(OpLock, name, err)
	case d.dir.locks[name]:
		return nil, fmt.Errorf("lock %s/%s: %w", d.path, name, disk.ErrLocked)
	}
	d.dir.locks[name] = true
	return &lock{d: d, name: name}, nil
}

type lock struct {
	d    *FS
	name string
	once sync.Once
}

func (l *lock) Close() error {
	l.once.Do(func() {
		l.d.disk.mu.Lock()
		defer l.d.disk.mu.Unlock()
		delete(l.d.dir.locks, l.name)
	})
	return nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
