package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Sample is what one run measured.
type Sample struct {
	IOPS       float64 `json:"iops"`
	Bytes      float64 `json:"bytesPerSecond"`
	MeanMicros float64 `json:"meanMicroseconds"` // latency, queueing included
	// Latency is where the mean does not say enough.
	Latency *Latency `json:"latency,omitempty"`
}

// Latency is how long single operations took, microseconds: the time that so
// many of a hundred were done within, and the longest of all.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Units of a Result: operations, or bytes.
const (
	IOPS     = "IOPS"
	MBPerSec = "MB/s"
	MBPerCPU = "MB/CPU-s" // for each second of processor time
)

// A Result is every run of one workload on one server.
type Result struct {
	Cell    string   `json:"cell"` // the workload's name
	Server  string   `json:"server"`
	Unit    string   `json:"unit"` // one of the above
	Samples []Sample `json:"samples"`
}

// Value is the median of the runs, in Unit.
func (r *Result) Value() float64 { return Median(r.values()) }

func (r *Result) values() []float64 {
	v := make([]float64, len(r.Samples))
	for i, s := range r.Samples {
		v[i] = s.IOPS
		if r.Unit != IOPS {
			v[i] = s.Bytes / 1e6
		}
	}
	return v
}

// MeanMicros is the median of the runs' mean latencies.
func (r *Result) MeanMicros() float64 {
	v := make([]float64, len(r.Samples))
	for i, s := range r.Samples {
		v[i] = s.MeanMicros
	}
	return Median(v)
}

// latency is the median of the runs of each figure; ok is false without any.
func (r *Result) latency() (l Latency, ok bool) {
	of := func(f func(*Latency) float64) float64 {
		var v []float64
		for _, s := range r.Samples {
			if s.Latency != nil {
				v = append(v, f(s.Latency))
			}
		}
		ok = len(v) > 0
		return Median(v)
	}
	l.P50 = of(func(l *Latency) float64 { return l.P50 })
	l.P99 = of(func(l *Latency) float64 { return l.P99 })
	l.P999 = of(func(l *Latency) float64 { return l.P999 })
	l.Max = of(func(l *Latency) float64 { return l.Max })
	return l, ok
}

// Median of v; of an even number, the mean of the two in the middle. 0 of none.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return 0
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}

// A Comparison is one line of the outcome: ours beside theirs, higher is better.
type Comparison struct {
	Name   string  `json:"name"`
	Ours   float64 `json:"ours"`
	Peer   string  `json:"peer"`
	Theirs float64 `json:"theirs"`
	Ratio  float64 `json:"ratio"`
	// Target is the least ratio that is aimed for; 0 for none.
	Target float64 `json:"target,omitempty"`
}

// Compare sets a result of ours beside one of theirs.
func Compare(name, peer string, ours, theirs *Result, target float64) Comparison {
	return Comparison{name, ours.Value(), peer, theirs.Value(), ours.Value() / theirs.Value(), target}
}

// String is the form that every benchmark of Lockstep's ends in.
func (c Comparison) String() string {
	return fmt.Sprintf("bench %s %.0f %s %.0f ratio %.2f", c.Name, c.Ours, c.Peer, c.Theirs, c.Ratio)
}

// A Limit is one line of the outcome that stands beside no peer: lower is
// better, and Most is what is aimed for.
type Limit struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"` // the median
	Most  float64 `json:"most"`
	Unit  string  `json:"unit"`
}

func (l Limit) String() string {
	return fmt.Sprintf("limit %s %s %s of %s", l.Name, short(l.Value), l.Unit, short(l.Most))
}

// A Figure is one line of the outcome that nothing is aimed for: it explains others.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func (f Figure) String() string {
	return fmt.Sprintf("figure %s %s %s", f.Name, short(f.Value), f.Unit)
}

// short is a value with three digits or so.
func short(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// A Report is everything that a run of the benchmarks measured.
type Report struct {
	Time        time.Time         `json:"time"`
	Host        map[string]string `json:"host"`
	Versions    map[string]string `json:"versions,omitempty"`
	Seconds     float64           `json:"secondsPerRun"`
	SizeBytes   int64             `json:"sizeBytes"`
	RoundTrip   float64           `json:"roundTripMicroseconds,omitempty"` // measured, of the mirror's relays
	Results     []*Result         `json:"results"`
	Comparisons []Comparison      `json:"comparisons"`
	Limits      []Limit           `json:"limits,omitempty"`
	Figures     []Figure          `json:"figures,omitempty"`
}

// Print writes the table, one row for each workload, latencies where they were
// taken, then the bench lines and the targets.
func (r *Report) Print(w io.Writer) error {
	if err := r.printTable(w); err != nil {
		return err
	}
	if err := r.printLatencies(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, c := range r.Comparisons {
		fmt.Fprintln(w, c)
	}
	for _, l := range r.Limits {
		fmt.Fprintln(w, l)
	}
	for _, f := range r.Figures {
		fmt.Fprintln(w, f)
	}
	fmt.Fprintln(w)
	for _, c := range r.Comparisons {
		if c.Target == 0 {
			continue
		}
		fmt.Fprintf(w, "target %s: %.2f of %s, wanted %.2f: %s\n", c.Name, c.Ratio, c.Peer, c.Target, verdict(c.Ratio >= c.Target))
	}
	for _, l := range r.Limits {
		fmt.Fprintf(w, "target %s: %s %s, wanted at most %s: %s\n", l.Name, short(l.Value), l.Unit, short(l.Most), verdict(l.Value <= l.Most))
	}
	return nil
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

func (r *Report) printTable(w io.Writer) error {
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
		fmt.Fprintf(tw, "%s\t%.0f\t(%.0f-%.0f)\t", res.Server, res.Value(), slices.Min(v), slices.Max(v))
	}
	fmt.Fprintln(tw)
	return tw.Flush()
}

func (r *Report) printLatencies(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	headed := false
	for _, res := range r.Results {
		l, ok := res.latency()
		if !ok {
			continue
		}
		if !headed {
			fmt.Fprint(tw, "\nlatency, us\t\tp50\tp99\tp99.9\tmax\t\n")
			headed = true
		}
		fmt.Fprintf(tw, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t\n", res.Cell, res.Server, l.P50, l.P99, l.P999, l.Max)
	}
	return tw.Flush()
}

// WriteJSON writes the report to a file.
func (r *Report) WriteJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Progress replaces the line that a terminal shows meanwhile.
func Progress(line string) {
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		fmt.Fprint(os.Stderr, "\r\033[K"+line)
	}
}

// Host says what the numbers were measured on.
func Host() map[string]string {
	h := map[string]string{
		"kernel": FirstLine("uname", "-sr"),
		"cores":  fmt.Sprint(runtime.NumCPU()),
	}
	h["cpu"] = field("/proc/cpuinfo", "model name")
	h["memory"] = field("/proc/meminfo", "MemTotal")
	return h
}

// FirstLine is the first line that a command prints, for the record.
func FirstLine(args ...string) string {
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
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
