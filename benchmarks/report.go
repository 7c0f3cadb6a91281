package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A result is every run of one workload on one server.
type result struct {
	Cell    string   `json:"cell"` // the workload's name
	Server  string   `json:"server"`
	Unit    string   `json:"unit"` // "IOPS", or "MB/s" for large blocks
	Samples []sample `json:"samples"`
}

// value is the median of the runs, in Unit.
func (r *result) value() float64 { return median(r.values()) }

func (r *result) values() []float64 {
	v := make([]float64, len(r.Samples))
	for i, s := range r.Samples {
		v[i] = s.IOPS
		if r.Unit == "MB/s" {
			v[i] = s.Bytes / 1e6
		}
	}
	return v
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return 0
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}

// A comparison is one line of the outcome: ours beside theirs, higher is better.
type comparison struct {
	Name   string  `json:"name"`
	Ours   float64 `json:"ours"`
	Peer   string  `json:"peer"`
	Theirs float64 `json:"theirs"`
	Ratio  float64 `json:"ratio"`
	// Target is the least ratio that is aimed for; 0 for none.
	Target float64 `json:"target,omitempty"`
}

func compare(name, peer string, ours, theirs *result, target float64) comparison {
	return comparison{name, ours.value(), peer, theirs.value(), ours.value() / theirs.value(), target}
}

// String is the form that every benchmark of Lockstep's ends in.
func (c comparison) String() string {
	return fmt.Sprintf("bench %s %.0f %s %.0f ratio %.2f", c.Name, c.Ours, c.Peer, c.Theirs, c.Ratio)
}

// A report is everything that a run of the benchmarks measured.
type report struct {
	Time        time.Time         `json:"time"`
	Host        map[string]string `json:"host"`
	Versions    map[string]string `json:"versions"`
	Seconds     float64           `json:"secondsPerRun"`
	SizeBytes   int64             `json:"sizeBytes"`
	RoundTrip   float64           `json:"roundTripMicroseconds"` // measured, of the mirror's relays
	Results     []*result         `json:"results"`
	Comparisons []comparison      `json:"comparisons"`
}

// print writes the table, one row for each workload, then the bench lines.
func (r *report) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	cell := ""
	for _, res := range r.Results {
		if res.Cell != cell {
			if cell != "" {
				fmt.Fprintln(tw)
			}
			cell = res.Cell
			fmt.Fprintf(tw, "%s\t%s\t", cell, res.Unit)
		}
		v := res.values()
		fmt.Fprintf(tw, "%s\t%.0f\t(%.0f-%.0f)\t", res.Server, res.value(), slices.Min(v), slices.Max(v))
	}
	fmt.Fprintln(tw)
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, c := range r.Comparisons {
		fmt.Fprintln(w, c)
	}
	fmt.Fprintln(w)
	for _, c := range r.Comparisons {
		if c.Target == 0 {
			continue
		}
		verdict := "met"
		if c.Ratio < c.Target {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "target %s: %.2f of %s, wanted %.2f: %s\n", c.Name, c.Ratio, c.Peer, c.Target, verdict)
	}
	return nil
}

func (r *report) writeJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// host says what the numbers were measured on.
func host() map[string]string {
	h := map[string]string{
		"kernel": firstLine("uname", "-sr"),
		"cores":  fmt.Sprint(runtime.NumCPU()),
	}
	h["cpu"] = field("/proc/cpuinfo", "model name")
	h["memory"] = field("/proc/meminfo", "MemTotal")
	return h
}

// field returns what stands behind "key:" in a file of the kernel's.
func field(path, key string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
