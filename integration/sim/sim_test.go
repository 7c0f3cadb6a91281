package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
)

// theMachine is built once for all tests.
var theMachine = sync.OnceValues(func() (*machine, error) { return newMachine(context.Background()) })

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

// A checker that sees everything right sees nothing. For that alone the run may fail.
func TestCanary(t *testing.T) {
	m := machineOf(t)
	if r := m.run(t.Context(), 1, "-canary"); !strings.Contains(r.failed, "nobody wrote that") {
		t.Errorf("a read that returned what nobody wrote was taken for right: %q", r.failed)
	}
}

// A fixed set of runs, which every change is held against.
func TestRuns(t *testing.T) {
	c := &campaign{machine: machineOf(t), first: 1, runs: 10}
	c.run(t.Context())
	t.Log(c.summary())
	if c.done != c.runs || c.total["requests acknowledged"] == 0 || c.total["reads judged"] == 0 {
		t.Errorf("of %d runs %d were made, and %v was seen", c.runs, c.done, c.total)
	}
	for i := range c.failures {
		r := &c.failures[i]
		t.Errorf("seed %d: %s\nrepeat it: %s", r.seed, r.failed, repeats(r, nil))
	}
}
