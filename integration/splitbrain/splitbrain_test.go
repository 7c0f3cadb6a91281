package splitbrain

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// report is `lockstep split show --json`, as a program that knows nothing of
// Lockstep's packages reads it.
type report struct {
	Peer   string
	Ours   side
	Theirs side
	Both   []extent
}

type side struct {
	Node     string
	Writes   int
	Bytes    int64
	Accuracy string
	Ranges   []extent
}

type extent struct{ Offset, Length int64 }

func show(t *testing.T, p *harness.Pair, n *daemon.Node) report {
	t.Helper()
	var list []report
	out := p.CLI(n, "split", "show", harness.Volume, "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	return list[0]
}

// A snapshot is one of `lockstep snapshot list --json`.
type snapshot struct{ Name, Peer, Lost string }

func snapshots(t *testing.T, p *harness.Pair, n *daemon.Node) (list []snapshot) {
	t.Helper()
	out := p.CLI(n, "snapshot", "list", harness.Volume, "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return list
}

// A write is one block that a test writes.
func write(t *testing.T, c *load.Client, block int64, value byte) {
	t.Helper()
	if err := c.WriteAt(bytes.Repeat([]byte{value}, load.BlockSize), block*load.BlockSize, true); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c *load.Client, block int64) byte {
	t.Helper()
	b := make([]byte, load.BlockSize)
	if err := c.ReadAt(b, block*load.BlockSize); err != nil {
		t.Fatal(err)
	}
	return b[0]
}

// parted is a pair of which alpha went on alone and beta was forced, each with
// writes of its own, and that have met again. Block 0 is 1 on alpha and 2 on beta.
func parted(t *testing.T) *harness.Pair {
	t.Helper()
	p := harness.NewPair(t, harness.Options{PairOptions: daemon.PairOptions{Relayed: true}})
	a := p.Dial(p.Alpha)
	write(t, a, 0, 9)
	write(t, a, 7, 9)
	p.Cut()
	p.Await(p.Alpha, "alpha goes on alone", func(s *daemon.Status) bool { return !s.Peer("beta").Member })
	write(t, a, 0, 1)
	write(t, a, 1, 1)
	p.CLI(p.Beta, "promote", harness.Volume, "--force")
	b := p.Dial(p.Beta)
	for _, block := range []int64{0, 5, 6} {
		write(t, b, block, 2)
	}
	p.Mend()
	for _, n := range p.Nodes() {
		p.Await(n, "both refuse each other", func(s *daemon.Status) bool {
			return s.Peers[0].Connection == "StandAlone" && strings.Contains(s.Peers[0].Problem, "split-brain")
		})
	}
	return p
}

// The whole way of an operator, whichever side he keeps: look at both, read both at
// the same time, resolve, and go on.
func TestSplitBrainIsResolved(t *testing.T) {
	for _, keep := range []string{"alpha", "beta"} {
		t.Run("keep "+keep, func(t *testing.T) {
			p := parted(t)
			kept, loser := p.Alpha, p.Beta
			if keep == "beta" {
				kept, loser = p.Beta, p.Alpha
			}
			for _, n := range p.Nodes() {
				r := show(t, p, n)
				a, b := r.Ours, r.Theirs
				if n == p.Beta {
					a, b = b, a
				}
				if a.Node != "alpha" || a.Writes != 2 || a.Bytes != 2*load.BlockSize || a.Accuracy != "exact" || len(a.Ranges) != 1 || a.Ranges[0] != (extent{0, 2 * load.BlockSize}) {
					t.Errorf("%s says of alpha %+v", n.Name, a)
				}
				if b.Node != "beta" || b.Writes != 3 || b.Bytes != 3*load.BlockSize || len(b.Ranges) != 2 || b.Ranges[1] != (extent{5 * load.BlockSize, 2 * load.BlockSize}) {
					t.Errorf("%s says of beta %+v", n.Name, b)
				}
				if len(r.Both) != 1 || r.Both[0] != (extent{0, load.BlockSize}) {
					t.Errorf("%s says that both wrote %+v", n.Name, r.Both)
				}
			}
			// Both sides at the same time: the losing one read-only, as it is.
			p.CLI(loser, "demote", harness.Volume)
			if out := p.CLI(loser, "export", harness.Volume, "--read-only"); !strings.Contains(out, "data@"+loser.Name) {
				t.Fatal(out)
			}
			ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
			defer cancel()
			image, err := load.Dial(ctx, "unix:"+loser.NBDSocket(), harness.Volume+"@"+loser.Name)
			if err != nil {
				t.Fatal(err)
			}
			defer image.Close()
			c := p.Dial(kept)
			values := map[string]byte{"alpha": 1, "beta": 2}
			if x, y := read(t, c, 0), read(t, image, 0); x != values[kept.Name] || y != values[loser.Name] {
				t.Fatalf("the kept side reads %d, the losing one %d", x, y)
			}
			if err := image.WriteAt(make([]byte, load.BlockSize), 0, false); err == nil {
				t.Fatal("a read-only export took a write")
			}
			// A dry run changes nothing.
			resolve := []string{"split", "resolve", harness.Volume, "--keep", keep}
			if out := p.CLI(loser, append(resolve, "--dry-run")...); !strings.Contains(out, "kept there as snapshot split-") || !strings.Contains(out, kept.Name+"$ lockstep connect data") {
				t.Fatal(out)
			}
			if y := read(t, image, 0); y != values[loser.Name] {
				t.Fatalf("the losing side reads %d", y)
			}
			p.CLI(loser, resolve...)
			p.CLI(kept, "connect", harness.Volume)
			held := p.EqualReplicas()
			want := map[int64]byte{0: 1, 1: 1, 5: 0, 6: 0, 7: 9}
			if keep == "beta" {
				want = map[int64]byte{0: 2, 1: 0, 5: 2, 6: 2, 7: 9}
			}
			for block, v := range want {
				if got := held[block*load.BlockSize]; got != v {
					t.Errorf("block %d is %d, not %d", block, got, v)
				}
			}
			if err := image.ReadAt(make([]byte, load.BlockSize), 0); err == nil {
				t.Error("the read-only export outlived the resync")
			}
			write(t, c, 3, 3) // the Primary's client never noticed
			if out := p.CLI(kept, "split", "show", harness.Volume); !strings.Contains(out, "no split-brain") {
				t.Error(out)
			}
			p.EqualReplicas()
			// The losing side is there, until it is deleted.
			losing := map[int64]byte{0: 2, 1: 0, 5: 2, 6: 2, 7: 9}
			if keep == "beta" {
				losing = map[int64]byte{0: 1, 1: 1, 5: 0, 6: 0, 7: 9}
			}
			list := snapshots(t, p, loser)
			if len(list) != 1 || list[0].Peer != kept.Name || list[0].Lost != "" || len(snapshots(t, p, kept)) > 0 {
				t.Fatalf("%s keeps %+v", loser.Name, list)
			}
			p.CLI(loser, "snapshot", "export", harness.Volume, list[0].Name, "--read-only")
			snapshot, err := load.Dial(ctx, "unix:"+loser.NBDSocket(), harness.Volume+"@"+loser.Name+"@"+list[0].Name)
			if err != nil {
				t.Fatal(err)
			}
			defer snapshot.Close()
			for block, v := range losing {
				if got := read(t, snapshot, block); got != v {
					t.Errorf("block %d of the losing side is %d, not %d", block, got, v)
				}
			}
			p.CLI(loser, "snapshot", "delete", harness.Volume, list[0].Name, "--yes")
			if err := snapshot.ReadAt(make([]byte, load.BlockSize), 0); err == nil || len(snapshots(t, p, loser)) > 0 {
				t.Error("the snapshot outlived its deletion")
			}
		})
	}
}

// Typed on the winner: it says what to type on the loser, which is Primary still.
func TestSplitBrainIsResolvedFromTheWinner(t *testing.T) {
	p := parted(t)
	resolve := []string{"split", "resolve", harness.Volume, "--keep", "alpha", "--discard-losing-writes"}
	if out := p.CLI(p.Alpha, resolve...); !strings.Contains(out, "beta$ lockstep "+strings.Join(resolve, " ")) {
		t.Fatal(out)
	}
	if out := p.CLI(p.Beta, resolve...); !strings.Contains(out, "beta is demoted") {
		t.Fatal(out)
	}
	held := p.EqualReplicas()
	if held[0] != 1 || held[5*load.BlockSize] != 0 {
		t.Fatalf("blocks 0 and 5 are %d and %d", held[0], held[5*load.BlockSize])
	}
	if list := snapshots(t, p, p.Beta); len(list) > 0 {
		t.Errorf("what was to be discarded is kept: %+v", list)
	}
}
