package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// plain is a file that was written full, and pwrite, pread and fdatasync.
type plain struct{ f *os.File }

// newPlain makes the file, of size bytes.
func newPlain(path string, size int64) (*plain, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p := &plain{f: f}
	if err := fill(f, size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

// fill writes size bytes, none of them a page of zeroes, durably.
func fill(f *os.File, size int64) error {
	b := noise(1 << 20)
	for off := int64(0); off < size; off += int64(len(b)) {
		if _, err := f.WriteAt(b[:min(int64(len(b)), size-off)], off); err != nil {
			return fmt.Errorf("fill %s: %w", f.Name(), err)
		}
	}
	return fdatasync(f)
}

func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b) // never fails
	return b
}

func fdatasync(f *os.File) error {
	for {
		switch err := unix.Fdatasync(int(f.Fd())); err {
		case unix.EINTR:
		case nil:
			return nil
		default:
			return fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
	}
}

// drop takes what is clean of a file out of the page cache.
func drop(f *os.File) error {
	if err := fdatasync(f); err != nil {
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("fadvise %s: %w", f.Name(), err)
	}
	return nil
}

func (p *plain) name() string            { return "file" }
func (p *plain) worker() (worker, error) { return &plainWorker{f: p.f}, nil }
func (p *plain) settle() error           { return fdatasync(p.f) }
func (p *plain) close() error            { return p.f.Close() }

type plainWorker struct {
	f   *os.File
	buf []byte
}

func (w *plainWorker) write(off, n int64) error {
	if int64(len(w.buf)) < n {
		w.buf = noise(int(n))
	}
	stamp(w.buf, off)
	_, err := w.f.WriteAt(w.buf[:n], off)
	return err
}

func (w *plainWorker) flush() error { return fdatasync(w.f) }

func (w *plainWorker) close() {}

func (w *plainWorker) read(p []byte, off int64) error {
	_, err := w.f.ReadAt(p, off)
	return err
}

// stamp makes a payload another one than the last.
func stamp(p []byte, off int64) {
	n := rand.Uint64() ^ uint64(off)
	for i := range 8 {
		p[i] = byte(n >> (8 * i))
	}
}
