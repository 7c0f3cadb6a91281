package mirror

import "fmt"

// writeBackBytes is how much is written before the store is told to begin to bring
// it to the disk. So the checkpoint finds little left to sync, and the journal's
// syncs, which may share the device, wait for a few of these writes at a time.
const writeBackBytes = 4 << 20

// A writeOut writes extents, in the order of their offsets, to the store:
// neighbours in one call.
type writeOut struct {
	store   Store
	vec     [][]byte // the run that is being gathered
	at, end int64    // where it lies
	// What is written and not yet on its way to the disk: bytes, and the range
	// that they lie in.
	dirty    int64
	from, to int64
}

func (w *writeOut) write(parts []extent) error {
	for i := range parts {
		if err := w.add(&parts[i]); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.writeBack()
}

func (w *writeOut) add(e *extent) error {
	if e.data == nil || e.off != w.end {
		if err := w.flush(); err != nil {
			return err
		}
		w.at = e.off
	}
	if e.data == nil {
		w.end = -1 // what follows begins a run of its own
		if err := w.store.Zero(e.off, e.end-e.off, !e.keep); err != nil {
			return fmt.Errorf("apply zeroes to the backing store at %d: %w", e.off, err)
		}
		return nil
	}
	w.vec = append(w.vec, e.data)
	w.end = e.end
	return nil
}

// flush writes the run.
func (w *writeOut) flush() error {
	if len(w.vec) == 0 {
		return nil
	}
	err := w.store.WritevAt(w.vec, w.at)
	clear(w.vec)
	w.vec = w.vec[:0]
	if err != nil {
		return fmt.Errorf("apply to the backing store at %d: %w", w.at, err)
	}
	if w.dirty == 0 {
		w.from = w.at
	}
	w.to, w.dirty = w.end, w.dirty+w.end-w.at
	if w.dirty >= writeBackBytes {
		return w.writeBack()
	}
	return nil
}

func (w *writeOut) writeBack() error {
	if w.dirty == 0 {
		return nil
	}
	w.dirty = 0
	if err := w.store.WriteBack(w.from, w.to-w.from); err != nil {
		// Whatever it is, a full disk too, what the page cache held is lost.
		return fmt.Errorf("begin to sync the backing store: %v", err)
	}
	return nil
}

// reset forgets what an error left.
func (w *writeOut) reset() {
	clear(w.vec)
	*w = writeOut{store: w.store, vec: w.vec[:0]}
}
