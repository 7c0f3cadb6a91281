package load_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

// serve runs a foreign NBD server until the test ends or stop is called.
func serve(t *testing.T, program string, args ...string) (addr string, stop func()) {
	harness.NeedTools(t, program)
	socket := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(program, append([]string{"-f", "-U", socket}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(stop)
	return "unix:" + socket, stop
}

func dial(t *testing.T, addr string) *load.Client {
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for {
		c, err := load.Dial(ctx, addr, "")
		if err == nil {
			t.Cleanup(c.Close)
			return c
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // the server has no other way to say that it is ready
	}
}

// The client and the model against a server that is not ours.
func TestLoadAgainstNbdkit(t *testing.T) {
	addr, stop := serve(t, "nbdkit", "memory", "32M")
	c := dial(t, addr)
	m := load.NewModel(c.Size)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	stats, err := load.Run(ctx, c, m, load.Options{Seed: harness.Seed(t)})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Writes == 0 || stats.Reads == 0 || stats.Flushes == 0 {
		t.Errorf("the load left something out: %v", stats)
	}
	if err := m.Verify(c.ReadAt); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := load.Run(t.Context(), c, m, load.Options{}); !errors.Is(err, load.ErrLost) {
		t.Errorf("a load on a dead server ended with %v, want %v", err, load.ErrLost)
	}
}
