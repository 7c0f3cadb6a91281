package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A toy writes records of two sectors, one after the other, each filled with its
// number, and says how many it has made durable. early promises a record before
// its sync has returned, which is the mistake that crashes are to find.
func toy(early bool) func(rng *rand.Rand) (*Workload, error) {
	const record = 1024
	return func(rng *rand.Rand) (*Workload, error) {
		d := fakedisk.New(rng.Uint64())
		f, err := d.Create("f")
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Truncate(8*record), f.Datasync(), d.SyncDir()); err != nil {
			return nil, err
		}
		durable := 0
		return &Workload{
			Disk: d,
			Do: func() error {
				for i := range 8 {
					if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, record), int64(i)*record); err != nil {
						return err
					}
					if early && i == 5 {
						durable = i + 1
					}
					if rng.IntN(2) == 0 {
						if err := f.Datasync(); err != nil {
							return err
						}
						durable = i + 1
					}
				}
				return nil
			},
			Promised: func() uint64 { return uint64(durable) },
			Check: func(left *fakedisk.FS, killed bool) error {
				g, err := left.Open("f")
				if err != nil {
					return err
				}
				defer g.Close()
				p := make([]byte, 8*record)
				if _, err := g.ReadAt(p, 0); err != nil && err != io.EOF {
					return err
				}
				for i := range durable {
					if p[i*record] != byte(i+1) || p[(i+1)*record-1] != byte(i+1) {
						return fmt.Errorf("record %d of %d is lost", i, durable)
					}
				}
				return nil
			},
			Close: func() { f.Close() },
		}, nil
	}
}

func TestRun(t *testing.T) {
	Run(t, Options{States: 3000}, toy(false))
}

func TestRunExhaustive(t *testing.T) {
	Run(t, Options{States: 20, Exhaustive: true}, toy(false))
}

// TestFindsAMistake: without this one, a test that passes would prove nothing.
// What the failure says repeats it.
func TestFindsAMistake(t *testing.T) {
	for _, exhaustive := range []bool{false, true} {
		r := newRun(Options{States: 3000, Exhaustive: exhaustive}, 7, toy(true))
		err := r.work()
		if err == nil || !strings.Contains(err.Error(), "record ") {
			t.Fatalf("a record that is promised too early is not found: %v", err)
		}
		said := regexp.MustCompile(`LOCKSTEP_SEED=7 LOCKSTEP_CRASH=(\d+)/(\d+)/(\d+) go`).FindStringSubmatch(err.Error())
		if said == nil {
			t.Fatalf("the failure does not say how to repeat it: %v", err)
		}
		again := newRun(r.Options, 7, toy(true))
		e := &explorer{run: again, only: true}
		if _, err := fmt.Sscan(strings.Join(said[1:], " "), &e.script, &e.onlyMoment, &e.onlyWay); err != nil {
			t.Fatal(err)
		}
		if got := e.explore(); got == nil || got.Error() != err.Error() || again.checked.Load() != 1 {
			t.Errorf("repeated: %v\nand before: %v", got, err)
		}
	}
}

// TestStatesAreDistinct: a state is not counted twice.
func TestStatesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	n := 0
	begin := func(rng *rand.Rand) (*Workload, error) {
		w, err := toy(false)(rng)
		if err != nil {
			return nil, err
		}
		check := w.Check
		w.Check = func(left *fakedisk.FS, killed bool) error {
			f, err := left.Open("f")
			if err != nil {
				return err
			}
			defer f.Close()
			p := make([]byte, 8192)
			if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
				return err
			}
			if !killed { // a kill leaves what is dirty, too
				n++
				seen[fmt.Sprint(w.Promised(), p)] = true
			}
			return check(left, killed)
		}
		return w, nil
	}
	r := newRun(Options{States: 1, Exhaustive: true}, 1, begin)
	if err := r.work(); err != nil {
		t.Fatal(err)
	}
	// Syncing what a crash might have kept anyway gives a state of the same
	// bytes with less that is in doubt.
	if len(seen) < n/2 || n < 20 {
		t.Errorf("%d states were counted, %d differ", n, len(seen))
	}
}
