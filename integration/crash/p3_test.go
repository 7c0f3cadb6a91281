package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

const (
	p3Size = 32 << 20
	p3Rate = 24 << 20 // of a resync, bytes a second
)

// TestP3SourceLostAtRandomPoints is P3 with real daemons: beta was away, and comes
// back, by the journal or, every other round, by a resync; at a random point of that
// alpha is killed, in the middle of its clients' writes. Beta, rolled back if it was
// in a resync, and promoted by force, is a usable disk: it holds the first k writes
// and nothing of the others, bit for bit. After a rollback these are what it had when
// it went away, in a catch-up no fewer, and if it was a member again all that were
// acknowledged.
//
// A round takes as long as eight of the other tests', and LOCKSTEP_ROUNDS counts
// those: 1600 are 200 points.
func TestP3SourceLostAtRandomPoints(t *testing.T) {
	t.Parallel()
	small := []string{"--journal-size", "64MiB"}
	seed := harness.Seed(t)
	w := &lineage{rng: rand.New(rand.NewPCG(seed, 7))}
	w.Pair = harness.NewPair(t, harness.Options{Size: p3Size,
		PairOptions: daemon.PairOptions{CreateFlags: map[string][]string{"alpha": small, "beta": small}},
		Prepare: func(p *daemon.Pair) {
			for _, n := range p.Nodes() {
				appendConfig(t, n, fmt.Sprintf("volumes: {%s: {resync-rate: %d, resync-checksums: false}}\n", harness.Volume, p3Rate))
			}
		}})
	ends := map[string]int{}
	rounds := max(harness.Rounds(t, 0)/8, 4)
	for i := range rounds {
		resync := i%2 == 1
		began := time.Now()
		end := w.round(t, resync)
		ends[end]++
		t.Logf("round %d, %.1f s: beta was %s", i, time.Since(began).Seconds(), end)
	}
	for _, end := range slices.Sorted(maps.Keys(ends)) {
		t.Logf("%d of %d rounds: %s", ends[end], rounds, end)
	}
}

// A lineage is a pair, and every write that its clients made, in order.
type lineage struct {
	*harness.Pair
	rng *rand.Rand

	writes []p3Write
	acked  int // so many of them were answered
}

// p3Write is a write whose every block says which one it is. It has no block if it
// never took place.
type p3Write struct{ first, count int } // blocks

// round returns how beta was when alpha died.
func (w *lineage) round(t *testing.T, resync bool) string {
	t.Helper()
	c := w.Dial(w.Alpha)
	w.write(t, c, 4<<20)
	w.Kill(w.Beta)
	had := w.acked
	w.Await(w.Alpha, "beta is dropped", func(s *daemon.Status) bool { return !s.Peer("beta").Member })
	if resync {
		for w.Status(w.Alpha).Peer("beta").OutOfSync == 0 { // more than the journal keeps
			w.write(t, c, 32<<20)
		}
	} else {
		w.write(t, c, 24<<20)
	}
	within := 150 * time.Millisecond
	if resync {
		within = time.Second * p3Size / p3Rate
	}
	pause := time.Duration(w.rng.Int64N(int64(within)))
	live := make(chan error, 1)
	go func() { // the writes and their random numbers are its own until alpha is killed
		for {
			if err := w.one(c); err != nil {
				live <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	w.Start(w.Beta)
	w.Await(w.Alpha, "beta is there", func(s *daemon.Status) bool { return s.Peer("beta").Connection == "Connected" })
	time.Sleep(pause)
	member := w.Status(w.Alpha).Peer("beta").Member
	w.Kill(w.Alpha)
	if err := <-live; !errors.Is(err, load.ErrLost) {
		t.Fatalf("the client of a Primary that was killed met: %v", err)
	}
	c.Close()

	s := w.Await(w.Beta, "it knows that alpha is gone", func(s *daemon.Status) bool { return s.Peer("alpha").Connection != "Connected" })
	end, least, most := "about to begin", had, len(w.writes)
	switch {
	case s.Disk == "Inconsistent":
		end, most = "in a resync", had
		w.CLI(w.Beta, "rollback", harness.Volume, "--yes")
	case member:
		end, least = "a member", w.acked
	case s.Disk == "Outdated":
		end = "in a catch-up"
	}
	w.CLI(w.Beta, "promote", harness.Volume, "--force")
	w.isPrefix(t, least, most)
	w.begin(t)
	return end
}

// begin makes alpha Primary again, and beta its member: beta, which wrote nothing,
// gives way.
func (w *lineage) begin(t *testing.T) {
	t.Helper()
	w.CLI(w.Beta, "demote", harness.Volume)
	w.CLI(w.Beta, "connect", harness.Volume) // after a rollback it talks to nobody
	w.Start(w.Alpha)
	w.Await(w.Beta, "they have met", func(s *daemon.Status) bool { return s.Peer("alpha").Connection == "Connected" })
	s := w.Await(w.Alpha, "they have met", func(s *daemon.Status) bool { return s.Peer("beta").Connection == "Connected" })
	if s.Disk == "Outdated" { // beta had all of its records, and then began a generation
		w.CLI(w.Beta, "promote", harness.Volume)
		w.AwaitInSync()
		w.CLI(w.Beta, "demote", harness.Volume)
	}
	w.CLI(w.Alpha, "promote", harness.Volume)
	w.AwaitInSync()
	if last := len(w.writes); last > w.acked { // alpha may have died before it took it in
		c := w.Dial(w.Alpha)
		defer c.Close()
		p := make([]byte, load.BlockSize)
		if err := c.ReadAt(p, int64(w.writes[last-1].first)*load.BlockSize); err != nil {
			t.Fatal(err)
		}
		if binary.LittleEndian.Uint64(p) != uint64(last) {
			w.writes[last-1].count = 0
		}
		w.acked = last
	}
}

// write writes about so many bytes, and flushes.
func (w *lineage) write(t *testing.T, c *load.Client, bytes int) {
	t.Helper()
	for bytes > 0 {
		if err := w.one(c); err != nil {
			t.Fatal(err)
		}
		bytes -= w.writes[len(w.writes)-1].count * load.BlockSize
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// one makes one write, and waits for its answer.
func (w *lineage) one(c *load.Client) error {
	x := p3Write{count: 1 + w.rng.IntN(64)}
	x.first = w.rng.IntN(p3Size/load.BlockSize - x.count)
	w.writes = append(w.writes, x)
	number := uint64(len(w.writes))
	p := make([]byte, x.count*load.BlockSize)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], number)
	}
	if err := c.WriteAt(p, int64(x.first)*load.BlockSize, false); err != nil {
		return err
	}
	w.acked = int(number)
	return nil
}

// isPrefix reads all of beta: it holds the first k writes, from least to most. From
// there on the lineage goes on with what alpha has.
func (w *lineage) isPrefix(t *testing.T, least, most int) {
	t.Helper()
	c := w.Dial(w.Beta)
	defer c.Close()
	got := make([]byte, p3Size)
	for off := 0; off < p3Size; off += 1 << 20 {
		if err := c.ReadAt(got[off:off+1<<20], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	k := uint64(0)
	for i := 0; i < p3Size; i += load.BlockSize {
		k = max(k, binary.LittleEndian.Uint64(got[i:]))
	}
	if k < uint64(least) || k > uint64(most) {
		t.Fatalf("beta holds the first %d writes, %d to %d may be", k, least, most)
	}
	want := make([]uint64, p3Size/load.BlockSize)
	for i, x := range w.writes[:k] {
		for b := range x.count {
			want[x.first+b] = uint64(i + 1)
		}
	}
	for i := 0; i < p3Size; i += 8 {
		if v := binary.LittleEndian.Uint64(got[i:]); v != want[i/load.BlockSize] {
			t.Fatalf("beta holds the first %d writes, and of write %d at offset %d, where write %d was the last of those", k, v, i, want[i/load.BlockSize])
		}
	}
}
