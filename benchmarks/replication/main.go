package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
)

const warning = `Only the ratios of one run mean something, and only beyond the spread beside them.
Both nodes, their peers and the clients share this machine's processors and its memory.
See benchmarks/replication/doc.go for the method, and for what makes a number meaningless.
`

type options struct {
	bin, dir, json string
	secs           float64
	runs           int
	mib            int64
	only           *regexp.Regexp
}

func main() {
	var o options
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage of %s:\n\n  -only '^latency' -secs 1 -runs 2   mirrored writes at queue depth 1 alone, shortly\n  -only '^resync' -mib 512           resyncs alone, of a smaller volume\n\n", os.Args[0])
		flag.PrintDefaults()
	}
	flag.StringVar(&o.bin, "bin", "bin/lockstep", "the lockstep binary")
	flag.StringVar(&o.dir, "dir", "/dev/shm", "where the replicas live; a tmpfs")
	flag.StringVar(&o.json, "json", "bench-replication.json", "file for the results")
	flag.Float64Var(&o.secs, "secs", 2, "length of each run of fio, seconds")
	flag.IntVar(&o.runs, "runs", 3, "runs of each cell; the median counts")
	flag.Int64Var(&o.mib, "mib", 1024, "size of the volumes, MiB; at least 128")
	only := flag.String("only", "", "only the cells whose name matches the regular expression")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, o, os.Stdout)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks/replication:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.mib < 128 || o.runs < 1 || o.secs <= 0 {
		return fmt.Errorf("-mib is at least 128, -runs at least 1, -secs more than 0")
	}
	b := &bench{options: o, size: o.mib << 20}
	if b.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(o.dir, "lockstep-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer b.close()
	b.report = &report.Report{Time: time.Now(), Host: report.Host(), Versions: map[string]string{"lockstep": report.FirstLine(b.bin, "version")},
		Seconds: o.secs, SizeBytes: b.size}
	fmt.Fprint(out, warning, "\n")
	for _, group := range []func(context.Context) error{b.writes, b.copies, b.beside, b.sparse} {
		if err = group(ctx); err != nil {
			break // what was measured until then is printed
		}
	}
	report.Progress("")
	for _, name := range slices.Sorted(maps.Keys(b.report.Versions)) {
		fmt.Fprintf(out, "%s: %s\n", name, b.report.Versions[name])
	}
	h := b.report.Host
	fmt.Fprintf(out, "%s, %s cores, %s\n\n", h["cpu"], h["cores"], h["kernel"])
	return errors.Join(err, b.report.Print(out), b.report.WriteJSON(o.json))
}

// A bench is one run of all cells.
type bench struct {
	options // dir is this run's own directory
	size    int64
	report  *report.Report
	closers []func()
}

// close ends what the cells have left running.
func (b *bench) close() {
	for _, f := range slices.Backward(b.closers) {
		f()
	}
}

// wanted reports whether any of the cells is to be run.
func (b *bench) wanted(cells ...string) bool { return slices.ContainsFunc(cells, b.only.MatchString) }

func (b *bench) length() time.Duration { return time.Duration(b.secs * float64(time.Second)) }

func (b *bench) limit(name string, value, most float64, unit string) {
	b.report.Limits = append(b.report.Limits, report.Limit{Name: name, Value: value, Most: most, Unit: unit})
}

func (b *bench) figure(name string, value float64, unit string) {
	b.report.Figures = append(b.report.Figures, report.Figure{Name: name, Value: value, Unit: unit})
}

func (b *bench) compare(name string, ours, theirs *report.Result, target float64) {
	b.report.Comparisons = append(b.report.Comparisons, report.Compare(name, theirs.Server, ours, theirs, target))
}

// A subject is what takes its turn in a cell.
type subject struct {
	name string
	run  func(ctx context.Context) (report.Sample, error)
}

// turns runs every subject of a cell so often, in turns, so that a slow minute of the
// machine hits all of them.
func (b *bench) turns(ctx context.Context, cell, unit string, subjects ...subject) ([]*report.Result, error) {
	results := make([]*report.Result, len(subjects))
	for i, s := range subjects {
		results[i] = &report.Result{Cell: cell, Server: s.name, Unit: unit}
	}
	for run := range b.runs {
		for turn := range subjects {
			i := (turn + run) % len(subjects) // nobody is always first
			report.Progress(fmt.Sprintf("%s on %s, run %d of %d", cell, subjects[i].name, run+1, b.runs))
			got, err := subjects[i].run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", cell, subjects[i].name, err)
			}
			results[i].Samples = append(results[i].Samples, got)
		}
	}
	b.report.Results = append(b.report.Results, results...)
	return results, nil
}
