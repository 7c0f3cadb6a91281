package main

import (
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/journal"
)

// Targets: the least ratio to what stands beside a cell. doc.go says to what.
const (
	targetLog        = 0.9
	targetFile       = 1.5 // of 16 and 64 writers
	targetSustained  = 0.6
	targetWrite      = 0.45
	targetWriteApart = 0.9
	targetRead       = 0.95
)

// stallMillis is what a write at p99.9 may take in randwrite-4k-sustained, or
// as long as the file's.
const stallMillis = 100

const (
	usualJournal = 256 << 20
	smallJournal = 64 << 20 // the least
)

// synced are writes each of which is flushed.
func (b *bench) synced() error {
	writers := []int{1, 16, 64}
	name := func(n int) string { return fmt.Sprintf("sync-4k-w%d", n) }
	if !b.wanted(name(1), name(16), name(64)) {
		return nil
	}
	vol, err := b.volume("volume", usualJournal, "")
	if err != nil {
		return err
	}
	defer vol.close()
	log, logFile, err := newLog(b.path("log"), usualJournal)
	if err != nil {
		return err
	}
	defer logFile.Close()
	d, err := disk.OS(b.path("journal"))
	if err != nil {
		return err
	}
	j, err := openJournal(d)
	if err != nil {
		return err
	}
	defer j.Close()
	for _, n := range writers {
		if !b.wanted(name(n)) {
			continue
		}
		l := load{workers: n, block: 4096, span: b.size, flush: true, dur: b.length()}
		r, err := b.turns(name(n), report.IOPS, []subject{vol, newJournal(j), log, b.file}, func(s subject) ([]report.Sample, error) {
			o, err := l.run(s)
			if err != nil {
				return nil, err
			}
			return []report.Sample{o.sample(o.elapsed)}, nil
		})
		if err != nil {
			return err
		}
		fileTarget := 0.0
		if n > 1 {
			fileTarget = targetFile
		}
		b.beside(name(n), r[0], r[2], targetLog)
		b.beside(name(n), r[0], r[3], fileTarget)
		b.beside(name(n)+"-journal", r[1], r[2], targetLog)
	}
	return nil
}

// openJournal makes a journal whose segments have all been written once.
func openJournal(d disk.FS) (*journal.Journal, error) {
	o := journal.Options{Size: usualJournal}
	if err := journal.Create(d, o); err != nil {
		return nil, err
	}
	j, _, err := journal.Open(d, o)
	if err != nil {
		return nil, err
	}
	warm := load{workers: 1, block: 1 << 20, span: 1 << 20, flush: true, bytes: usualJournal}
	if _, err := warm.run(newJournal(j)); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// sustained are writes without flushes, for long.
func (b *bench) sustained() error {
	const cell, synced, slowest = "randwrite-4k-sustained", "randwrite-4k-sustained-synced", "randwrite-4k-sustained-slowest-second"
	if !b.wanted(cell, synced, slowest) {
		return nil
	}
	vol, err := b.volume("volume", smallJournal, "")
	if err != nil {
		return err
	}
	defer vol.close()
	l := load{workers: 1, block: 4096, span: b.size, dur: 5 * b.length()}
	r, err := b.turns(cell, report.IOPS, []subject{vol, b.file}, func(s subject) ([]report.Sample, error) {
		o, err := l.run(s)
		if err != nil {
			return nil, err
		}
		late := o.sample(o.synced)
		late.Latency = nil
		return []report.Sample{o.sample(o.elapsed), late, {IOPS: o.slowest()}}, nil
	}, synced, slowest)
	if err != nil {
		return err
	}
	b.beside(cell, r[0], r[1], targetSustained)
	b.beside(synced, r[2], r[3], 0)
	b.beside(slowest, r[4], r[5], targetSustained)
	ours, theirs := stalls(r[0]), stalls(r[1])
	b.limit(cell+"-p99.9", ours, max(stallMillis, report.Median(theirs)), "ms")
	return nil
}

// stalls are the longest latencies but for one in a thousand, milliseconds.
func stalls(r *report.Result) (v []float64) {
	for _, s := range r.Samples {
		v = append(v, s.Latency.P999/1000)
	}
	return v
}

// large are writes of 1 MiB in sequence, final sync included.
func (b *bench) large() error {
	l := load{workers: 1, block: 1 << 20, span: b.size, seq: true, bytes: min(2<<30, b.size)}
	f := func(s subject) ([]report.Sample, error) {
		o, err := l.run(s)
		if err != nil {
			return nil, err
		}
		return []report.Sample{o.sample(o.synced)}, nil
	}
	// One after the other: both have their bytes in the same file.
	beside := func(name, called, journal string, target float64) error {
		if !b.wanted(name) {
			return nil
		}
		vol, err := b.volume(called, usualJournal, journal)
		if err != nil {
			return err
		}
		defer vol.close()
		r, err := b.turns(name, report.MBPerSec, []subject{vol, b.file}, f)
		if err == nil {
			b.beside(name, r[0], r[1], target)
		}
		return err
	}
	if err := beside("write-1m", "volume", "", targetWrite); err != nil {
		return err
	}
	return beside("write-1m-journal-apart", "volume", b.memory, targetWriteApart)
}

// reads are of what is in the page cache, and of what is not.
func (b *bench) reads() error {
	cells := []struct {
		name string
		unit string
		load load
		cold bool
	}{
		{"read-1m", report.MBPerSec, load{block: 1 << 20, seq: true}, false},
		{"randread-4k", report.IOPS, load{block: 4096}, false},
		{"read-1m-cold", report.MBPerSec, load{block: 1 << 20, seq: true}, true},
		{"randread-4k-cold", report.IOPS, load{block: 4096}, true},
	}
	var vol *volume
	for _, c := range cells {
		if !b.wanted(c.name) {
			continue
		}
		if vol == nil {
			var err error
			if vol, err = b.volume("volume", usualJournal, ""); err != nil {
				return err
			}
			defer vol.close()
		}
		l := c.load
		// Warm, a part that surely stays in memory; cold, no byte twice.
		l.workers, l.read, l.span, l.dur = 1, true, b.size/8, b.length()
		if c.cold {
			l.span = b.size
			if l.seq {
				l.dur, l.bytes = 0, b.size/4
			}
		}
		r, err := b.turns(c.name, c.unit, []subject{vol, b.file}, func(s subject) ([]report.Sample, error) {
			if err := b.temper(s, c.cold, l.span); err != nil {
				return nil, err
			}
			o, err := l.run(s)
			if err != nil {
				return nil, err
			}
			return []report.Sample{o.sample(o.elapsed)}, nil
		})
		if err != nil {
			return err
		}
		b.beside(c.name, r[0], r[1], targetRead)
	}
	return nil
}

// temper takes a subject's file out of the page cache, or the first n bytes of
// it in.
func (b *bench) temper(s subject, cold bool, n int64) error {
	f := b.file.f
	if v, ok := s.(*volume); ok {
		f = v.bytes
		if err := v.applied(0); err != nil { // its background sync sees to that
			return err
		}
	}
	if cold {
		return drop(f)
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < n; off += int64(len(p)) {
		if _, err := f.ReadAt(p, off); err != nil {
			return err
		}
	}
	return nil
}
