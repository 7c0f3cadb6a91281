package fio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
)

// A Workload is what fio does to an export.
type Workload struct {
	RW    string // fio's --rw
	BS    string // fio's --bs
	Depth int
	Fsync bool // a flush after every write
}

func (w Workload) String() string {
	s := fmt.Sprintf("%s-%s-qd%d", w.RW, w.BS, w.Depth)
	if w.Fsync {
		s += "-fsync"
	}
	return s
}

// args are the options that the workload gives to fio.
func (w Workload) args() []string {
	a := []string{"--rw=" + w.RW, "--bs=" + w.BS, "--iodepth=" + strconv.Itoa(w.Depth)}
	if w.Fsync {
		a = append(a, "--fsync=1")
	}
	return a
}

// Run runs a workload on the first size bytes of an export for a time, after a short
// run-up that does not count.
func Run(ctx context.Context, uri string, size int64, w Workload, d time.Duration) (report.Sample, error) {
	return run(ctx, uri, size, append(w.args(), "--time_based", "--ramp_time=500ms",
		fmt.Sprintf("--runtime=%dms", d.Milliseconds()), "--norandommap", "--randrepeat=0"))
}

// Once runs a workload over size bytes once.
func Once(ctx context.Context, uri string, size int64, w Workload) (report.Sample, error) {
	return run(ctx, uri, size, append(w.args(), "--end_fsync=1"))
}

// Fill writes the whole export once, so that no server reads or overwrites holes.
func Fill(ctx context.Context, uri string, size int64) error {
	_, err := Once(ctx, uri, size, Workload{RW: "write", BS: "1m", Depth: 4})
	return err
}

func run(ctx context.Context, uri string, size int64, args []string) (report.Sample, error) {
	dir, err := os.MkdirTemp("", "lockstep-fio-")
	if err != nil {
		return report.Sample{}, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "report.json")
	args = append([]string{"--name=bench", "--ioengine=nbd", "--uri=" + uri, fmt.Sprintf("--size=%d", size),
		"--thread", "--output-format=json", "--output=" + out}, args...)
	cmd := exec.CommandContext(ctx, "fio", args...)
	cmd.Dir = dir // fio leaves state files where it stands
	if msg, err := cmd.CombinedOutput(); err != nil {
		return report.Sample{}, fmt.Errorf("fio %s: %w\n%s", strings.Join(args, " "), err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return report.Sample{}, err
	}
	return parse(b)
}

// parse reads fio's JSON report of one job.
func parse(b []byte) (report.Sample, error) {
	// Whatever fio has to say to people comes before.
	if i := bytes.IndexByte(b, '{'); i > 0 {
		b = b[i:]
	}
	type side struct {
		IOs   int64   `json:"total_ios"`
		IOPS  float64 `json:"iops"`
		Bytes float64 `json:"bw_bytes"`
		Lat   struct {
			Mean float64 `json:"mean"`
			Max  float64 `json:"max"`
		} `json:"lat_ns"`
		// Of the time from when fio hands a request to its engine.
		Complete struct {
			Percentile map[string]float64 `json:"percentile"`
		} `json:"clat_ns"`
	}
	var r struct {
		Jobs []struct {
			Error       int
			Read, Write side
		}
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return report.Sample{}, fmt.Errorf("fio's report is no JSON: %w", err)
	}
	if len(r.Jobs) != 1 {
		return report.Sample{}, fmt.Errorf("fio reports %d jobs, want 1", len(r.Jobs))
	}
	j := r.Jobs[0]
	if j.Error != 0 {
		return report.Sample{}, fmt.Errorf("fio met error %d", j.Error)
	}
	s := j.Write
	if j.Read.IOs > 0 {
		s = j.Read
	}
	if s.IOs == 0 {
		return report.Sample{}, errors.New("fio measured no I/O")
	}
	out := report.Sample{IOPS: s.IOPS, Bytes: s.Bytes, MeanMicros: s.Lat.Mean / 1e3}
	if p := s.Complete.Percentile; p != nil {
		out.Latency = &report.Latency{P50: p["50.000000"] / 1e3, P99: p["99.000000"] / 1e3, P999: p["99.900000"] / 1e3, Max: s.Lat.Max / 1e3}
	}
	return out, nil
}
