package main

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

// fio, its report and the foreign servers are as this program expects them.
func TestFioMeasuresForeignServers(t *testing.T) {
	harness.NeedTools(t, "fio", "nbdkit", "qemu-nbd")
	const size = 16 << 20
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for _, start := range []func(context.Context, string, int64) (*server, error){startNbdkit, startQemuNBD} {
		s, err := start(ctx, t.TempDir(), size)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.close)
		if err := fill(ctx, s.uri, size); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		for _, w := range []workload{{rw: "randwrite", bs: "4k", depth: 4, fsync: true}, {rw: "randread", bs: "4k", depth: 4}} {
			got, err := fio(ctx, s.uri, size, w, 200*time.Millisecond)
			if err != nil {
				t.Fatalf("%s on %s: %v", w, s.name, err)
			}
			if got.IOPS <= 0 || got.Bytes <= 0 || got.MeanMicros <= 0 {
				t.Errorf("%s on %s: %+v", w, s.name, got)
			}
		}
	}
}

func TestReportPrintsMediansAndRatios(t *testing.T) {
	iops := func(server string, v ...float64) *result {
		r := &result{Cell: "randwrite-4k-qd1", Server: server, Unit: "IOPS"}
		for _, v := range v {
			r.Samples = append(r.Samples, sample{IOPS: v})
		}
		return r
	}
	ours, theirs := iops("lockstep", 300, 100, 200), iops("nbdkit", 400, 50)
	r := &report{Results: []*result{ours, theirs},
		Comparisons: []comparison{compare("randwrite-4k-qd1", "nbdkit", ours, theirs, 1)}}
	var got bytes.Buffer
	if err := r.print(&got); err != nil {
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
