package main

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
)

// Whoever waits is committed once, before he is told, by one call at a time.
func TestGroupCommitsEveryoneOnce(t *testing.T) {
	var at atomic.Int32
	committed := map[*item]int{}
	rounds := 0
	g := &group{commit: func(items []*item) error {
		if at.Add(1) != 1 {
			t.Error("two commits at a time")
		}
		rounds++
		for _, it := range items {
			committed[it]++
		}
		at.Add(-1)
		return nil
	}}
	const writers, each = 16, 200
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if err := g.do(&item{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(committed) != writers*each {
		t.Errorf("%d items were committed, want %d", len(committed), writers*each)
	}
	for _, n := range committed {
		if n != 1 {
			t.Fatalf("an item was committed %d times", n)
		}
	}
	t.Logf("%d items in %d rounds", len(committed), rounds)
	failed := errors.New("failed")
	g.commit = func([]*item) error { return failed }
	if err := g.do(&item{}); err != failed {
		t.Errorf("the error of a commit: %v", err)
	}
}

func TestOutcome(t *testing.T) {
	o := &outcome{block: 4096, elapsed: 2500 * time.Millisecond}
	for i := range 1000 {
		o.latencies = append(o.latencies, time.Duration(i+1)*time.Microsecond)
	}
	o.ops, o.seconds = 1000, []int64{400, 350}
	s := o.sample(o.elapsed)
	if s.IOPS != 400 || s.Bytes != 400*4096 || s.MeanMicros != 500.5 {
		t.Errorf("%+v", s)
	}
	if want := (report.Latency{P50: 501, P99: 991, P999: 1000, Max: 1000}); *s.Latency != want {
		t.Errorf("%+v, want %+v", *s.Latency, want)
	}
	if o.slowest() != 350 {
		t.Errorf("the slowest second has %.0f", o.slowest())
	}
}

// The cells run, on files too small to measure anything.
func TestCells(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 2 GB")
	}
	b := &bench{
		options: options{dir: t.TempDir(), memory: t.TempDir(), secs: 0.05, runs: 1, only: regexp.MustCompile("")},
		ctx:     t.Context(), size: 64 << 20, report: &report.Report{},
	}
	for _, cells := range []func() error{b.synced, b.sustained, b.large, b.reads} {
		if err := cells(); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, r := range b.report.Results {
		if r.Value() <= 0 {
			t.Errorf("%s on %s measured nothing", r.Cell, r.Server)
		}
		if !slices.Contains(names, r.Cell) {
			names = append(names, r.Cell)
		}
	}
	if len(names) != 12 || len(b.report.Comparisons) != 18 {
		t.Errorf("%d cells, %d comparisons: %v", len(names), len(b.report.Comparisons), names)
	}
	var out bytes.Buffer
	if err := b.report.Print(&out); err != nil {
		t.Error(err)
	}
	t.Log(&out)
}
