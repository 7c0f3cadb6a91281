package main

import (
	"context"
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
