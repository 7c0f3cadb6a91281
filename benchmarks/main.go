package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/integration/wire"
)

// oneWay is how late everything arrives at the mirror's other node: a round
// trip of 1 ms, as between two buildings.
const oneWay = 500 * time.Microsecond

// The least ratios that are aimed for.
const (
	targetNbdkit = 1  // a single copy, beside nbdkit's file plugin
	targetMirror = 20 // queue depth 32 over queue depth 1, with the peer 1 ms away
)

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
	r := &report{Time: time.Now(), Host: host(), Versions: map[string]string{"fio": firstLine("fio", "--version")},
		Seconds: o.secs, SizeBytes: o.mib << 20}
	b := &bench{options: o, bin: bin, dir: dir, report: r}
	if err := b.singles(ctx); err != nil {
		return err
	}
	if err := b.mirror(ctx); err != nil {
		return err
	}
	fmt.Fprint(os.Stderr, "\r\033[K")
	for name, v := range r.Versions {
		fmt.Fprintf(out, "%s: %s\n", name, v)
	}
	fmt.Fprintf(out, "%s, %s cores, %s; round trip to the mirror's peer %.0f us\n\n", r.Host["cpu"], r.Host["cores"], r.Host["kernel"], r.RoundTrip)
	if err := r.print(out); err != nil {
		return err
	}
	return r.writeJSON(o.json)
}

// A bench is one run of all workloads.
type bench struct {
	options
	bin, dir string
	report   *report
}

// singles runs the single-copy workloads on ours and theirs in turns.
func (b *bench) singles(ctx context.Context) error {
	size := b.mib << 20
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.close()
		}
	}()
	for _, start := range []func() (*server, error){
		func() (*server, error) { return startLockstep(ctx, b.bin, b.dir, size) },
		func() (*server, error) { return startNbdkit(ctx, b.dir, size) },
		func() (*server, error) { return startQemuNBD(ctx, b.dir, size) },
	} {
		s, err := start()
		if err != nil {
			return err
		}
		servers = append(servers, s)
		b.report.Versions[s.name] = s.version
		if err := fill(ctx, s.uri, size); err != nil {
			return fmt.Errorf("fill %s: %w", s.name, err)
		}
	}
	for _, w := range single {
		if !b.only.MatchString(w.String()) {
			continue
		}
		results, err := b.measure(ctx, w.String(), servers, []workload{w})
		if err != nil {
			return err
		}
		for i, target := range []float64{targetNbdkit, 0} {
			if w.fsync || w.bs != "4k" {
				target = 0
			}
			b.report.Comparisons = append(b.report.Comparisons,
				compare(w.String(), servers[i+1].name, results[0], results[i+1], target))
		}
	}
	return nil
}

// mirror runs the mirrored workloads in turns.
func (b *bench) mirror(ctx context.Context) error {
	name := "mirror-1ms-" + mirrored[1].String()
	if !b.only.MatchString(name) {
		return nil
	}
	var err error
	if b.report.RoundTrip, err = roundTrip(); err != nil {
		return err
	}
	s, err := startMirror(ctx, b.bin, b.dir, b.mib<<20, oneWay)
	if err != nil {
		return err
	}
	defer s.close()
	if err := fill(ctx, s.uri, b.mib<<20); err != nil {
		return fmt.Errorf("fill the mirror: %w", err)
	}
	results, err := b.measure(ctx, "mirror-1ms", []*server{s, s}, mirrored[:])
	if err != nil {
		return err
	}
	b.report.Comparisons = append(b.report.Comparisons, compare(name, "qd1", results[1], results[0], targetMirror))
	return nil
}

// measure runs each server with its workload (the only one, or the one of the
// same index), in turns, so that a slow minute of the machine hits all of them.
func (b *bench) measure(ctx context.Context, cell string, servers []*server, ws []workload) ([]*result, error) {
	results := make([]*result, len(servers))
	for i, s := range servers {
		w := ws[i%len(ws)]
		results[i] = &result{Cell: cell, Server: s.name, Unit: "IOPS"}
		if w.bs != "4k" {
			results[i].Unit = "MB/s"
		}
		if len(ws) > 1 {
			results[i].Cell = cell + "-" + w.String()
		}
	}
	for run := range b.runs {
		for turn := range servers {
			i := (turn + run) % len(servers) // nobody is always first
			s, w := servers[i], ws[i%len(ws)]
			fmt.Fprintf(os.Stderr, "\r\033[K%s on %s, run %d of %d", w, s.name, run+1, b.runs)
			got, err := fio(ctx, s.uri, b.mib<<20, w, time.Duration(b.secs*float64(time.Second)))
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", w, s.name, err)
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
	return median(micros), nil
}
