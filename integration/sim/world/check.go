package world

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// A term is one promotion of one process.
type term struct {
	p     *process
	epoch uint64
}

// audit has the first session of every term read the whole volume before anybody else
// gets one. If a loss was allowed it also judges what is left as a prefix. It reports
// whether the session goes on.
func (w *World) audit(a *attachment) bool {
	for w.auditing {
		time.Sleep(5 * time.Millisecond)
		if a.lost() {
			return false
		}
	}
	t := term{a.p, a.p.vol.Status().Epoch}
	if w.audited == t {
		return true
	}
	w.auditing = true
	defer func() { w.auditing = false }()
	if w.loss {
		w.history.lose()
	}
	loss, blocks := w.loss, len(w.history.blocks)
	image := make([]foundWrite, blocks)
	for first := 0; first < blocks; first += 32 {
		if !a.read(first, min(32, blocks-first), image) {
			return false
		}
	}
	w.note("sim", "%s serves in epoch %d, and all %d blocks are as they may be", t.p.node.name, t.epoch, blocks)
	w.counts.terms++
	if loss {
		w.history.prefix("after its loss "+t.p.node.name, image)
		w.counts.losses++
		w.loss = false
	}
	for i, f := range image {
		w.history.settle(i, f.version, f.write, a.session)
	}
	w.audited = t
	return true
}

// acknowledged is told of every write that a process acknowledges: of two that do one
// must have stopped.
func (w *World) acknowledged(p *process) {
	q := w.acker
	w.acker = p
	if q == nil || q == p || q.dead {
		return
	}
	go func() { // not under the volume's locks
		if !q.dead && !p.dead && q.vol.Status().Role == mirror.Primary && p.vol.Status().Role == mirror.Primary {
			w.violated("%s and %s are both Primary and both acknowledge", q.node.name, p.node.name)
		}
	}()
}

// patience is how much virtual time the replicas have to converge once all is well.
const patience = 2 * time.Minute

// converge waits, with every node and every way up and the clients still writing, until
// somebody serves and all are in sync; then the clients stop, and all replicas must be
// the same.
func (w *World) converge() {
	for _, name := range w.names {
		n := w.nodes[name]
		n.start()
	}
	if !w.eventually("all replicas are in sync, without anybody's help", func() bool { return w.inSync() || w.twoHistories() }) {
		return
	}
	if !w.inSync() {
		w.note("sim", "two histories, of which only people can choose one")
		w.cover("two histories after a loss")
		return
	}
	w.note("sim", "all replicas are in sync")
	w.quiet = true
	done := make(chan struct{})
	go func() { w.clients.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		w.violated("a client's request was not answered within %v after the faults were over", patience)
		return
	}
	c := w.newClient("the last client")
	var a *attachment
	if !w.eventually("a client can attach", func() bool {
		if p := c.find(); p != nil {
			a = c.attach(p, time.Second)
		}
		return a != nil
	}) {
		return
	}
	if !a.read(0, len(w.history.blocks), nil) {
		w.violated("the last read failed")
	}
	a.end()
	if !w.eventually("everything is applied everywhere", func() bool {
		p := w.primary()
		if p == nil {
			return false
		}
		s := p.vol.Status()
		for _, name := range w.names {
			if t := w.nodes[name].status(); t.Applied != s.End || s.Applied != s.End {
				return false
			}
		}
		return true
	}) {
		return
	}
	w.compare()
	w.stop()
}

// inSync reports whether somebody leads, and all replicas are in sync.
func (w *World) inSync() bool {
	for _, name := range w.names {
		n := w.nodes[name]
		if !n.up() {
			return false
		}
		if s := n.status(); len(s.InSync) != len(w.names) || s.Disk != mirror.UpToDate {
			return false
		}
	}
	return w.primary() != nil
}

// twoHistories reports whether replicas refuse each other, and may: a Primary that lost
// its memory when it was the only member has gone on without records that it had
// acknowledged, and that are left on another. No one but people may give those up
// (replication.md 5). Without such a loss it is a violation, for then they wait in vain.
func (w *World) twoHistories() bool {
	if !w.lost {
		return false
	}
	for _, name := range w.names {
		if n := w.nodes[name]; n.up() {
			for _, p := range n.status().Peers {
				if p.Verdict == mirror.SplitBrain.String() {
					return true
				}
			}
		}
	}
	return false
}

// eventually waits until cond holds; that it does not is a violation.
func (w *World) eventually(what string, cond func() bool) bool {
	began := time.Now()
	for !cond() {
		if time.Since(began) > patience {
			w.violated("in vain waited %v until %s\n%s", patience, what, w.state())
			return false
		}
		if len(w.violations) > 0 && time.Since(began) > 5*time.Second {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// compare holds the stores against each other.
func (w *World) compare() {
	var first []byte
	for _, name := range w.names {
		image, err := w.nodes[name].image()
		switch {
		case err != nil:
			w.violated("the store of %s cannot be read: %v", name, err)
		case first == nil:
			first = image
		case !bytes.Equal(first, image):
			for i := range w.history.blocks {
				x, y := first[i*blockSize:][:blockSize], image[i*blockSize:][:blockSize]
				if !bytes.Equal(x, y) {
					vx, tx := decode(x, i)
					vy, ty := decode(y, i)
					w.violated("the stores of %s and %s differ in block %d: version %d %s, and %d %s\n%s", w.names[0], name, i, vx, tx, vy, ty, w.history.blocks[i].describe())
					return
				}
			}
		}
	}
}

func (n *node) image() ([]byte, error) {
	f, err := n.fs.Open(dataFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := make([]byte, n.w.plan.Size)
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return p, nil
}

// stop closes everything, in its order, and looks at what is left.
func (w *World) stop() {
	w.over = true
	if p := w.primary(); p != nil { // it needs its members to step down
		if err := w.operator.call(p, "demote", func(ctx context.Context) error { return p.vol.Demote(ctx) }); err != nil {
			w.violated("%s does not step down: %v", p.node.name, err)
		}
	}
	for _, name := range w.names {
		n := w.nodes[name]
		p := n.proc
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			done <- p.vol.Close(ctx)
		}()
		select {
		case err := <-done:
			if err != nil {
				w.violated("%s does not close: %v", name, err)
			}
		case <-time.After(patience):
			w.violated("%s hangs in its Close", name)
			return
		}
		p.dead = true
		n.proc = nil
		r, err := mirror.Check(n.fs, mirror.CheckOptions{StoreSize: w.plan.Size})
		if err != nil || !r.Sound() {
			w.violated("the replica of %s is damaged at the end: %v %v", name, err, r.Problems)
		}
		w.eventually("the goroutines of the processes of "+name+" that died have ended", func() bool { return len(n.ends) == 0 })
	}
	w.note("sim", "all is closed")
}

// state describes the nodes, for people.
func (w *World) state() (s string) {
	for _, name := range w.names {
		if n := w.nodes[name]; n.up() {
			s += describe(n.status())
		} else {
			s += fmt.Sprintf("      %s is down\n", name)
		}
	}
	return s
}

func describe(s mirror.Status) string {
	t := fmt.Sprintf("      %s: %v %v epoch %d set %v version %d end %d committed %d stable %d durable %d applied %d journal from %d serving %v waiting %q failure %q\n",
		s.Node, s.Role, s.Disk, s.Epoch, s.InSync, s.SetVersion, s.End, s.Committed, s.Stable, s.Durable, s.Applied, s.Journal.First, s.Serving, s.Waiting, s.Failure)
	for _, p := range s.Peers {
		t += fmt.Sprintf("         %s: %v %v member %v received %d durable %d verdict %s out of sync %d problem %q paused %q\n",
			p.Node, p.Connection, p.Replication, p.Member, p.Received, p.Durable, p.Verdict, p.OutOfSync, p.Problem, p.Paused)
	}
	return t
}
