package main

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// theMachine is built once for all tests.
var theMachine = sync.OnceValues(func() (*machine, error) { return newMachine(context.Background(), "") })

func machineOf(t *testing.T) *machine {
	t.Helper()
	m, err := theMachine()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Two runs of a seed are the same: all that was said, and by its digest every operation
// of a disk and every byte on the network, each at its nanosecond.
func TestSameSeedSameRun(t *testing.T) {
	m := machineOf(t)
	traces := map[string]bool{}
	for seed := range uint64(3) {
		one, two := m.run(t.Context(), seed), m.run(t.Context(), seed)
		if !bytes.Equal(one.trace, two.trace) {
			t.Errorf("seed %d: the traces differ", seed)
		}
		if !bytes.Contains(one.trace, []byte("=digest")) {
			t.Errorf("seed %d: the run did not come to its end: %s", seed, one.failed)
		}
		traces[string(one.trace)] = true
	}
	if len(traces) != 3 {
		t.Errorf("%d different runs of 3 seeds", len(traces))
	}
}

// A checker that sees everything right sees nothing.
func TestCanary(t *testing.T) {
	m := machineOf(t)
	if r := m.run(t.Context(), 1, "-canary"); r.failed == "" {
		t.Error("a read that returned what nobody wrote was taken for right")
	}
}

func seedOf(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano()) >> 8
	if v := os.Getenv("LOCKSTEP_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("LOCKSTEP_SEED=%q: %v", v, err)
		}
	}
	return seed
}

// A fixed set of runs, which every change is held against, and some that nobody made yet.
func TestRuns(t *testing.T) {
	m := machineOf(t)
	for _, c := range []*campaign{
		{machine: m, first: 1, runs: 10},
		{machine: m, first: seedOf(t), runs: 10},
	} {
		c.run(t.Context())
		t.Log(c.summary())
		for i := range c.failures {
			r := &c.failures[i]
			t.Errorf("seed %d: %s\nrepeat it: %s", r.seed, r.failed, repeats(r, nil))
		}
	}
}
