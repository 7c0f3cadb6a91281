package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/fio"
	"github.com/lockstep-storage/lockstep/benchmarks/peer"
	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/wire"
)

// oneWay is how late everything arrives at the mirror's other node: a round
// trip of 1 ms, as between two buildings.
const oneWay = 500 * time.Microsecond

// targetMirror is the least ratio that is aimed for of queue depth 32 over queue
// depth 1, with the peer 1 ms away.
const targetMirror = 20

const warning = `Only the ratios of one run mean something, and only beyond the spread beside them.
Client and servers share this machine's processors; tmpfs has no fsync to wait for.
See benchmarks/doc.go for what else makes a number meaningless.
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
	flag.StringVar(&o.bin, "bin", "bin/lockstep", "the lockstep binary")
	flag.StringVar(&o.dir, "dir", "/dev/shm", "where the exports live; a tmpfs")
	flag.StringVar(&o.json, "json", "bench.json", "file for the results")
	flag.Float64Var(&o.secs, "secs", 5, "length of each run of fio, seconds")
	flag.IntVar(&o.runs, "runs", 3, "runs of each workload on each server; the median counts")
	flag.Int64Var(&o.mib, "mib", 1024, "size of the exports, MiB")
	only := flag.String("only", "", "only the workloads that match")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, o, os.Stdout)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "lockstep-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprint(out, warning, "\n")
	r := &report.Report{Time: time.Now(), Host: report.Host(), Versions: map[string]string{"fio": report.FirstLine("fio", "--version")},
		Seconds: o.secs, SizeBytes: o.mib << 20}
	b := &bench{options: o, bin: bin, dir: dir, report: r}
	if err := b.beside(ctx); err != nil {
		return err
	}
	if err := b.distant(ctx); err != nil {
		return err
	}
	report.Progress("")
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(out, "%s: %s\n", name, r.Versions[name])
	}
	fmt.Fprintf(out, "%s, %s cores, %s; round trip to the mirror's peer %.0f us\n\n", r.Host["cpu"], r.Host["cores"], r.Host["kernel"], r.RoundTrip)
	if err := r.Print(out); err != nil {
		return err
	}
	return r.WriteJSON(o.json)
}

// A bench is one run of all workloads.
type bench struct {
	options
	bin, dir string
	report   *report.Report
}

// foreign are the servers that ours are measured beside.
var foreign = []func(context.Context, string, int64) (*peer.Server, error){startNbdkit, startQemuNBD}

// beside runs the workloads of a single copy and of a mirror, each in turns
// with the foreign servers.
func (b *bench) beside(ctx context.Context) error {
	var theirs []*peer.Server
	for _, start := range foreign {
		s, err := b.open(ctx, func() (*peer.Server, error) { return start(ctx, b.dir, b.mib<<20) })
		if err != nil {
			return err
		}
		defer s.Close()
		theirs = append(theirs, s)
	}
	err := b.against(ctx, theirs, "", single, func() (*peer.Server, error) {
		return startLockstep(ctx, b.bin, b.dir, b.mib<<20)
	})
	if err != nil {
		return err
	}
	return b.against(ctx, theirs, "mirror-", onMirror, func() (*peer.Server, error) {
		return startMirror(ctx, b.bin, filepath.Join(b.dir, "near"), b.mib<<20, 0)
	})
}

// open starts a server and fills its export.
func (b *bench) open(ctx context.Context, start func() (*peer.Server, error)) (*peer.Server, error) {
	s, err := start()
	if err != nil {
		return nil, err
	}
	b.report.Versions[s.Name] = s.Version
	if err := fio.Fill(ctx, s.URI, b.mib<<20); err != nil {
		s.Close()
		return nil, fmt.Errorf("fill %s: %w", s.Name, err)
	}
	return s, nil
}

// against runs workloads on one of our servers and on theirs.
func (b *bench) against(ctx context.Context, theirs []*peer.Server, prefix string, ws []workload, start func() (*peer.Server, error)) error {
	ours, err := b.open(ctx, start)
	if err != nil {
		return err
	}
	defer ours.Close()
	for _, w := range ws {
		name := prefix + w.String()
		if !b.only.MatchString(name) {
			continue
		}
		results, err := b.measure(ctx, name, append([]*peer.Server{ours}, theirs...), []workload{w})
		if err != nil {
			return err
		}
		for i, s := range theirs {
			target := 0.0
			if s.Name == "nbdkit" {
				target = w.target
			}
			b.report.Comparisons = append(b.report.Comparisons, report.Compare(name, s.Name, results[0], results[i+1], target))
		}
	}
	return nil
}

// distant runs the workloads of a mirror whose peer is one round trip away, in
// turns with each other.
func (b *bench) distant(ctx context.Context) error {
	name := "mirror-1ms-" + mirrored[1].String()
	if !b.only.MatchString(name) {
		return nil
	}
	var err error
	if b.report.RoundTrip, err = roundTrip(); err != nil {
		return err
	}
	s, err := b.open(ctx, func() (*peer.Server, error) {
		return startMirror(ctx, b.bin, filepath.Join(b.dir, "far"), b.mib<<20, oneWay)
	})
	if err != nil {
		return err
	}
	defer s.Close()
	results, err := b.measure(ctx, "mirror-1ms", []*peer.Server{s, s}, mirrored[:])
	if err != nil {
		return err
	}
	b.report.Comparisons = append(b.report.Comparisons, report.Compare(name, "qd1", results[1], results[0], targetMirror))
	return nil
}

// measure runs each server with its workload (the only one, or the one of the
// same index), in turns, so that a slow minute of the machine hits all of them.
func (b *bench) measure(ctx context.Context, cell string, servers []*peer.Server, ws []workload) ([]*report.Result, error) {
	results := make([]*report.Result, len(servers))
	for i, s := range servers {
		w := ws[i%len(ws)]
		results[i] = &report.Result{Cell: cell, Server: s.Name, Unit: report.IOPS}
		if w.BS != "4k" {
			results[i].Unit = report.MBPerSec
		}
		if len(ws) > 1 {
			results[i].Cell = cell + "-" + w.String()
		}
	}
	for run := range b.runs {
		for turn := range servers {
			i := (turn + run) % len(servers) // nobody is always first
			s, w := servers[i], ws[i%len(ws)]
			report.Progress(fmt.Sprintf("%s on %s, run %d of %d", w, s.Name, run+1, b.runs))
			got, err := fio.Run(ctx, s.URI, b.mib<<20, w.Workload, time.Duration(b.secs*float64(time.Second)))
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", w, s.Name, err)
			}
			results[i].Samples = append(results[i].Samples, got)
		}
	}
	b.report.Results = append(b.report.Results, results...)
	return results, nil
}

// roundTrip measures what a byte there and back takes over a relay such as the
// mirror's, in microseconds.
func roundTrip() (float64, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c) // until the other side closes
	}()
	r, err := wire.Listen("127.0.0.1:0", l.Addr().String(), oneWay)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	b := make([]byte, 1)
	var micros []float64
	for range 200 {
		start := time.Now()
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return 0, err
		}
		micros = append(micros, float64(time.Since(start).Nanoseconds())/1e3)
	}
	return report.Median(micros), nil
}
