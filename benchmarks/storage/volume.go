package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/store"
)

// A volume is one copy of ours, as a library: its replica's directory, and a
// file for its bytes.
type volume struct {
	called string
	vol    *mirror.Volume
	bytes  *os.File // the store's file once more, to sync it from outside
}

// elsewhere is a replica's directory whose journal lies in another one.
type elsewhere struct {
	disk.FS
	journal disk.FS
}

func (e elsewhere) Sub(name string) (disk.FS, error) {
	if name == "journal" {
		return e.journal, nil
	}
	return e.FS.Sub(name)
}

// A replica says where a volume lies.
type replica struct {
	called      string
	dir         string // made by newVolume
	journal     string // the journal's directory, if it is not below dir
	bytes       string // the store's file, which exists
	size        int64
	journalSize int64
	wrap        func(mirror.Store) mirror.Store
}

func (r *replica) fs() (disk.FS, error) {
	d, err := disk.OS(r.dir)
	if err != nil || r.journal == "" {
		return d, err
	}
	j, err := disk.OS(r.journal)
	return elsewhere{d, j}, err
}

func (r *replica) create() error {
	d, err := r.fs()
	if err != nil {
		return err
	}
	return mirror.Create(d, mirror.CreateOptions{Node: "bench", Volume: "data", Size: r.size, JournalSize: r.journalSize})
}

// open opens the replica and waits until it serves.
func (r *replica) open(ctx context.Context) (*volume, error) {
	d, err := r.fs()
	if err != nil {
		return nil, err
	}
	st, err := store.OpenFile(r.bytes, store.FileOptions{})
	if err != nil {
		return nil, err
	}
	var s mirror.Store = st
	if r.wrap != nil {
		s = r.wrap(s)
	}
	vol, err := mirror.Open(mirror.Options{Node: "bench", Volume: "data", FS: d, Store: s})
	if err != nil {
		return nil, err
	}
	v := &volume{called: r.called, vol: vol}
	if v.bytes, err = os.OpenFile(r.bytes, os.O_RDWR, 0); err == nil {
		err = vol.Promote(ctx, mirror.PromoteOptions{})
	}
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

// newVolume makes a replica, opens it, and lets its journal come round once.
func newVolume(ctx context.Context, r replica) (*volume, error) {
	if err := r.create(); err != nil {
		return nil, err
	}
	v, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	warm := load{workers: 1, block: 1 << 20, span: r.size, seq: true, bytes: r.journalSize * 5 / 4}
	if _, err = warm.run(v); err == nil {
		err = v.settle()
	}
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *volume) name() string { return v.called }

func (v *volume) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := v.vol.Close(ctx)
	if v.bytes != nil {
		err = errors.Join(err, v.bytes.Close())
	}
	return err
}

func (v *volume) worker() (worker, error) {
	s, err := v.vol.Attach(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	return &volumeWorker{s: s, done: make(answer, 1)}, nil
}

// settle has everything brought to the store, and that made durable. The two
// writes carry notes of what is stable; without them the volume would come to
// that after a second.
func (v *volume) settle() error {
	w, err := v.worker()
	if err != nil {
		return err
	}
	defer w.close()
	for range 2 {
		if err := errors.Join(w.write(0, 4096), w.flush()); err != nil {
			return err
		}
	}
	if err := v.applied(2); err != nil {
		return err
	}
	return fdatasync(v.bytes)
}

// applied waits until the store has all but so many of the newest records.
func (v *volume) applied(but mirror.LSN) error {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		st := v.vol.Status()
		if st.End-st.Applied <= but {
			return nil
		}
		if time.Since(began) > time.Minute {
			return fmt.Errorf("volume %s does not bring its writes to the store: %+v", v.called, st)
		}
	}
}

type volumeWorker struct {
	s    block.Session
	req  block.Request
	one  [1]*block.Request
	done answer
}

// answer is told the outcome of a request.
type answer chan error

func (a answer) Complete(_ *block.Request, err error) { a <- err }

func (w *volumeWorker) write(off, n int64) error {
	buf := block.Get(int(n))
	stamp(buf.Bytes(), off)
	return w.submit(block.Request{Op: block.OpWrite, Off: off, Len: n, Buf: buf, Done: w.done})
}

func (w *volumeWorker) flush() error { return w.submit(block.Request{Op: block.OpFlush, Done: w.done}) }

func (w *volumeWorker) submit(r block.Request) error {
	w.req = r
	w.one[0] = &w.req
	w.s.Submit(w.one[:])
	return <-w.done
}

func (w *volumeWorker) close() { w.s.Close() }

func (w *volumeWorker) read(p []byte, off int64) error { return w.s.ReadAt(p, off) }
