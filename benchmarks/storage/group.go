package main

import (
	"errors"
	"hash/crc32"
	"os"
	"runtime"
	"sync"

	"github.com/lockstep-storage/lockstep/journal"
)

// A group lets many writers share a commit. Whoever finds nobody at work
// commits for all who wait; the last one's end wakes one of those who came
// meanwhile, to do the same. A lone writer changes no goroutine.
type group struct {
	commit func(items []*item) error // one call at a time

	mu   sync.Mutex
	busy bool
	next *round
}

// An item is what one writer wants durable.
type item struct {
	p   []byte
	crc uint32
}

// A round is those who are committed together.
type round struct {
	items []*item
	lead  chan struct{} // one of them is to commit
	done  chan struct{}
	err   error
}

func newRound() *round {
	return &round{lead: make(chan struct{}, 1), done: make(chan struct{})}
}

// do returns once the item is durable.
func (g *group) do(it *item) error {
	g.mu.Lock()
	if g.next == nil {
		g.next = newRound()
	}
	r := g.next
	r.items = append(r.items, it)
	lead := !g.busy
	g.busy = true
	g.mu.Unlock()
	if !lead {
		select {
		case <-r.done:
			return r.err
		case <-r.lead:
		}
		// Those whom the last round woke want to be in this one.
		runtime.Gosched()
	}
	g.mu.Lock()
	g.next = nil
	g.mu.Unlock()
	r.err = g.commit(r.items)
	g.mu.Lock()
	if g.next != nil {
		g.next.lead <- struct{}{}
	} else {
		g.busy = false
	}
	g.mu.Unlock()
	close(r.done)
	return r.err
}

// grouped is a subject whose writers commit together: write and flush are one.
type grouped struct {
	called string
	sum    bool // payloads need a CRC
	group  group
}

func (g *grouped) name() string            { return g.called }
func (g *grouped) worker() (worker, error) { return &groupedWorker{g: g}, nil }
func (g *grouped) settle() error           { return nil } // nothing is ever dirty

type groupedWorker struct {
	g  *grouped
	it item
}

func (w *groupedWorker) write(off, n int64) error {
	if int64(len(w.it.p)) != n {
		w.it.p = noise(int(n))
	}
	stamp(w.it.p, off)
	if w.g.sum {
		w.it.crc = crc32.Checksum(w.it.p, journal.Castagnoli)
	}
	return nil
}

func (w *groupedWorker) flush() error { return w.g.group.do(&w.it) }

func (w *groupedWorker) close() {}

func (w *groupedWorker) read([]byte, int64) error { return errors.ErrUnsupported }

// newLog is the bare append file: it goes round and round in a file that was
// written full, with one pwrite and one fdatasync for all who wait.
func newLog(path string, size int64) (*grouped, *os.File, error) {
	p, err := newPlain(path, size)
	if err != nil {
		return nil, nil, err
	}
	var buf []byte
	off := int64(0)
	return &grouped{called: "log", group: group{commit: func(items []*item) error {
		buf = buf[:0]
		for _, it := range items {
			buf = append(buf, it.p...)
		}
		if off+int64(len(buf)) > size {
			off = 0
		}
		if _, err := p.f.WriteAt(buf, off); err != nil {
			return err
		}
		off += int64(len(buf))
		return fdatasync(p.f)
	}}}, p.f, nil
}

// newJournal is the journal with nothing around it.
func newJournal(j *journal.Journal) *grouped {
	var mem []journal.Record
	var recs []*journal.Record
	return &grouped{called: "journal", sum: true, group: group{commit: func(items []*item) error {
		mem, recs = mem[:0], recs[:0]
		lsn, crc := j.End(), j.EndCRC()
		for _, it := range items {
			lsn++
			mem = append(mem, journal.Record{
				LSN: lsn, Kind: journal.KindWrite, Flags: journal.FlagLast,
				Length: int64(len(it.p)), Payload: it.p, PayloadCRC: it.crc,
			})
			crc = mem[len(mem)-1].Seal(crc)
		}
		for i := range mem {
			recs = append(recs, &mem[i])
		}
		if j.Used() > j.Size()/2 {
			if err := j.Trim(j.Durable()); err != nil {
				return err
			}
		}
		if err := j.Append(recs, journal.Notes{}, false); err != nil {
			return err
		}
		_, err := j.Sync()
		return err
	}}}
}
