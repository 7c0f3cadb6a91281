package world

import (
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

const volumeName = "data"

// Options of a run.
type Options struct {
	Seed   uint64
	Skip   map[int]bool // faults that are left out, by number
	Canary bool         // one read is judged as if it had returned what it did not
}

// A World is one run: some nodes, the network between them, clients, an operator and
// the nemesis. All of it runs on one thread, whose goroutines change only where they
// wait: what guards data here is that, but for what has a lock.
type World struct {
	*trace
	options  Options
	plan     *plan
	names    []string
	nodes    map[string]*node
	net      *network
	history  *history
	operator *operator
	clients  sync.WaitGroup
	loaded   time.Duration // when the load began, and with it the faults' time
	healed   bool          // the faults are over
	quiet    bool          // clients are to stop
	over     bool          // the operator, too

	set                  []mirror.Member // the newest (operator.go)
	setEpoch, setVersion uint64
	forgotten            map[mirror.Member]bool
	loss                 bool // what no flush covers may be lost, and nobody has looked yet
	lost                 bool // it was allowed once
	acker                *process
	audited              term
	auditing             bool

	covered    map[string]int
	seen       map[string]mirror.Status // of each node, when it was last looked at (count.go)
	counts     struct{ requests, reads, terms, losses int }
	violations []string
}

// Run makes the run of a seed. It writes the trace, and at its end a line for everything
// that was covered and counted, and for every violation.
func Run(o Options, out io.Writer) (violations []string) {
	w := &World{trace: newTrace(out), options: o, nodes: map[string]*node{}, forgotten: map[mirror.Member]bool{}, covered: map[string]int{}, seen: map[string]mirror.Status{}}
	w.plan = drawPlan(w.random("plan"))
	w.names = nodeNames[:w.plan.Nodes]
	w.note("sim", "seed %d: %s", o.Seed, w.plan.describe())
	w.history = newHistory(w, int(w.plan.Size/blockSize))
	w.net = newNetwork(w)
	w.net.connectNodes(w.names, w.plan.Least, w.plan.Most)
	for _, name := range w.names {
		n, err := w.newNode(name)
		if err != nil {
			w.violated("the replica of %s cannot be made: %v", name, err)
			return w.violations
		}
		w.nodes[name] = n
	}
	w.run()
	w.report(out)
	return w.violations
}

// random is a source of its own for each use: a fault that is left out changes nothing
// of what another source gives.
func (w *World) random(use string) *rand.Rand {
	h := fnv.New64a()
	_, _ = io.WriteString(h, use)
	return rand.New(rand.NewPCG(w.options.Seed, h.Sum64()))
}

func (w *World) run() {
	for _, name := range w.names {
		w.nodes[name].start()
	}
	w.operator = &operator{w: w, rng: w.random("operator")}
	go w.operator.run()
	if !w.plan.New && !w.eventually("a new volume is in sync", w.inSync) {
		return
	}
	w.loaded = w.since()
	for i := range w.plan.Clients {
		w.clients.Add(1)
		go w.newClient(fmt.Sprintf("client %d", i+1)).run()
	}
	w.nemesis(w.options.Skip)
	w.note("sim", "the faults are over")
	w.healed = true
	w.converge()
}

// violated notes that a rule does not hold. The run goes on: what follows may tell why.
func (w *World) violated(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	w.note("sim", "VIOLATION: %s", s)
	w.violations = append(w.violations, s)
}

func (w *World) cover(what string) { w.covered[what]++ }

func (w *World) report(out io.Writer) {
	w.coverNothing()
	for _, what := range slices.Sorted(maps.Keys(w.covered)) {
		fmt.Fprintf(out, "=cover %d %s\n", w.covered[what], what)
	}
	fmt.Fprintf(out, "=cover %d requests acknowledged\n=cover %d reads judged\n=cover %d terms audited\n=cover %d losses allowed\n",
		w.counts.requests, w.counts.reads, w.counts.terms, w.counts.losses)
	fmt.Fprintf(out, "=digest %016x\n", w.hash.Sum64())
	fmt.Fprintf(out, "=faults %d\n", len(w.plan.Faults))
	fmt.Fprintf(out, "=virtual %d\n", time.Since(w.began))
}
