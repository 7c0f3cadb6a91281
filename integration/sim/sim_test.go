package main

import (
	"bytes"
	"context"
	"sync"
	"testing"
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
		if len(one.trace) < 1000 {
			t.Errorf("seed %d: nothing happened: %q, %s", seed, one.trace, one.failed)
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
