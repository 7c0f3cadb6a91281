package memory

import "github.com/lockstep-storage/lockstep/block"

// unit is what is a hole, or is not, as a whole: bytes.
const unit = 4096

// allocate notes what has become of a range: data (0) in every unit that it
// touches, else only in those that it covers. The data mutex is held, or nobody
// knows the device yet.
func (d *Device) allocate(off, n int64, a block.Allocation) {
	end := off + n
	if a != 0 {
		off += unit - 1
		if end < int64(len(d.bytes)) {
			end -= end % unit
		}
	}
	for i := off / unit; i*unit < end; i++ {
		d.units[i] = a
	}
}

// Extents implements block.Sparse.
func (s *session) Extents(off, n int64, yield func(off, n int64, a block.Allocation) bool) error {
	d := s.d
	d.gate.waitOpen()
	if err := s.usable(); err != nil {
		return err
	}
	if err := d.inRange(off, n); err != nil {
		return err
	}
	d.data.RLock()
	defer d.data.RUnlock()
	for end := off + n; off < end; {
		next := min(off-off%unit+unit, end)
		if !yield(off, next-off, d.units[off/unit]) {
			return nil
		}
		off = next
	}
	return nil
}
