package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
)

// TestRollback is P3 with real daemons: beta was away for longer than alpha's journal
// reaches back, alpha is killed in the middle of the resync, under writes, and never
// comes back. Beta is rolled back, promoted by force, and its clients read the image
// that it had before, bit for bit.
func TestRollback(t *testing.T) {
	const size, mib = 128 << 20, 1 << 20
	rng := rand.New(rand.NewPCG(harness.Seed(t), 4))
	small := []string{"--journal-size", "64MiB"}
	p := harness.NewPair(t, harness.Options{Size: size,
		PairOptions: daemon.PairOptions{CreateFlags: map[string][]string{"alpha": small, "beta": small}},
		Prepare: func(p *daemon.Pair) {
			for _, n := range p.Nodes() {
				appendConfig(t, n, fmt.Sprintf("volumes: {%s: {resync-rate: 8MiB}}\n", harness.Volume))
			}
		}})
	image := make([]byte, size)
	for i := range 100 * mib { // and what is behind stays zeroes
		image[i] = byte(rng.Uint32())
	}
	c := p.Dial(p.Alpha)
	write := func(b []byte, off int) error { return c.WriteAt(b, int64(off), false) }
	for off := 0; off < 100*mib; off += mib {
		if err := write(image[off:off+mib], off); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	base := p.Await(p.Beta, "beta has applied it", (*daemon.Status).Settled).End
	p.Kill(p.Beta)

	other := make([]byte, mib)
	overwrite := func(off int) error {
		for i := range other {
			other[i] = byte(rng.Uint32())
		}
		return write(other, off)
	}
	for off := 0; off < 80*mib; off += mib { // more than alpha's journal keeps
		if err := overwrite(off); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	p.Start(p.Beta)
	s := p.Await(p.Beta, "some of the resync is done", func(s *daemon.Status) bool { return s.Undo != nil && s.Undo.Preserved > 8*mib })
	for off := 90 * mib; off < 120*mib; off += 3 * mib { // live
		if err := overwrite(off); err != nil {
			t.Fatal(err)
		}
	}
	p.Kill(p.Alpha)
	if s.Disk != "Inconsistent" || s.Undo.Base.LSN > base || s.Undo.Began.IsZero() {
		t.Fatalf("in the middle of the resync beta is %s, with undo %+v; it ended at LSN %d", s.Disk, s.Undo, base)
	}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if out, err := p.Beta.CLI(ctx, "promote", harness.Volume, "--force"); err == nil || !strings.Contains(err.Error()+out, "lockstep rollback") {
		t.Fatalf("in the middle of a resync: %v\n%s", err, out)
	}
	if out := p.CLI(p.Beta, "status"); !strings.Contains(out, "can be rolled back to LSN") {
		t.Errorf("status does not name the way back:\n%s", out)
	}
	var plan struct{ Restores int64 }
	if err := json.Unmarshal([]byte(p.CLI(p.Beta, "rollback", harness.Volume, "--dry-run", "--json")), &plan); err != nil || plan.Restores < 8*mib {
		t.Errorf("the plan: %+v, %v", plan, err)
	}
	p.Kill(p.Beta) // it survives that as well
	p.Start(p.Beta)
	p.CLI(p.Beta, "rollback", harness.Volume, "--yes")
	if s := p.Status(p.Beta); s.Disk != "Outdated" || s.Undo != nil {
		t.Errorf("rolled back, it is %s, with undo %+v", s.Disk, s.Undo)
	}
	p.CLI(p.Beta, "promote", harness.Volume, "--force")
	d := p.Dial(p.Beta)
	got := make([]byte, mib)
	for off := 0; off < size; off += mib {
		if err := d.ReadAt(got, int64(off)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, image[off:off+mib]) {
			t.Fatalf("the MiB at %d is not as it was before the resync", off)
		}
	}
	if err := d.WriteAt(got, 0, true); err != nil {
		t.Fatal(err)
	}
}

func appendConfig(t *testing.T, n *daemon.Node, text string) {
	t.Helper()
	f, err := os.OpenFile(n.ConfigFile(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
