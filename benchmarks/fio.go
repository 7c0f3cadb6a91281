package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
)

// fio runs a workload on an export of so many bytes for a time, after a short
// run-up that does not count.
func fio(ctx context.Context, uri string, size int64, w workload, d time.Duration) (report.Sample, error) {
	return runFio(ctx, uri, size, append(w.args(), "--time_based", "--ramp_time=500ms",
		fmt.Sprintf("--runtime=%dms", d.Milliseconds()), "--norandommap", "--randrepeat=0"))
}

// fill writes the whole export once, so that no server reads or overwrites holes.
func fill(ctx context.Context, uri string, size int64) error {
	_, err := runFio(ctx, uri, size, []string{"--rw=write", "--bs=1m", "--iodepth=4", "--end_fsync=1"})
	return err
}

func runFio(ctx context.Context, uri string, size int64, args []string) (report.Sample, error) {
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
	return parseFio(b)
}

// parseFio reads fio's JSON report of one job.
func parseFio(b []byte) (report.Sample, error) {
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
		} `json:"lat_ns"`
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
	return report.Sample{IOPS: s.IOPS, Bytes: s.Bytes, MeanMicros: s.Lat.Mean / 1e3}, nil
}
