package world

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/mirror"
)

// A client looks for a node that serves, attaches, and writes, flushes and reads until
// its session is over; then it looks again. Its requests are numbered (history.go).
type client struct {
	w    *World
	name string
	rng  *rand.Rand
}

func (w *World) newClient(name string) *client {
	return &client{w: w, name: name, rng: w.random("client " + name)}
}

func (c *client) run() {
	for !c.w.quiet {
		if p := c.find(); p != nil {
			c.use(p)
		}
		c.pause(50 * time.Millisecond)
	}
	c.w.clients.Done()
}

// find returns a process that says it serves, nil if there is none.
func (c *client) find() *process {
	first := c.rng.IntN(len(c.w.names))
	for i := range c.w.names {
		n := c.w.nodes[c.w.names[(first+i)%len(c.w.names)]]
		if n.up() && n.status().Serving {
			return n.proc
		}
	}
	return nil
}

// enough requests are made in a run: more of them find less than another run does.
const enough = 600

// think is how long clients think at most between two requests: longer once there were
// enough, or the faults are over, for then it is only to be seen that they are served.
func (w *World) think() time.Duration {
	if w.healed || w.counts.requests > enough {
		return max(w.plan.Think, 200*time.Millisecond)
	}
	return w.plan.Think
}

func (c *client) pause(most time.Duration) { time.Sleep(time.Duration(c.rng.Int64N(int64(most)))) }

// An attachment is a session at a node, and what becomes of it.
type attachment struct {
	*session
	c    *client
	p    *process
	s    block.Session
	over chan struct{} // closed when the volume revokes it
}

// attach waits for a session at most as long as patience; nil if there is none.
func (c *client) attach(p *process, patience time.Duration) *attachment {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	a := &attachment{c: c, p: p, over: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		defer cancel()
		s, err := p.vol.Attach(ctx, func(error) { close(a.over) })
		a.s = s
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil || p.dead {
			return nil
		}
	case <-p.gone:
		cancel()
		return nil
	}
	a.session = c.w.history.attach()
	if !c.w.audit(a) {
		a.end()
		return nil
	}
	return a
}

func (a *attachment) end() {
	a.c.w.history.detach(a.session)
	a.s.Close()
}

// lost reports whether nothing that comes from the session counts any more.
func (a *attachment) lost() bool {
	if a.p.dead {
		return true
	}
	select {
	case <-a.over:
		return true
	default:
		return false
	}
}

// use works in a session until it is over, or the client has had enough.
func (c *client) use(p *process) {
	a := c.attach(p, 5*time.Second)
	if a == nil {
		return
	}
	c.w.cover("client attached")
	defer a.end()
	for range 1 + c.rng.IntN(200) {
		if c.w.quiet || !c.request(a) {
			return
		}
		c.pause(c.w.think())
	}
}

// request submits a batch, or reads, and waits for the end of that. It reports whether
// the session goes on.
func (c *client) request(a *attachment) bool {
	if c.rng.IntN(100) < c.w.plan.Reads {
		return c.read(a)
	}
	batch := make([]*block.Request, 1+c.rng.IntN(c.w.plan.Batch))
	done := make(chan *outcome, len(batch))
	for i := range batch {
		batch[i] = c.draw(a, done)
	}
	submitted := make(chan struct{})
	go func() { // it may have to wait
		a.s.Submit(batch)
		close(submitted)
	}()
	for range batch {
		select {
		case o := <-done:
			if !c.completed(a, o) {
				return false
			}
		case <-a.p.gone:
			return false
		case <-a.over:
			return false
		}
	}
	<-submitted
	return true
}

// An outcome is what became of a request.
type outcome struct {
	op        block.Op
	first     int
	writes    []*write
	submitted int64
	err       error
	p         *process
	w         *World
	durable   bool
	done      chan *outcome
}

// Complete implements block.Completer. A dead process answers nobody.
func (o *outcome) Complete(r *block.Request, err error) {
	if o.p.dead {
		return
	}
	o.err = err
	switch {
	case err != nil:
	case o.op == block.OpFlush:
		o.w.history.flush(o.submitted)
	default:
		o.w.history.ack(o.writes, o.durable)
		o.w.acknowledged(o.p)
	}
	o.done <- o
}

func (c *client) draw(a *attachment, done chan *outcome) *block.Request {
	w := c.w
	o := &outcome{op: block.OpWrite, p: a.p, w: w, done: done}
	r := &block.Request{Done: o}
	blocks := int(w.plan.Size / blockSize)
	n := 1 + c.rng.IntN(w.plan.Largest)
	if c.rng.IntN(3) > 0 {
		n = 1
	}
	o.first = c.rng.IntN(blocks - n + 1)
	if hot := w.plan.Hot; hot > 0 && c.rng.IntN(2) == 0 {
		o.first = c.rng.IntN(min(hot, blocks-n+1))
	}
	switch k := c.rng.IntN(100); {
	case k < w.plan.Flushes:
		o.op, o.submitted = block.OpFlush, w.history.tick()
	case k < w.plan.Flushes+5:
		o.op = block.OpTrim
	case k < w.plan.Flushes+10:
		o.op, r.NoHole = block.OpWriteZeroes, c.rng.IntN(2) == 0
	}
	r.Op = o.op
	if o.op != block.OpFlush {
		r.FUA = c.rng.IntN(100) < w.plan.FUA
		o.durable = r.FUA || w.plan.NoWriteCache
		o.writes = w.history.submit(a.session, o.first, n, o.op != block.OpWrite)
		r.Off, r.Len = int64(o.first)*blockSize, int64(n)*blockSize
	}
	if o.op == block.OpWrite {
		r.Buf = block.Get(int(r.Len))
		encode(r.Buf.Bytes(), o.first, o.writes[0].version)
	}
	return r
}

// completed looks at an answer, and reports whether the session goes on.
func (c *client) completed(a *attachment, o *outcome) bool {
	switch {
	case o.err == nil:
		c.w.counts.requests++
		return true
	case errors.Is(o.err, block.ErrSessionClosed):
		c.w.history.refuse(o.first, o.writes)
	case errors.Is(o.err, mirror.ErrNoQuorum):
		c.w.cover("answer no quorum")
		return true
	}
	c.w.cover("answer error")
	return false
}

// read reads some blocks, and judges them.
func (c *client) read(a *attachment) bool {
	w := c.w
	blocks := int(w.plan.Size / blockSize)
	n := 1 + c.rng.IntN(min(8, blocks))
	first := c.rng.IntN(blocks - n + 1)
	return a.read(first, n, nil)
}

// A foundWrite is what was read of a block, and the write that it is of, nil if it may
// be of several.
type foundWrite struct {
	write   *write
	version uint64
}

// read reads blocks and judges them; found, if not nil, gets the write that each is of.
// It reports whether the session goes on.
func (a *attachment) read(first, n int, found []foundWrite) bool {
	w := a.c.w
	p := make([]byte, n*blockSize)
	began := w.history.tick()
	done := make(chan error, 1)
	go func() { done <- a.s.ReadAt(p, int64(first)*blockSize) }()
	select {
	case err := <-done:
		if err != nil || a.lost() {
			return false
		}
	case <-a.p.gone:
		return false
	case <-a.over:
		return false
	}
	w.counts.reads++
	if w.options.Canary && w.counts.reads == 3 {
		encode(p[:blockSize], first, w.history.last+1000)
	}
	for i := range n {
		x := w.history.read(a.c.name+" at "+a.p.node.name, first+i, p[i*blockSize:][:blockSize], began, a.session)
		if found != nil {
			version, _ := decode(p[i*blockSize:][:blockSize], first+i)
			found[first+i] = foundWrite{x, version}
		}
	}
	return true
}
