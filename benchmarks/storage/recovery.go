package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/journal"
	"github.com/lockstep-storage/lockstep/mirror"
)

const (
	bigJournal = 1 << 30
	// targetRecovery: 1.5 times the time of a plain read.
	targetRecovery = 1 / 1.5
)

// recovery opens full journals.
func (b *bench) recovery() error {
	const cell = "recover-1g"
	if !b.wanted(cell) {
		return nil
	}
	if err := b.need(); err != nil {
		return err
	}
	full, used, err := b.fullReplica()
	if err != nil {
		return fmt.Errorf("fill a journal: %w", err)
	}
	names := []string{volumeServes: "volume", volumeApplied: "volume-applied", journalOpen: "journal", plainRead: "read"}
	results := make([]*report.Result, len(names))
	for i, name := range names {
		results[i] = &report.Result{Cell: cell, Server: name, Unit: report.MBPerSec}
	}
	for run := range b.runs {
		report.Progress(fmt.Sprintf("%s, run %d of %d", cell, run+1, b.runs))
		took, err := b.recoverOnce(full, used, run)
		if err != nil {
			return fmt.Errorf("%s: %w", cell, err)
		}
		for i, d := range took {
			results[i].Samples = append(results[i].Samples, report.Sample{Bytes: float64(used) / d.Seconds(), MeanMicros: micros(d)})
		}
	}
	b.report.Results = append(b.report.Results, results...)
	read := results[plainRead]
	b.beside(cell, results[volumeServes], read, targetRecovery)
	b.beside(cell+"-applied", results[volumeApplied], read, 0)
	b.beside(cell+"-journal", results[journalOpen], read, targetRecovery)
	return nil
}

// What of a recovery is timed.
const (
	volumeServes  = iota
	volumeApplied // the store has everything
	journalOpen
	plainRead
	timings
)

// held is a store whose Sync waits until release is closed, and which counts
// what is written to it.
type held struct {
	mirror.Store
	release chan struct{}
	written *atomic.Int64
}

func (h held) Sync() error {
	<-h.release
	return h.Store.Sync()
}

func (h held) WritevAt(bufs [][]byte, off int64) error {
	for _, p := range bufs {
		h.written.Add(int64(len(p)))
	}
	return h.Store.WritevAt(bufs, off)
}

func (b *bench) bigReplica(dir string, release chan struct{}, written *atomic.Int64) replica {
	return replica{called: "volume", dir: dir, bytes: b.path("bytes"), size: b.size, journalSize: bigJournal,
		wrap: func(s mirror.Store) mirror.Store { return held{s, release, written} }}
}

// fullReplica makes a replica whose journal is full of records that have yet to
// go into the store, as a crash leaves it, and says how many bytes of the journal
// they take. The store never finishes a sync meanwhile, so that no checkpoint is
// taken and nothing leaves the journal.
func (b *bench) fullReplica() (dir string, used int64, err error) {
	var written atomic.Int64
	release := make(chan struct{})
	r := b.bigReplica(b.path("filling"), release, &written)
	if err := r.create(); err != nil {
		return "", 0, err
	}
	v, err := r.open(b.ctx)
	if err != nil {
		return "", 0, err
	}
	done := make(chan error, 1)
	go func() {
		_, err := load{workers: 32, block: 4096, span: b.size, dur: time.Second}.run(v)
		for err == nil && !closed(release) {
			_, err = load{workers: 32, block: 4096, span: b.size, dur: time.Second}.run(v)
		}
		done <- err
	}()
	// Full is when nothing has moved for a second, background syncs included.
	var st mirror.Status
	for still := 0; still < 20; {
		time.Sleep(100 * time.Millisecond)
		now := v.vol.Status()
		if still++; now.End != st.End || now.Journal.Used != st.Journal.Used || now.Applied != now.End {
			still = 0
		}
		st = now
	}
	dir = b.path("full")
	err = copyReplica(r.dir, dir)
	close(release)
	return dir, st.Journal.Used, errors.Join(err, <-done, v.close(), os.RemoveAll(r.dir))
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// recoverOnce measures one recovery of a copy. The volume, which changes the
// copy, is last; the others are in turns first.
func (b *bench) recoverOnce(full string, used int64, run int) (took [timings]time.Duration, err error) {
	dir := b.path("copy")
	if err := errors.Join(os.RemoveAll(dir), copyReplica(full, dir)); err != nil {
		return took, err
	}
	first := map[int]func() error{
		journalOpen: func() error { return openAndClose(filepath.Join(dir, "journal")) },
		plainRead:   func() error { return readSegments(dir, used) },
	}
	// Once untimed: a virtual machine that is given memory as it comes to use it pays
	// more for that than for the disk, and who is first would pay for all.
	for _, f := range first {
		if err := errors.Join(chill(dir), f()); err != nil {
			return took, err
		}
	}
	for turn := range 2 {
		i := [2]int{journalOpen, plainRead}[(turn+run)%2]
		if err := chill(dir); err != nil {
			return took, err
		}
		began := time.Now()
		if err := first[i](); err != nil {
			return took, err
		}
		took[i] = time.Since(began)
	}
	if err := chill(dir); err != nil {
		return took, err
	}
	var written atomic.Int64
	release := make(chan struct{})
	close(release)
	r := b.bigReplica(dir, release, &written)
	stop, err := b.profiled(fmt.Sprintf("recover-1g-volume-%d", run+1), &volume{called: "volume"})
	if err != nil {
		return took, err
	}
	defer stop()
	began := time.Now()
	v, err := r.open(b.ctx)
	if err != nil {
		return took, err
	}
	took[volumeServes] = time.Since(began)
	err = v.settle()
	took[volumeApplied] = time.Since(began)
	if n := written.Load(); err == nil && n < used/2 {
		err = fmt.Errorf("of %d bytes in the journal only %d went into the store", used, n)
	}
	return took, errors.Join(err, v.close())
}

// chill takes the files of a replica out of the page cache.
func chill(dir string) error {
	return eachFile(dir, func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(drop(f), f.Close())
	})
}

func openAndClose(dir string) error {
	d, err := disk.OS(dir)
	if err != nil {
		return err
	}
	j, st, err := journal.Open(d, journal.Options{})
	if err != nil {
		return err
	}
	if st.End == 0 {
		err = errors.New("the journal is empty")
	}
	return errors.Join(err, j.Close())
}

// readSegments reads as many bytes of the journal's files, one after the other.
func readSegments(dir string, n int64) error {
	p := make([]byte, 1<<20)
	err := eachFile(filepath.Join(dir, "journal"), func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for n > 0 && err == nil {
			var k int
			k, err = f.Read(p)
			n -= int64(k)
		}
		if err == io.EOF {
			err = nil
		}
		return err
	})
	if err == nil && n > 0 {
		err = fmt.Errorf("the journal's files are %d bytes short", n)
	}
	return err
}

// copyReplica copies a replica's directory, durably.
func copyReplica(from, to string) error {
	return eachFile(from, func(path string) error {
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o700); err != nil {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(filepath.Join(to, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Sync(), out.Close())
	})
}

// eachFile calls f with every file below dir, but for those that are only being
// made, in the order of their names.
func eachFile(dir string, f func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, ".tmp") {
			return err
		}
		return f(path)
	})
}
