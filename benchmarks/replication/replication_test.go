package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/fio"
	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/harness"
)

func TestBound(t *testing.T) {
	for _, row := range []struct{ local, trip, peer, want float64 }{
		{100, 20, 30, 210},    // what is local takes longer
		{100, 1000, 50, 1445}, // the way there does
	} {
		if got := bound(row.local, row.trip, row.peer); got != row.want {
			t.Errorf("%+v: %v", row, got)
		}
	}
}

// Of 1000 writes, 1 to 1000 us.
func TestLatencies(t *testing.T) {
	var l latencies
	for i := range 1000 {
		l = append(l, time.Duration(1000-i)*time.Microsecond)
	}
	s, err := l.sample(2 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Latency; s.IOPS != 500 || s.MeanMicros != 500.5 || p.P50 != 501 || p.P99 != 991 || p.P999 != 1000 || p.Max != 1000 {
		t.Errorf("%+v, %+v", s, *s.Latency)
	}
	if _, err := (latencies{}).sample(time.Second); err == nil {
		t.Error("nothing was measured, and that is no error")
	}
}

// A pattern is the same again, differs from another in every block, and in one block
// of each group where only some are of another.
func TestPattern(t *testing.T) {
	const blocks, every, size = 1000, 100, blockSize * 1000
	image := func(a pattern) []byte {
		p := make([]byte, size)
		a.fill(p[:size/2], 0)
		a.fill(p[size/2:], size/2)
		return p
	}
	differ := func(a, b pattern) (n int) {
		x, y := image(a), image(b)
		for off := 0; off < size; off += blockSize {
			if !bytes.Equal(x[off:off+blockSize], y[off:off+blockSize]) {
				n++
			}
		}
		return n
	}
	a := pattern{seed: 1}
	for _, row := range []struct {
		b    pattern
		want int
	}{{pattern{seed: 1}, 0}, {pattern{seed: 2}, blocks}, {pattern{seed: 1, other: 3, every: every}, blocks / every}} {
		if got := differ(a, row.b); got != row.want {
			t.Errorf("%+v: %d blocks differ, want %d", row.b, got, row.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	const stat = "4711 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 250 13 14 20 0 7 0 100 200\n"
	if got, err := parseStat(stat); err != nil || got != 4*time.Second {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", "1 (x) S 1 2 3 4 5 6 7 8 9 10 x 250 13"} {
		if got, err := parseStat(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	now, peak, err := parseStatus("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n")
	if err != nil || now != 1<<20 || peak != 2<<20 {
		t.Errorf("%d, %d, %v", now, peak, err)
	}
	for _, bad := range []string{"", "VmRSS:\t1 kB\n", "VmRSS:\tmuch\nVmHWM:\t1 kB\n"} {
		if _, _, err := parseStatus(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// This process has used some of both, and its peak is no less than what it has.
func TestProcess(t *testing.T) {
	now, peak, err := memory(os.Getpid())
	if err != nil || now <= 0 || peak < now {
		t.Errorf("%d, %d, %v", now, peak, err)
	}
	if _, err := cpuTime(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestRoundTrip(t *testing.T) {
	const oneWay = 2 * time.Millisecond
	for _, row := range []struct {
		network, addr string
		oneWay        time.Duration
	}{{"tcp", "127.0.0.1:0", 0}, {"unix", t.TempDir() + "/s", 0}, {"tcp", "127.0.0.1:0", oneWay}} {
		got, err := roundTrip(row.network, row.addr, row.oneWay, 20)
		if err != nil {
			t.Fatal(err)
		}
		if least := 2 * float64(row.oneWay.Microseconds()); got <= least {
			t.Errorf("%+v: a round trip takes %v us", row, got)
		}
	}
}

// qemu's mirror comes up, takes writes, and has them on both sides.
func TestQemuMirrors(t *testing.T) {
	harness.NeedTools(t, "fio", "nbdkit", "qemu-storage-daemon")
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	dir, err := os.MkdirTemp("", "lockstep-") // a unix socket's path has an end at 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{options: options{dir: dir}, size: 8 << 20, report: &report.Report{Versions: map[string]string{}}}
	q, err := b.qemu(ctx, "q", time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	if err := fio.Fill(ctx, q.uri, b.size); err != nil {
		t.Fatal(err)
	}
	local, err := os.ReadFile(filepath.Join(dir, "q", "local"))
	if err != nil {
		t.Fatal(err)
	}
	far, err := os.ReadFile(filepath.Join(dir, "q", "far"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(local, far) || bytes.Equal(local, make([]byte, len(local))) {
		t.Error("the two sides differ, or nothing was written")
	}
	if used, err := cpuTime(q.pids...); err != nil || len(q.pids) != 2 {
		t.Errorf("%v, %v of %v", err, used, q.pids)
	}
}
