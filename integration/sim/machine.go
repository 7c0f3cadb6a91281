package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing/fstest"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// A machine runs the guest: a WebAssembly program, which has one thread and gets its
// chance and its time from here. What it does follows from its arguments alone.
type machine struct {
	runtime wazero.Runtime
	guest   wazero.CompiledModule
}

const guestPackage = "github.com/lockstep-storage/lockstep/integration/sim/guest"

// buildGuest compiles the guest into a directory.
func buildGuest(dir string) (string, error) {
	to := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, guestPackage)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the guest: %w\n%s", err, out)
	}
	return to, nil
}

// newMachine builds the guest, and translates it once for all runs.
func newMachine(ctx context.Context) (*machine, error) {
	dir, err := os.MkdirTemp("", "lockstep-sim")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, err := buildGuest(dir)
	if err != nil {
		return nil, err
	}
	code, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &machine{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(false))}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
		return nil, err
	}
	if m.guest, err = m.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, 2), code); err != nil {
		return nil, fmt.Errorf("translate the guest: %w", err)
	}
	return m, nil
}

func (m *machine) close() { _ = m.runtime.Close(context.Background()) }

// A run is what one run of the guest came to.
type run struct {
	seed    uint64
	trace   []byte
	virtual time.Duration
	faults  int // that its plan has
	covered map[string]int
	// failed says why the run is no good, in words; "" if it is.
	failed string
}

// errStuck: the guest asks for the time again and again, and does not go to sleep.
var errStuck = errors.New("the guest runs for ever")

// tick is how far each look at the clock moves it: nothing takes no time.
const tick = 200 * time.Nanosecond

// limits of a run.
const (
	maxVirtual = 30 * time.Minute
	maxLooks   = 200_000_000 // at the clock
)

// clock is a guest's: it stands still while the guest works, but for a tick at each
// look, and jumps to where the guest sleeps to.
type clock struct {
	now   int64 // ns
	looks int
}

const epoch = 1_700_000_000 * int64(time.Second)

func (c *clock) look() int64 {
	c.now += int64(tick)
	c.looks++
	if c.looks > maxLooks || c.now > int64(maxVirtual) {
		panic(errStuck)
	}
	return c.now
}

// run runs the guest with arguments.
func (m *machine) run(ctx context.Context, seed uint64, args ...string) run {
	var out, complaint bytes.Buffer
	c := &clock{}
	chance := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32), byte(seed >> 40), byte(seed >> 48), byte(seed >> 56)})
	config := wazero.NewModuleConfig().WithName("").
		WithArgs(append([]string{"guest", "-seed", strconv.FormatUint(seed, 10)}, args...)...).
		WithStdout(&out).WithStderr(&complaint).
		WithRandSource(chance).
		WithNanotime(c.look, sys.ClockResolution(1)).
		WithWalltime(func() (int64, int32) {
			t := epoch + c.look()
			return t / int64(time.Second), int32(t % int64(time.Second))
		}, sys.ClockResolution(1)).
		WithNanosleep(func(ns int64) { c.now += max(ns, 0) }).
		WithOsyield(func() { c.now += int64(tick) }).
		WithFS(fstest.MapFS{"proc/sys/kernel/random/boot_id": {Data: []byte("simulated\n")}})
	ctx = experimental.WithMemoryAllocator(ctx, memories{})
	module, err := m.runtime.InstantiateModule(ctx, m.guest, config)
	if module != nil {
		_ = module.Close(ctx)
	}
	r := run{seed: seed, trace: out.Bytes(), covered: map[string]int{}}
	r.read()
	var exit *sys.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 1 && r.failed != "":
	case err != nil:
		r.failed += fmt.Sprintf("the guest broke off: %v\n%s", err, shortened(complaint.String()))
	}
	if r.virtual == 0 {
		r.virtual = time.Duration(c.now)
	}
	return r
}

// timed is how a line of the trace begins.
var timed = regexp.MustCompile(`^ *[0-9]+\.[0-9]{6} `)

// read takes out of the trace what it says in its last lines, and the violations.
func (r *run) read() {
	violation := false // is being read: the lines that follow belong to it
	for line := range strings.Lines(string(r.trace)) {
		line = strings.TrimSuffix(line, "\n")
		key, rest, _ := strings.Cut(line, " ")
		first := key != "" || timed.MatchString(line)
		if !first && violation {
			r.failed += line + "\n"
		}
		if first {
			violation = strings.Contains(line, "VIOLATION: ")
		}
		switch {
		case strings.Contains(line, "VIOLATION: "):
			_, what, _ := strings.Cut(line, "VIOLATION: ")
			r.failed += what + "\n"
		case key == "=cover":
			n, what, _ := strings.Cut(rest, " ")
			r.covered[what], _ = strconv.Atoi(n)
		case key == "=faults":
			r.faults, _ = strconv.Atoi(rest)
		case key == "=virtual":
			ns, _ := strconv.ParseInt(rest, 10, 64)
			r.virtual = time.Duration(ns)
		}
	}
}

func shortened(s string) string {
	const most = 12000
	if len(s) > most {
		return s[:most] + "\n…"
	}
	return s
}
