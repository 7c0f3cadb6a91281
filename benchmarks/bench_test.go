package main

import (
	"context"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/fio"
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
		if err := fio.Fill(ctx, s.uri, size); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		for _, w := range []fio.Workload{{RW: "randwrite", BS: "4k", Depth: 4, Fsync: true}, {RW: "randread", BS: "4k", Depth: 4}} {
			got, err := fio.Run(ctx, s.uri, size, w, 200*time.Millisecond)
			if err != nil {
				t.Fatalf("%s on %s: %v", w, s.name, err)
			}
			if got.IOPS <= 0 || got.Bytes <= 0 || got.MeanMicros <= 0 || got.Latency == nil || got.Latency.P99 <= 0 {
				t.Errorf("%s on %s: %+v", w, s.name, got)
			}
		}
	}
}
