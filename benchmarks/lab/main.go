package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
)

const warning = `Only the ratios of one run mean something, and only beyond the spread beside them.
Under User Mode Linux a system call costs some 30 us, so the ratios are the worst that
ours can be: see benchmarks/lab/doc.go.
`

type options struct {
	bin, lab, accel, json string
	secs                  int
	runs                  int
	mib                   int64
	only                  *regexp.Regexp
}

func main() {
	var o options
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage of %s:\n\n  -only '^(lockstep|drbd)$' -runs 1   two of the subjects, once\n  -accel kvm                          on a machine that has it\n\n", os.Args[0])
		flag.PrintDefaults()
	}
	flag.StringVar(&o.bin, "bin", "bin/lockstep", "the lockstep binary")
	flag.StringVar(&o.lab, "lab", "integration/lab", "the kernel lab's directory")
	flag.StringVar(&o.accel, "accel", "uml", "the lab's engine: uml, kvm or tcg")
	flag.StringVar(&o.json, "json", "bench-lab.json", "file for the results")
	flag.IntVar(&o.secs, "secs", 3, "length of each run of fio, seconds")
	flag.IntVar(&o.runs, "runs", 3, "boots of each subject; the median counts")
	flag.Int64Var(&o.mib, "mib", 512, "size of the RAM disks, MiB")
	only := flag.String("only", "", "only the subjects whose name matches the regular expression")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, o, os.Stdout)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks/lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.mib < 128 || o.runs < 1 || o.secs < 1 {
		return errors.New("-mib is at least 128, -runs and -secs at least 1")
	}
	for _, path := range []*string{&o.bin, &o.lab} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if _, err := os.Stat(o.bin); err != nil {
		return fmt.Errorf("%w: run 'make build'", err)
	}
	// Before the network namespace, which no download reaches into.
	engine := "stock"
	if o.accel == "uml" {
		engine = "uml"
	}
	build := exec.CommandContext(ctx, filepath.Join(o.lab, "build"), engine)
	build.Env, build.Stderr = guestEnv(), os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the guest: %w", err)
	}
	rep := &report.Report{Time: time.Now(), Host: report.Host(), Versions: make(map[string]string), Seconds: float64(o.secs), SizeBytes: o.mib << 20}
	fmt.Fprint(out, warning, "\n")
	results := make(map[string]map[string]*report.Result) // by subject and cell
	wanted := slices.DeleteFunc(slices.Clone(subjects), func(s subject) bool { return !o.only.MatchString(s.name) })
	for run := range o.runs {
		for turn := range wanted {
			s := wanted[(turn+run)%len(wanted)] // nobody is always first
			report.Progress(fmt.Sprintf("%s, run %d of %d", s.name, run+1, o.runs))
			cells, err := s.measure(ctx, o, rep.Versions)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			of := results[s.name]
			if of == nil {
				of = make(map[string]*report.Result)
				results[s.name] = of
			}
			for cell, sample := range cells {
				if of[cell] == nil {
					of[cell] = &report.Result{Cell: cell, Server: s.name, Unit: unitOf(cell)}
				}
				of[cell].Samples = append(of[cell].Samples, sample)
			}
		}
	}
	report.Progress("")
	for _, cell := range cellNames {
		ours := results[ourName][cell]
		for _, s := range wanted {
			r := results[s.name][cell]
			rep.Results = append(rep.Results, r)
			if s.name != ourName && ours != nil {
				rep.Comparisons = append(rep.Comparisons, report.Compare(cell, s.name, ours, r, s.target))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rep.Versions)) {
		fmt.Fprintf(out, "%s: %s\n", name, rep.Versions[name])
	}
	fmt.Fprintf(out, "%s, %s cores, %s; guests under %s\n\n", rep.Host["cpu"], rep.Host["cores"], rep.Host["kernel"], o.accel)
	return errors.Join(rep.Print(out), rep.WriteJSON(o.json))
}

// cellNames are the cells that guest/common.sh measures, in its order.
var cellNames = []string{"randwrite-4k-qd1", "randwrite-4k-qd32", "write-128k-qd8"}

func unitOf(cell string) string {
	if strings.HasPrefix(cell, "randwrite-4k") {
		return report.IOPS
	}
	return report.MBPerSec
}
