package mirror

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-storage/lockstep/bitmap"
)

// A peer is another node's replica as this one knows it.
type peer struct {
	v          *Volume
	*peerState             // v.mu guards it
	bits       *bitmap.Map // blocks in which it may differ from us
	// remaining is of the resync under way, or interrupted; nil if there is none.
	remaining atomic.Pointer[remainder]

	// one is held by the goroutine that runs the connection: there is one at a
	// time.
	one  sync.Mutex
	wake chan struct{} // for dialLoop

	// v.mu guards the rest.
	following   bool      // a connection is under way on which it, as Primary, changes what we hold
	link        *link     // nil without a connection
	bitsThrough LSN       // the records up to here are in bits, or below its base
	keep        *keepWord // an operator's word for the next handshake
	catchUps    int
	resyncs     int
	lastResync  *Progress // of the last one that was finished
}

func newPeer(v *Volume, node string) *peer {
	return &peer{v: v, peerState: v.other(node), wake: make(chan struct{}, 1)}
}

// dials reports whether this side dials: of two nodes, the one whose name comes
// first.
func (p *peer) dials() bool { return p.v.opts.Node < p.node }

func (p *peer) dialLoop() {
	if !p.dials() {
		return
	}
	for {
		pause := p.v.opts.RetryInterval
		if p.wanted() {
			if again := p.dialOnce(); again {
				pause = time.Millisecond
			}
		}
		select {
		case <-p.wake:
		case <-time.After(pause):
		case <-p.v.ctx.Done():
			return
		}
	}
}

func (p *peer) wanted() bool {
	p.v.mu.Lock()
	defer p.v.mu.Unlock()
	return (p.want || p.untold) && !p.v.closing && p.v.failure == nil
}

// dialOnce connects and stays until the connection ends; again asks for the
// next attempt at once.
func (p *peer) dialOnce() (again bool) {
	ctx, cancel := context.WithTimeout(p.v.ctx, p.v.opts.PeerTimeout)
	defer cancel()
	conn, err := p.v.opts.Dialer.Dial(ctx, p.node)
	if err != nil {
		p.note(fmt.Sprintf("cannot connect: %v", err))
		return false
	}
	nonce, err := NewID(nil)
	if err == nil {
		err = WritePreamble(conn, Preamble{Nonce: nonce, Volume: p.v.opts.Volume, Node: p.v.opts.Node})
	}
	if err != nil {
		conn.Close()
		p.note(err.Error())
		return false
	}
	return p.serve(conn, ProtocolVersionMax, true)
}

// awaitEnd waits until no connection runs.
func (p *peer) awaitEnd() {
	p.one.Lock()
	defer p.one.Unlock()
}

// note keeps what went wrong for Status, and logs it once.
func (p *peer) note(problem string) {
	p.v.mu.Lock()
	defer p.v.mu.Unlock()
	p.noteLocked(problem)
}

func (p *peer) noteLocked(problem string) {
	if p.untold { // why it is StandAlone is what counts
		return
	}
	if p.problem != problem && problem != "" {
		p.v.log.Warn("peer: "+problem, "peer", p.node)
	}
	p.problem = problem
}

// Accept takes over a connection that a peer opened, after ReadPreamble with
// its result. It returns at once.
func (v *Volume) Accept(conn net.Conn, pre Preamble, version uint16) {
	p := v.peers[pre.Node]
	switch {
	case p == nil:
		RefuseConn(conn, CodeUnknownVolume, fmt.Sprintf("node %q is no peer of volume %q in the configuration of node %q", pre.Node, v.opts.Volume, v.opts.Node))
		return
	case p.dials():
		RefuseConn(conn, CodeProtocol, fmt.Sprintf("node %q dials node %q, not the other way round", v.opts.Node, pre.Node))
		return
	case v.failed() != nil:
		RefuseConn(conn, CodeFailed, fmt.Sprintf("volume %q on node %q: %v", v.opts.Volume, v.opts.Node, v.failed()))
		return
	case !p.wanted():
		RefuseConn(conn, CodeDisconnected, fmt.Sprintf("volume %q on node %q is disconnected from node %q: run 'lockstep connect' there", v.opts.Volume, v.opts.Node, pre.Node))
		return
	}
	v.mu.Lock()
	p.closeLink(CodeBusy, "the peer has opened a newer connection")
	v.mu.Unlock()
	v.wg.Go(func() { p.serve(conn, version, false) })
}

// failed is why the replica is Failed, nil if it is not.
func (v *Volume) failed() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failure
}

// RefuseConn tells a dialler why it is not let in, and closes the connection.
func RefuseConn(conn net.Conn, code Code, sentence string) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(AppendFrame(nil, &Refuse{Code: code, Sentence: sentence}))
	_ = conn.Close()
}

// Connect makes the volume connect to a peer (all of them if node is "") again
// after Disconnect or a refusal.
func (v *Volume) Connect(node string) error {
	return v.eachPeer(node, func(p *peer) {
		p.wantAgain()
	})
}

// wantAgain has the peer connected again. v.mu is held.
func (p *peer) wantAgain() {
	p.want, p.refused, p.untold = true, false, false
	kick(p.wake)
}

// Disconnect ends the connection to a peer (all of them if node is "") until
// Connect. On a Primary it leaves the in-sync set; one that has no disk of its
// own and nobody else refuses.
func (v *Volume) Disconnect(node string) error {
	if err := v.mayDisconnect(node); err != nil {
		return err
	}
	return v.eachPeer(node, func(p *peer) {
		p.standAlone()
		p.keep = nil
		p.closeLink(CodeDisconnected, fmt.Sprintf("disconnected by the operator of node %q", v.opts.Node))
		p.removeAt = time.Now()
		kick(v.watchKick)
	})
}

func (v *Volume) eachPeer(node string, f func(*peer)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer v.broadcast()
	if node != "" && v.peers[node] == nil {
		return fmt.Errorf("volume %q has no peer %q", v.opts.Volume, node)
	}
	for name, p := range v.peers {
		if node == "" || node == name {
			f(p)
		}
	}
	return nil
}

// closeLink ends the connection to p, telling it why; acknowledgements that
// come later are not counted. v.mu is held.
func (p *peer) closeLink(code Code, sentence string) {
	l := p.link
	if l == nil {
		return
	}
	p.link, p.with, l.parting = nil, nil, &Bye{Code: code, Sentence: sentence}
	p.v.broadcast()
	go l.end(l.parting)
}

func (v *Volume) kickSenders() {
	for _, p := range v.peers {
		if p.link != nil {
			kick(p.link.kick)
		}
	}
}
