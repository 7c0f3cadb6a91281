package crashtest

import (
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A Workload is one run of something that writes to a disk.
type Workload struct {
	Disk *fakedisk.FS
	// Do works on the disk, in one goroutine, and is called once.
	Do func() error
	// Promised changes whenever what a crash must leave does. It is called
	// between two operations of the disk, as Check is.
	Promised func() uint64
	// Check says what is wrong with what a crash at this moment left. A kill
	// loses nothing that was written, and makes nothing durable.
	Check func(left *fakedisk.FS, killed bool) error
	// Meanwhile, if not nil, is what others do while an operation of the disk is
	// under way: it is called before each one that changes it, once what a crash
	// leaves was looked at. It does not use the disk.
	Meanwhile func()
	// Close, if not nil, ends what Do left open.
	Close func()
}

// Options of Run.
type Options struct {
	// States is how many crash states are to be checked, at least.
	States int
	// Exhaustive checks, at every moment of one workload, every combination of
	// what is unsynced. It is an error if one moment has more than MostWays.
	Exhaustive bool
}

const (
	// Ways is how many states are taken of one moment.
	Ways = 24
	// MostWays is the limit of that in exhaustive mode.
	MostWays = 1 << 16
)

// Share is how many states a test is to check that does a part of all.
func Share(t testing.TB, part float64) int {
	t.Helper()
	all := allStates
	if s := os.Getenv("LOCKSTEP_CRASH_STATES"); s != "" {
		var err error
		if all, err = strconv.Atoi(s); err != nil || all < 1 {
			t.Fatalf("LOCKSTEP_CRASH_STATES=%s is no number of states", s)
		}
	}
	return int(float64(all)*part) + 1
}

// Run checks crash states of the workloads that begin makes, one after the
// other. All that is random in a workload comes from rng. Workloads run in
// several goroutines at once and share nothing.
func Run(t *testing.T, o Options, begin func(rng *rand.Rand) (*Workload, error)) {
	t.Helper()
	r := newRun(o, seedOf(t), begin)
	r.name = t.Name()
	if at := os.Getenv("LOCKSTEP_CRASH"); at != "" {
		r.only(t, at)
		return
	}
	done := make(chan error, runtime.GOMAXPROCS(0))
	for range cap(done) {
		go func() { done <- r.work() }()
	}
	var errs []error
	for range cap(done) {
		errs = append(errs, <-done)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Logf("crash states checked: %d, at %d moments of %d workloads", r.checked.Load(), r.moments.Load(), r.scripts.Load())
	if n := r.checked.Load(); n < int64(o.States) {
		t.Errorf("only %d crash states were checked, %d were asked for", n, o.States)
	}
}

// A run is one call of Run.
type run struct {
	Options
	name  string
	seed  uint64
	begin func(rng *rand.Rand) (*Workload, error)

	// Of so many moments one is looked at, so that few states still are of all
	// parts of a workload.
	stride int64

	scripts, moments, checked atomic.Int64
	failed                    atomic.Bool
}

func newRun(o Options, seed uint64, begin func(rng *rand.Rand) (*Workload, error)) *run {
	r := &run{Options: o, seed: seed, begin: begin, stride: 1}
	if !o.Exhaustive {
		r.stride = max(1, min(25, 20000/int64(o.States)))
	}
	return r
}

// work runs workloads until enough was checked.
func (r *run) work() error {
	for !r.failed.Load() && r.checked.Load() < int64(r.States) {
		script := r.scripts.Add(1) - 1
		if r.Exhaustive && script > 0 {
			r.scripts.Add(-1)
			return nil
		}
		e := &explorer{run: r, script: script}
		if err := e.explore(); err != nil {
			r.failed.Store(true)
			return err
		}
	}
	return nil
}

// only checks the state that at names.
func (r *run) only(t *testing.T, at string) {
	t.Helper()
	var n []int64
	for _, s := range strings.Split(at, "/") {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			n = append(n, i)
		}
	}
	if len(n) != 3 {
		t.Fatalf("LOCKSTEP_CRASH=%s names no state: script/moment/way is wanted", at)
	}
	e := &explorer{run: r, script: n[0], only: true, onlyMoment: n[1], onlyWay: n[2]}
	if err := e.explore(); err != nil {
		t.Fatal(err)
	}
	if r.checked.Load() != 1 {
		t.Fatalf("LOCKSTEP_CRASH=%s: there is no such state", at)
	}
	t.Logf("crash state %s checked", at)
}

func seedOf(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64N(1 << 32)
	if s := os.Getenv("LOCKSTEP_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("LOCKSTEP_SEED=%s is no seed: %v", s, err)
		}
	}
	t.Logf("LOCKSTEP_SEED=%d", seed)
	return seed
}
