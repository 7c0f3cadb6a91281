package cut

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

func minInSync(flags ...string) daemon.PairOptions {
	flags = append([]string{"--min-in-sync", "2"}, flags...)
	return daemon.PairOptions{Relayed: true, CreateFlags: map[string][]string{"alpha": flags, "beta": flags}}
}

// TestMinInSync: a volume that needs both replicas acknowledges nothing while they
// are cut off from each other, says so, and goes on where it stopped; its clients
// notice a pause.
func TestMinInSync(t *testing.T) {
	p := harness.NewPair(t, harness.Options{PairOptions: minInSync()})
	m := load.NewModel(p.Size)
	c := p.Dial(p.Alpha)
	before := p.Status(p.Alpha)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := load.Run(ctx, c, m, load.Options{Seed: harness.Seed(t), Rate: 16 << 20})
		done <- err
	}()
	p.Await(p.Alpha, "the load is on its way", func(s *daemon.Status) bool { return s.Committed > before.Committed+200 })

	p.Cut()
	held := p.Await(p.Alpha, "writes are held back", func(s *daemon.Status) bool { return s.Suspended })
	if !held.Peer("beta").Member {
		t.Error("the peer was removed from the in-sync set")
	}
	if out := p.CLI(p.Alpha, "status"); !strings.Contains(out, "data: writes wait: replicas in sync: 1, min-in-sync: 2; waits for beta") {
		t.Errorf("status says\n%s", out)
	}
	got := make([]byte, 4096)
	if err := c.ReadAt(got, 0); err != nil {
		t.Errorf("a read meanwhile: %v", err)
	}
	if now := p.Status(p.Alpha); now.Committed != held.Committed {
		t.Errorf("committed up to LSN %d, and %d while one replica was there", held.Committed, now.Committed)
	}
	p.Mend()
	p.AwaitInSync()
	p.Await(p.Alpha, "writes go on", func(s *daemon.Status) bool { return !s.Suspended && s.Committed > held.Committed+100 })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the client met: %v", err)
	}
	p.Verify(p.Alpha, m)
	p.VerifyReplicas(m)
}

// TestMinInSyncIOError: with on-no-quorum io-error a client gets EIO instead, and
// what was acknowledged is there on the other node alone.
func TestMinInSyncIOError(t *testing.T) {
	p := harness.NewPair(t, harness.Options{PairOptions: minInSync("--on-no-quorum", "io-error")})
	c := p.Dial(p.Alpha)
	want := bytes.Repeat([]byte{1}, 4096)
	if err := c.WriteAt(want, 0, true); err != nil {
		t.Fatal(err)
	}
	p.Kill(p.Beta)
	p.Await(p.Alpha, "writes are refused", func(s *daemon.Status) bool { return s.Suspended })
	var errno load.Errno
	if err := c.WriteAt(bytes.Repeat([]byte{2}, 4096), 0, false); !errors.As(err, &errno) || errno != 5 {
		t.Errorf("a write is answered with %v, EIO is wanted", err)
	}
	got := make([]byte, 4096)
	if err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a read: %v, %d", err, got[0])
	}
	p.Start(p.Beta)
	p.AwaitInSync()
	p.Await(p.Alpha, "writes are taken again", func(s *daemon.Status) bool { return !s.Suspended })
	if err := c.WriteAt(want, 4096, true); err != nil {
		t.Errorf("a write with both in sync: %v", err)
	}
	p.Kill(p.Alpha)
	p.CLI(p.Beta, "promote", "data", "--force")
	d := p.Dial(p.Beta)
	for off := range int64(2) {
		if err := d.ReadAt(got, off*4096); err != nil || !bytes.Equal(got, want) {
			t.Errorf("beta reads at %d: %v, %d", off*4096, err, got[0])
		}
	}
}
