package fakedisk

import (
	"bytes"
	"io"
	"io/fs"
)

// file is one open file. The disk's lock guards closed.
type file struct {
	disk   *disks
	node   *inode
	name   string
	closed bool
}

// begin locks the disk, like disks.begin.
func (f *file) begin(op Op) (number int, err error) {
	number, err = f.disk.begin(op, f.name)
	if f.closed {
		err = fs.ErrClosed
	}
	if err != nil {
		err = pathError(op, f.name, err)
	}
	return number, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	_, err := f.begin(OpRead)
	defer f.disk.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n := int(max(0, min(int64(len(p)), f.node.now.size-off)))
	f.node.now.read(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.write(copyOf(p), off); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) WritevAt(bufs [][]byte, off int64) error {
	return f.write(bytes.Join(bufs, nil), off)
}

// Zero makes no holes: there is no space to give back.
func (f *file) Zero(off, n int64, punch bool) error { return f.write(make([]byte, n), off) }

// Reserve fails on request only: there is no end to a fake disk's space.
func (f *file) Reserve(off, n int64) error {
	_, err := f.begin(OpReserve)
	defer f.disk.mu.Unlock()
	return err
}

// write keeps p.
func (f *file) write(p []byte, off int64) error {
	number, err := f.begin(OpWrite)
	defer f.disk.mu.Unlock()
	if err == nil {
		f.node.write(number, p, off)
		return nil
	}
	if f.closed || f.disk.off {
		return err
	}
	f.writeSome(number, p, off)
	return err
}

// writeSome is what a failed write does: nothing, some of its sectors, or all.
func (f *file) writeSome(number int, p []byte, off int64) {
	keep := KeepSome(f.disk.rng.Uint64())
	c := change{number: number, off: off, data: p}
	c.each(func(from, to int64) {
		if keep(Unsynced{Kind: OpWrite, Name: f.name, Number: number, Off: off + from}) {
			f.node.write(number, p[from:to], off+from)
		}
	})
}

// Datasync that fails decides what becomes of each page, for good.
func (f *file) Datasync() error {
	_, err := f.begin(OpDatasync)
	defer f.disk.mu.Unlock()
	if err != nil {
		if !f.closed && !f.disk.off {
			f.node.failSync(f.disk.rng)
		}
		return err
	}
	f.node.sync()
	return nil
}

func (f *file) Truncate(size int64) error {
	number, err := f.begin(OpTruncate)
	defer f.disk.mu.Unlock()
	if err != nil {
		return err
	}
	f.node.truncate(number, size)
	return nil
}

func (f *file) Size() (int64, error) {
	_, err := f.begin(OpSize)
	defer f.disk.mu.Unlock()
	return f.node.now.size, err
}

func (f *file) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
