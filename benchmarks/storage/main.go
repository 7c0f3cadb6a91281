package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
)

const warning = `Only the ratios of one run mean something, and only beyond the spread beside them.
What a flush costs is the disk's business, or its host's: nothing else may run meanwhile.
See benchmarks/storage/doc.go for the method, and for what makes a number meaningless.
`

type options struct {
	bin, dir, memory, json, profile string
	secs                            float64
	runs                            int
	mib                             int64
	only                            *regexp.Regexp
}

func main() {
	var o options
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage of %s:\n\n  -only sync-4k -secs 1          the cells of synced writes, shortly\n  -only write-1m -profile prof   with a CPU profile of each run of ours in prof/\n\n", os.Args[0])
		flag.PrintDefaults()
	}
	flag.StringVar(&o.bin, "bin", "bin/lockstep", "the lockstep binary, for the restart of a daemon")
	flag.StringVar(&o.dir, "dir", ".", "where the files live; on a real disk")
	flag.StringVar(&o.memory, "tmpfs", "/dev/shm", "a tmpfs, which stands for a second device")
	flag.StringVar(&o.json, "json", "bench-storage.json", "file for the results")
	flag.StringVar(&o.profile, "profile", "", "directory for CPU profiles of the runs of ours")
	flag.Float64Var(&o.secs, "secs", 2, "length of each run, seconds; randwrite-4k-sustained takes five times as long")
	flag.IntVar(&o.runs, "runs", 3, "runs of each cell on each subject; the median counts")
	flag.Int64Var(&o.mib, "mib", 8192, "size of the plain file and of the volume, MiB; at least 2048")
	only := flag.String("only", "", "only the cells whose name matches the regular expression")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, o, os.Stdout)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks/storage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.mib < 2048 || o.runs < 1 || o.secs <= 0 {
		return errors.New("-mib is at least 2048, -runs at least 1, -secs more than 0")
	}
	b := &bench{options: o, ctx: ctx, size: o.mib << 20}
	if b.dir, err = os.MkdirTemp(o.dir, "lockstep-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.memory, err = os.MkdirTemp(o.memory, "lockstep-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.memory)
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
	}
	host := report.Host()
	host["fileSystem"] = report.FirstLine("stat", "-f", "-c", "%T", b.dir)
	b.report = &report.Report{Time: time.Now(), Host: host, Seconds: o.secs, SizeBytes: b.size}
	fmt.Fprint(out, warning, "\n")
	if err := b.all(); err != nil {
		return err
	}
	report.Progress("")
	fmt.Fprintf(out, "%s, %s cores, %s, %s\n\n", host["cpu"], host["cores"], host["kernel"], host["fileSystem"])
	if err := b.report.Print(out); err != nil {
		return err
	}
	return b.report.WriteJSON(o.json)
}

// A bench is one run of all cells.
type bench struct {
	options // dir and memory are this run's own directories
	ctx     context.Context
	size    int64
	report  *report.Report
	file    *plain // what ours stands beside
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// all runs the cells that match.
func (b *bench) all() error {
	for _, group := range []func() error{b.synced, b.sustained, b.large, b.reads, b.recovery, b.restart} {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if err := group(); err != nil {
			return err
		}
	}
	return nil
}

// wanted reports whether any of the cells is to be run.
func (b *bench) wanted(cells ...string) bool {
	for _, c := range cells {
		if b.only.MatchString(c) {
			return true
		}
	}
	return false
}

// need makes the plain file, and the file that volumes have their bytes in.
func (b *bench) need() error {
	if b.file != nil {
		return nil
	}
	report.Progress("filling two files")
	ours, err := newPlain(b.path("bytes"), b.size)
	if err != nil {
		return err
	}
	if err := ours.close(); err != nil {
		return err
	}
	b.file, err = newPlain(b.path("file"), b.size)
	return err
}

// volume makes a volume with a fresh journal, over the file that all share.
func (b *bench) volume(called string, journalSize int64, journal string) (*volume, error) {
	if err := b.need(); err != nil {
		return nil, err
	}
	report.Progress("a fresh journal")
	dir, err := os.MkdirTemp(b.dir, "replica-")
	if err != nil {
		return nil, err
	}
	return newVolume(b.ctx, replica{
		called: called, dir: dir, journal: journal, bytes: b.path("bytes"), size: b.size, journalSize: journalSize,
	})
}

// turns runs every subject so often, in turns, so that a slow minute of the
// machine hits all of them. f measures one turn, and its first sample counts for
// the cell; others are for the cells named after it.
func (b *bench) turns(cell, unit string, subjects []subject, f func(subject) ([]report.Sample, error), more ...string) ([]*report.Result, error) {
	names := append([]string{cell}, more...)
	results := make([]*report.Result, len(names)*len(subjects))
	for i := range results {
		results[i] = &report.Result{Cell: names[i/len(subjects)], Server: subjects[i%len(subjects)].name(), Unit: unit}
	}
	for run := range b.runs {
		for turn := range subjects {
			i := (turn + run) % len(subjects) // nobody is always first
			s := subjects[i]
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			report.Progress(fmt.Sprintf("%s on %s, run %d of %d", cell, s.name(), run+1, b.runs))
			stop, err := b.profiled(fmt.Sprintf("%s-%s-%d", cell, s.name(), run+1), s)
			if err != nil {
				return nil, err
			}
			got, err := f(s)
			stop()
			if err == nil {
				err = s.settle()
			}
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", cell, s.name(), err)
			}
			for k, sample := range got {
				r := results[k*len(subjects)+i]
				r.Samples = append(r.Samples, sample)
			}
		}
	}
	b.report.Results = append(b.report.Results, results...)
	return results, nil
}

// profiled profiles a run of ours if that is asked for, until stop.
func (b *bench) profiled(name string, s subject) (stop func(), err error) {
	switch s.(type) {
	case *plain:
		return func() {}, nil
	}
	if b.profile == "" || s.name() == "log" {
		return func() {}, nil
	}
	f, err := os.Create(filepath.Join(b.profile, name+".prof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close() // a profile that is cut short does not open
	}, nil
}

// beside adds a line of the outcome.
func (b *bench) beside(name string, ours, theirs *report.Result, target float64) {
	b.report.Comparisons = append(b.report.Comparisons, report.Compare(name, theirs.Server, ours, theirs, target))
}

func (b *bench) limit(name string, values []float64, most float64, unit string) {
	b.report.Limits = append(b.report.Limits, report.Limit{Name: name, Value: report.Median(values), Most: most, Unit: unit})
}

func (b *bench) length() time.Duration { return time.Duration(b.secs * float64(time.Second)) }
