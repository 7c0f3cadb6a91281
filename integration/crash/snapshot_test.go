package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

// TestSnapshotKilled: the Primary of a pair that is written to gets SIGKILL at a
// random moment of a `snapshot create`, and then of a `snapshot rollback`. A snapshot
// is whole or is not there; a rollback has brought the volume back, or has not begun,
// or nobody is served, on neither node, until it is finished or taken back.
func TestSnapshotKilled(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	rounds := harness.Rounds(t, 2)
	small := []string{"--journal-size", "64MiB"}
	p := harness.NewPair(t, harness.Options{Size: size,
		PairOptions: daemon.PairOptions{CreateFlags: map[string][]string{"alpha": small, "beta": small}}})
	s := &snapshots{round: &round{t: t, p: p, rng: rand.New(rand.NewPCG(harness.Seed(t), 5)), primary: p.Alpha}, image: make([]byte, size)}
	for i := range rounds {
		began := time.Now()
		s.write()
		name := fmt.Sprintf("s%d", i)
		created := s.create(name)
		then := bytes.Clone(s.image)
		s.write()
		s.rollback(name, then)
		if got := p.EqualReplicas(); !bytes.Equal(got, s.image) {
			t.Fatalf("round %d: the replicas hold something else than was read, from byte %d on", i, different(got, s.image))
		}
		p.CLI(s.primary, "snapshot", "delete", harness.Volume, name, "--yes")
		t.Logf("round %2d, %.1f s: %s; %s", i, time.Since(began).Seconds(), created, s.ended)
	}
}

// snapshots is a pair of which it is known, byte for byte, what it holds.
type snapshots struct {
	*round
	image []byte
	ended string // how the last rollback did, for people
}

// write writes all over the volume, with four clients, each in its own part.
func (s *snapshots) write() {
	s.t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, 4)
	part := len(s.image) / len(errs)
	for i := range errs {
		c, rng := s.p.Dial(s.primary), rand.New(rand.NewPCG(s.rng.Uint64(), uint64(i)))
		wg.Go(func() {
			defer c.Close()
			for range 60 {
				n := 512 * (1 + rng.IntN(256))
				off := i*part + 512*rng.IntN((part-n)/512)
				for k := range n {
					s.image[off+k] = byte(rng.Uint32())
				}
				if err := c.WriteAt(s.image[off:off+n], int64(off), rng.IntN(8) == 0); err != nil {
					errs[i] = err
					return
				}
			}
			errs[i] = c.Flush()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
}

// killIn runs a command, kills the Primary at some moment of it, and has a Primary
// again; it reports whether the command had succeeded.
func (s *snapshots) killIn(args ...string) bool {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), harness.Patience)
	defer cancel()
	done := make(chan error, 1)
	dead := s.primary
	go func() {
		_, err := dead.CLI(ctx, args...)
		done <- err
	}()
	s.pause(250 * time.Millisecond)
	s.p.Kill(dead)
	ok := <-done == nil
	if s.rng.IntN(2) == 0 {
		s.primary = s.p.Other(dead)
		s.p.CLI(s.primary, "promote", harness.Volume, "--force")
		s.start(dead)
	} else {
		s.start(dead)
		s.promoteLongest()
	}
	s.p.AwaitInSync()
	return ok
}

// create creates a snapshot of the Primary, which is killed; if nothing came of it
// once more, of whoever is Primary then. What there is has to be the volume.
func (s *snapshots) create(name string) string {
	s.t.Helper()
	on := s.primary
	ok := s.killIn("snapshot", "create", harness.Volume, name)
	how := "a snapshot was created"
	switch has := s.has(on, name); {
	case ok && !has:
		s.t.Fatalf("snapshot %s was created, and is not there", name)
	case has:
		s.mustBeWhole(on, name)
	default:
		how = "a snapshot was not created"
	}
	if on != s.primary || !s.has(on, name) {
		if s.has(on, name) {
			s.p.CLI(on, "snapshot", "delete", harness.Volume, name, "--yes")
		}
		s.p.CLI(s.primary, "snapshot", "create", harness.Volume, name)
	}
	if got := s.read(harness.Volume, s.primary); !bytes.Equal(got, s.image) {
		s.t.Fatalf("the volume is not what was written, from byte %d on", different(got, s.image))
	}
	return how
}

func (s *snapshots) has(n *daemon.Node, name string) bool {
	s.t.Helper()
	var list []struct{ Name, Lost string }
	if err := json.Unmarshal([]byte(s.p.CLI(n, "snapshot", "list", harness.Volume, "--json")), &list); err != nil {
		s.t.Fatal(err)
	}
	for _, x := range list {
		if x.Lost != "" {
			s.t.Errorf("snapshot %s of %s is lost: %s", x.Name, n.Name, x.Lost)
		}
		if x.Name == name {
			return true
		}
	}
	return false
}

func (s *snapshots) mustBeWhole(n *daemon.Node, name string) {
	s.t.Helper()
	s.p.CLI(n, "snapshot", "export", harness.Volume, name, "--read-only")
	if got := s.read(fmt.Sprintf("%s@%s@%s", harness.Volume, n.Name, name), n); !bytes.Equal(got, s.image) {
		s.t.Fatalf("snapshot %s is not what the volume was, from byte %d on", name, different(got, s.image))
	}
	s.p.CLI(n, "snapshot", "unexport", harness.Volume, name)
}

// rollback rolls back to a snapshot of the Primary, which is killed, and looks what
// the volume is then.
func (s *snapshots) rollback(name string, then []byte) {
	s.t.Helper()
	on := s.primary
	through := s.killIn("snapshot", "rollback", harness.Volume, name, "--yes")
	s.ended = "a rollback had not begun"
	if half := s.p.Status(s.primary).Unfinished; half != "" {
		if through {
			s.t.Fatalf("the rollback was through: %s", half)
		}
		for _, n := range s.p.Nodes() {
			if c, err := load.Dial(s.t.Context(), "unix:"+n.NBDSocket(), harness.Volume); err == nil {
				c.Close()
				s.t.Fatalf("%s lets a client in, and says: %s", n.Name, half)
			}
		}
		s.ended = "a rollback was finished"
		to := name
		if on != s.primary || s.rng.IntN(2) == 0 {
			s.ended, to = "a rollback was taken back", "before-rollback"
		}
		s.p.CLI(s.primary, "snapshot", "rollback", harness.Volume, to, "--yes")
		through = to == name
	}
	got := s.read(harness.Volume, s.primary)
	switch {
	case bytes.Equal(got, then):
		if s.ended == "a rollback had not begun" {
			s.ended = "a rollback was through"
		}
	case !bytes.Equal(got, s.image):
		s.t.Fatalf("the volume is neither what it was (from byte %d on) nor the snapshot (from byte %d on)", different(got, s.image), different(got, then))
	case through:
		s.t.Fatal("the rollback was through, and is undone")
	}
	s.image = got
	if on != s.primary { // the one that has the snapshot leads again
		s.p.EqualReplicas()
		s.p.CLI(s.primary, "demote", harness.Volume)
		s.primary = on
		s.p.CLI(on, "promote", harness.Volume)
		s.p.AwaitInSync()
	}
}

// read reads all of an export of a node.
func (s *snapshots) read(export string, n *daemon.Node) []byte {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), harness.Patience)
	defer cancel()
	c, err := load.DialServing(ctx, "unix:"+n.NBDSocket(), export)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	all := make([]byte, len(s.image))
	for off := 0; off < len(all); off += 1 << 20 {
		if err := c.ReadAt(all[off:off+1<<20], int64(off)); err != nil {
			s.t.Fatal(err)
		}
	}
	return all
}

func different(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
