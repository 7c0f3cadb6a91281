package journal

import "github.com/lockstep-storage/lockstep/disk"

// readAhead is how much a window reads at once, at least.
const readAhead = 256 << 10

// A window reads a file from its beginning to its end in large pieces. It takes
// MaxPayload of memory at most.
type window struct {
	f    disk.File
	size int64 // of the file
	buf  []byte
	off  int64 // of p
	p    []byte
}

// at returns n bytes, at most MaxPayload, at off. They are valid until the next
// call.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off < w.off || off+int64(n) > w.off+int64(len(w.p)) {
		if err := w.fill(off, max(n, readAhead)); err != nil {
			return nil, err
		}
	}
	return w.p[off-w.off:][:n:n], nil
}

func (w *window) fill(off int64, n int) error {
	if n > cap(w.buf) {
		w.buf = make([]byte, min(int64(n), w.size))
	}
	w.p = nil
	p := w.buf[:min(int64(n), w.size-off)]
	if _, err := w.f.ReadAt(p, off); err != nil {
		return err
	}
	w.off, w.p = off, p
	return nil
}
