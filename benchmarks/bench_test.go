package main

import (
	"context"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/fio"
	"github.com/lockstep-storage/lockstep/benchmarks/peer"
	"github.com/lockstep-storage/lockstep/integration/harness"
)

// fio, its report and the foreign servers are as this program expects them.
func TestFioMeasuresForeignServers(t *testing.T) {
	harness.NeedTools(t, "fio", "nbdkit", "qemu-nbd")
	const size = 16 << 20
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for _, start := range []func(context.Context, string, int64) (*peer.Server, error){startNbdkit, startQemuNBD} {
		s, err := start(ctx, t.TempDir(), size)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		if err := fio.Fill(ctx, s.URI, size); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		for _, w := range []fio.Workload{{RW: "randwrite", BS: "4k", Depth: 4, Fsync: true}, {RW: "randread", BS: "4k", Depth: 4}} {
			got, err := fio.Run(ctx, s.URI, size, w, 200*time.Millisecond)
			if err != nil {
				t.Fatalf("%s on %s: %v", w, s.Name, err)
			}
			if got.IOPS <= 0 || got.Bytes <= 0 || got.MeanMicros <= 0 || got.Latency == nil || got.Latency.P99 <= 0 {
				t.Errorf("%s on %s: %+v", w, s.Name, got)
			}
		}
	}
}
