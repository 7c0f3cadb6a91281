package report

import (
	"bytes"
	"os"
	"testing"
)

func TestReportPrintsMediansAndRatios(t *testing.T) {
	iops := func(server string, v ...float64) *Result {
		r := &Result{Cell: "randwrite-4k-qd1", Server: server, Unit: IOPS}
		for _, v := range v {
			r.Samples = append(r.Samples, Sample{IOPS: v, Latency: &Latency{P50: v, P99: 2 * v, P999: 3 * v, Max: 4 * v}})
		}
		return r
	}
	ours, theirs := iops("lockstep", 300, 100, 200), iops("nbdkit", 400, 50)
	r := &Report{Results: []*Result{ours, theirs},
		Comparisons: []Comparison{Compare("randwrite-4k-qd1", "nbdkit", ours, theirs, 1)},
		Limits:      []Limit{{"restart", 40, 50, "ms"}},
		Figures:     []Figure{{"round-trip", 41.23, "us"}}}
	var got bytes.Buffer
	if err := r.Print(&got); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/report.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", &got, want)
	}
}
