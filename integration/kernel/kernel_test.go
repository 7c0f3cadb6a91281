package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

// The lab itself and its check, against a server that is not ours: what fails
// here is no fault of Lockstep's.
func TestLabAgainstNbdkit(t *testing.T) {
	l := newLab(t)
	harness.NeedTools(t, "nbdkit")
	server := l.command("nbdkit", "-f", "-i", hostAddress, "-p", "10809", "memory", "256M")
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	l.boot(t.TempDir(), "/lab/nbd-check", hostAddress).wait()
}

func TestKernelClient(t *testing.T) {
	l := newLab(t)
	p := l.pair()
	l.boot(t.TempDir(), "/lab/nbd-check", hostAddress, harness.Volume).wait()
	p.AwaitInSync()
}

// An ext4 on the volume is filled with files, each synced; in the middle of it
// the Primary gets SIGKILL, the other node is promoted, and the kernel attaches
// to that: fsck is clean and every synced file is there with every byte.
func TestExt4SurvivesThePrimarysDeath(t *testing.T) {
	l := newLab(t)
	p := l.pair()
	mail := t.TempDir() // the guest and this test tell each other by files in it
	script, err := os.ReadFile("testdata/failover")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mail, "failover"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	g := l.boot(mail, filepath.Join(mail, "failover"), mail, harness.Volume)

	const enough = 20
	await(t, g, "the guest has synced some files", func() bool {
		b, _ := os.ReadFile(filepath.Join(mail, "synced")) // it is not there at first
		return strings.Count(string(b), "\n") >= enough
	})
	p.Kill(p.Alpha)
	p.CLI(p.Beta, "promote", harness.Volume, "--force")
	if err := os.WriteFile(filepath.Join(mail, "promoted"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	g.wait()
	p.Start(p.Alpha)
	p.AwaitInSync()
}

func await(t *testing.T, g *guest, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(harness.Patience)
	for !cond() {
		select {
		case <-g.done:
			t.Fatalf("the guest ended (%v) before %s:\n%s", g.err, what, &g.out)
		case <-late:
			g.end()
			t.Fatalf("waited in vain until %s; the guest says:\n%s", what, &g.out)
		case <-tick.C:
		}
	}
}
