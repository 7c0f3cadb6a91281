package nemesis

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
	"github.com/lockstep-storage/lockstep/target/nbd/nbdclient"
)

const (
	clients = 4
	blocks  = 64 // that they all use, all over the volume
	// opPause is between two requests of a client: enough for many requests in a
	// round, few enough that a history is judged in no time.
	opPause = 700 * time.Microsecond
)

// offset is where a block lies; far from its neighbours, so that replicas differ in
// more than one region.
func offset(block int) int64 { return int64(block) * (size / blocks) }

// counts are of answered requests.
type counts struct{ writes, reads, flushes, unanswered atomic.Int64 }

// A clientLoad is the clients of one round.
type clientLoad struct {
	c      *cluster
	h      *history
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu     sync.Mutex
	barred map[string]bool              // nodes that no client may use
	open   map[*nbdclient.Client]string // connections, by node
	errs   []error                      // what must not happen
	// served counts the answers since the last call of quiet.
	served [clients]atomic.Int64
}

func (c *cluster) startLoad(h *history, seed uint64) *clientLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &clientLoad{c: c, h: h, ctx: ctx, cancel: cancel, barred: map[string]bool{}, open: map[*nbdclient.Client]string{}}
	for i := range clients {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		l.all.Go(func() { l.run(i, rng) })
	}
	return l
}

// stop ends the load once every request that is on its way was answered, and says
// what was wrong.
func (l *clientLoad) stop() error {
	l.cancel()
	done := make(chan struct{})
	go func() { l.all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(harness.Patience):
		return fmt.Errorf("a request is not answered within %v of the end of all faults", harness.Patience)
	}
	return errors.Join(l.errs...)
}

// bar keeps clients off a node: it closes their connections to it, returns when no
// answer can come any more, and lets none back.
func (l *clientLoad) bar(node string) {
	l.mu.Lock()
	l.barred[node] = true
	var mine []*nbdclient.Client
	for c, n := range l.open {
		if n == node {
			mine = append(mine, c)
		}
	}
	l.mu.Unlock()
	for _, c := range mine {
		c.Close()
	}
	for { // until each client has noted what became of its request
		l.mu.Lock()
		left := slices.ContainsFunc(mine, func(c *nbdclient.Client) bool { _, ok := l.open[c]; return ok })
		l.mu.Unlock()
		if !left {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// only bars every node but one, -1 for none.
func (l *clientLoad) only(node int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, name := range names {
		l.barred[name] = node >= 0 && i != node
	}
}

// everybodyServed reports whether each client was answered since the last forget.
func (l *clientLoad) everybodyServed() bool {
	for i := range l.served {
		if l.served[i].Load() == 0 {
			return false
		}
	}
	return true
}

func (l *clientLoad) forgetServed() {
	for i := range l.served {
		l.served[i].Store(0)
	}
}

// run is one client: it looks for a node that serves, uses it while that lasts, and
// looks again.
func (l *clientLoad) run(id int, rng *rand.Rand) {
	for l.ctx.Err() == nil {
		for _, i := range rng.Perm(len(l.c.nodes)) {
			if l.ctx.Err() != nil {
				return
			}
			n := l.c.nodes[i]
			if c := l.dial(n); c != nil {
				l.use(id, rng, n, c)
				l.mu.Lock()
				delete(l.open, c)
				l.mu.Unlock()
				c.Close()
			}
		}
		l.wait(20 * time.Millisecond)
	}
}

// wait is for as long as the load goes on, at most d.
func (l *clientLoad) wait(d time.Duration) {
	select {
	case <-l.ctx.Done():
	case <-time.After(d):
	}
}

// dial connects to a node that serves and is not barred; nil else.
func (l *clientLoad) dial(n *daemon.Node) *nbdclient.Client {
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	c, err := nbdclient.Dial(ctx, "unix", n.NBDSocket(), harness.Volume)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.barred[n.Name] {
		c.Close()
		return nil
	}
	l.open[c] = n.Name
	return c
}

// use sends requests until the connection is lost, or the load ends.
func (l *clientLoad) use(id int, rng *rand.Rand, n *daemon.Node, c *nbdclient.Client) {
	// A connection ends with the role, so what is answered on it from now on is of
	// this epoch.
	epoch := l.epoch(n)
	p := make([]byte, load.BlockSize)
	for l.ctx.Err() == nil {
		b := rng.IntN(blocks)
		o := op{client: id, node: n.Name, call: l.h.now()}
		var err error
		switch k := rng.IntN(20); {
		case k == 0:
			if err = c.Flush(); err == nil {
				l.h.addFlush(flush{o.call, l.h.now()})
				l.c.flushes.Add(1)
			}
		case k < 10:
			o.kind, o.value = opWrite, l.c.values.Add(1)
			load.Fill(p, b, o.value)
			var f nbdclient.Flag
			if k == 1 {
				f, o.durable = nbdclient.FUA, true
			}
			_, err = c.Write(p, offset(b), f)
			if o.answer = l.h.now(); err != nil {
				o.answer = never // whatever the answer was: it may be in a journal
				l.c.unanswered.Add(1)
			} else {
				l.c.writes.Add(1)
			}
			l.h.add(b, o)
		default:
			_, err = c.ReadAt(p, offset(b))
			if o.answer = l.h.now(); err == nil {
				o.value, err = identify(p, b)
				if err != nil {
					l.wrong(fmt.Errorf("client %d on %s: %w", id, n.Name, err))
				}
				l.c.reads.Add(1)
				l.h.add(b, o)
			}
		}
		if err != nil {
			return
		}
		if epoch != 0 {
			l.wrongIf(l.c.acknowledged(epoch, n.Name))
			epoch = 0 // noted
		}
		l.served[id].Add(1)
		l.wait(time.Duration(rng.Int64N(int64(2 * opPause))))
	}
}

// epoch is that of a node's role, 0 if it does not tell.
func (l *clientLoad) epoch(n *daemon.Node) uint64 {
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	s, err := n.Status(ctx, harness.Volume)
	if err != nil || s.Role != "Primary" {
		return 0
	}
	return s.Epoch
}

func (l *clientLoad) wrongIf(err error) {
	if err != nil {
		l.wrong(err)
	}
}

func (l *clientLoad) wrong(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// identify is the value of the write that a block's bytes are of.
func identify(p []byte, block int) (uint64, error) {
	value := binary.LittleEndian.Uint64(p)
	want := make([]byte, len(p))
	load.Fill(want, block, value)
	if !bytes.Equal(p, want) {
		return 0, fmt.Errorf("block %d holds what no write wrote; it begins like write %d", block, value)
	}
	return value, nil
}
