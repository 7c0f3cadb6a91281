package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
	"github.com/lockstep-storage/lockstep/target/nbd/nbdclient"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// A series is the rounds of one cluster.
type series struct {
	c      *cluster
	held   []uint64 // what each block holds
	rounds int
	counts map[string]int // faults by name
}

func newSeries(c *cluster) *series {
	return &series{c: c, held: make([]uint64, blocks), counts: map[string]int{}}
}

// report prints what was done.
func (s *series) report() {
	s.c.t.Logf("%d rounds: %d writes, %d reads, %d flushes acknowledged, %d writes without an answer", s.rounds,
		s.c.writes.Load(), s.c.reads.Load(), s.c.flushes.Load(), s.c.unanswered.Load())
	f := s.c.forces
	s.c.t.Logf("forces: %d of a node that had everything, %d of one that had not, or perhaps; %d were refused; %d restarts in place of a demote that waited for held writes", f.whole, f.lossy, f.refused, s.c.held)
	var list []string
	for _, f := range faults {
		list = append(list, fmt.Sprintf("%s %d", f.name, s.counts[f.name]))
	}
	s.c.t.Logf("faults: %s", strings.Join(list, ", "))
}

// A round is some faults, the heal, and the judgement.
type round struct {
	c    *cluster
	rng  *rand.Rand
	h    *history
	load *clientLoad
	held [3][3]bool // from, to: is what it sends held back

	operators    sync.WaitGroup // their commands that are under way
	disconnected bool           // an operator disconnected something
	forced       bool           // and one forced a promotion
	loose        bool           // by which something may be lost
	kept         int            // whom the clients were left on by the last force, -1 if there was none

	mu     sync.Mutex
	events []string
}

// event notes what was done, or came of it.
func (r *round) event(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf("%s %7.3f  %s", time.Now().UTC().Format("15:04:05.000"), time.Since(r.h.began).Seconds(), fmt.Sprintf(format, a...)))
}

// play runs one round; a fault of Lockstep's ends the test.
func (s *series) play(n int, rng *rand.Rand) {
	t := s.c.t
	t.Helper()
	r := &round{c: s.c, rng: rng, h: newHistory(s.held), kept: -1}
	began := s.c.writes.Load()
	r.load = s.c.startLoad(r.h, rng.Uint64())
	defer func() {
		r.save(n)
		if t.Failed() {
			t.Logf("round %d:\n  %s", n, strings.Join(r.events, "\n  "))
			for i := range s.c.nodes {
				t.Logf("the log of %s ends:\n%s", names[i], s.c.logEnd(i))
			}
		}
	}()
	s.c.loosen(false)
	r.must(t, r.serve(), "before the first fault")
	var done []string
	for range 1 + rng.IntN(4) {
		f := draw(rng)
		s.counts[f.name]++
		done = append(done, f.name)
		f.run(r)
	}
	healing := time.Now()
	r.event("heal")
	r.must(t, r.heal(), "the heal")
	took := time.Since(healing)
	r.load.only(-1)
	r.must(t, r.serve(), "after the heal")
	r.must(t, r.load.stop(), "the clients")
	held, err := r.readAll()
	r.must(t, err, "reading everything back")
	r.must(t, s.c.equalReplicas(held), "comparing the replicas")
	r.must(t, errors.Join(r.h.judge(time.Minute)...), "judging the histories")
	s.held = held
	s.rounds++
	t.Logf("round %2d: %d writes, healed in %.1f s: %s", n, s.c.writes.Load()-began, took.Seconds(), strings.Join(done, ", "))
}

func (r *round) must(t *testing.T, err error, what string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// save appends the round's events to the file that a failure leaves.
func (r *round) save(n int) {
	f, err := os.OpenFile(filepath.Join(r.c.dir, "events"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return // the directory went with the test's end
	}
	defer f.Close()
	fmt.Fprintf(f, "round %d\n  %s\n", n, strings.Join(r.events, "\n  "))
}

// serve waits until every client was answered since now.
func (r *round) serve() error {
	r.load.forgetServed()
	for deadline := time.Now().Add(harness.Patience); !r.load.everybodyServed(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("a client is not served within %v", harness.Patience)
		}
	}
	return nil
}

// readAll reads every block through the Primary, as one more client.
func (r *round) readAll() ([]uint64, error) {
	p := r.c.primary()
	if p < 0 {
		return nil, errors.New("there is no Primary")
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	c, err := nbdclient.Dial(ctx, "unix", r.c.nodes[p].NBDSocket(), harness.Volume)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	held, buf := make([]uint64, blocks), make([]byte, load.BlockSize)
	for b := range held {
		o := op{client: clients + 1, node: names[p], call: r.h.now()}
		if _, err := c.ReadAt(buf, offset(b)); err != nil {
			return nil, err
		}
		o.answer = r.h.now()
		if o.value, err = identify(buf, b); err != nil {
			return nil, err
		}
		held[b] = o.value
		r.h.add(b, o)
	}
	return held, nil
}
