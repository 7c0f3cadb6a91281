package badinput

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func loadFor(t *testing.T, p *harness.Pair, m *load.Model, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	c := p.Dial(p.Alpha)
	defer c.Close()
	if _, err := load.Run(ctx, c, m, load.Options{Seed: 1}); err != nil {
		t.Fatal(err)
	}
}

// memory is what the daemon holds now, in bytes.
func memory(t *testing.T, n *daemon.Node) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		t.Fatalf("%s is gone: %v\n%s", n.Name, err, n.LogTail())
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no VmRSS in %s", b)
	return 0
}
