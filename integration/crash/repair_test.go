package crash

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
)

// TestLostJournal: a node of a volume of 1 GiB is killed and its journal removed,
// or damaged. It does not open the volume, says why and what to do, and after a
// repair gets what was in doubt and what was written meanwhile, not the volume.
func TestLostJournal(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		lose func(t *testing.T, dir string)
	}{
		{"removed", func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}},
		{"damaged", func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "0001.seg"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, 8192), 0); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) { lostJournal(t, row.lose) })
	}
}

func lostJournal(t *testing.T, lose func(*testing.T, string)) {
	const size, mib = 1 << 30, 1 << 20
	rng := rand.New(rand.NewPCG(harness.Seed(t), 3))
	p := harness.NewPair(t, harness.Options{Size: size, PairOptions: daemon.PairOptions{Relayed: true}})
	c := p.Dial(p.Alpha)
	write := func(off int64, n int) {
		t.Helper()
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		for at := 0; at < n; at += mib {
			if err := c.WriteAt(b[at:at+mib], off+int64(at), false); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(5) { // 20 MiB in five regions
		write(i*200*mib, 4*mib)
	}
	p.Kill(p.Beta)
	lose(t, filepath.Join(p.Beta.DataDir(), "volumes", harness.Volume, "journal"))
	p.Start(p.Beta)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	out := p.CLI(p.Beta, "status")
	if !strings.Contains(out, "lockstep repair "+harness.Volume) || !strings.Contains(out, "not open") {
		t.Fatalf("status does not say what to do:\n%s", out)
	}
	if out, err := p.Beta.CLI(ctx, "promote", harness.Volume, "--force"); err == nil {
		t.Fatalf("a replica without its journal was promoted: %s", out)
	}
	write(900*mib, mib) // alone
	var plan struct {
		InDoubt int64
		Sources []string
	}
	if err := json.Unmarshal([]byte(p.CLI(p.Beta, "repair", harness.Volume, "--dry-run", "--json")), &plan); err != nil {
		t.Fatal(err)
	}
	if plan.InDoubt == 0 || plan.InDoubt > 6*16*mib || len(plan.Sources) != 1 {
		t.Errorf("the plan: %+v", plan)
	}
	passed := p.Passed()
	p.CLI(p.Beta, "repair", harness.Volume, "--yes")
	p.AwaitInSync()
	passed = p.Passed() - passed
	t.Logf("%d MiB in doubt of %d; %.1f MiB crossed", plan.InDoubt/mib, size/mib, float64(passed)/mib)
	if passed > 24*mib {
		t.Errorf("%d bytes crossed, where 21 MiB were written", passed)
	}
	for _, n := range p.Nodes() {
		p.Await(n, "all of the journal is in the store", (*daemon.Status).Settled)
	}
	equalFiles(t, p.Alpha.Replica(harness.Volume), p.Beta.Replica(harness.Volume))
	if s := p.Status(p.Alpha).Peer("beta"); s.Resyncs != 1 {
		t.Errorf("%d resyncs", s.Resyncs)
	}
}

// equalFiles compares two files, byte for byte.
func equalFiles(t *testing.T, a, b string) {
	t.Helper()
	var f [2]*os.File
	var buf [2][]byte
	for i, path := range []string{a, b} {
		var err error
		if f[i], err = os.Open(path); err != nil {
			t.Fatal(err)
		}
		defer f[i].Close()
		buf[i] = make([]byte, 1<<20)
	}
	for off := int64(0); ; off += 1 << 20 {
		n, errA := io.ReadFull(f[0], buf[0])
		m, errB := io.ReadFull(f[1], buf[1])
		if n != m || string(buf[0][:n]) != string(buf[1][:m]) {
			t.Fatalf("%s and %s differ in the 1 MiB at %d", a, b, off)
		}
		if errA != nil || errB != nil {
			return
		}
	}
}
