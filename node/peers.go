package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

const (
	// maxGreeting is how many connections may be between accept and preamble.
	// Whoever comes while all are taken waits in the kernel's backlog.
	maxGreeting = 64
	// greetingTime is how long one of them may take over its preamble.
	greetingTime = 5 * time.Second
	// acceptPause is how long accepting rests after a failure (too many open
	// files), so that it does not spin.
	acceptPause = 100 * time.Millisecond
)

// peerListener lets the other nodes in: it reads from each connection which
// volume it is for, and hands it to that volume.
type peerListener struct {
	l     net.Listener
	log   *slog.Logger
	route func(conn net.Conn, pre mirror.Preamble, version uint16)

	ctx   context.Context
	stop  context.CancelFunc
	slots chan struct{} // one is held by every greeting connection
	wg    sync.WaitGroup
}

func servePeers(l net.Listener, log *slog.Logger, route func(net.Conn, mirror.Preamble, uint16)) *peerListener {
	p := &peerListener{l: l, log: log, route: route, slots: make(chan struct{}, maxGreeting)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p
}

// Close stops accepting and drops who has not said yet for which volume it
// came. Connections that a volume has taken over are that volume's.
func (p *peerListener) Close() {
	p.stop()
	p.l.Close()
	p.wg.Wait()
}

func (p *peerListener) accept() {
	for {
		select {
		case p.slots <- struct{}{}:
		case <-p.ctx.Done():
			return
		}
		conn, err := p.l.Accept()
		if err == nil {
			p.wg.Go(func() { p.greet(conn) })
			continue
		}
		<-p.slots
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.log.Warn("a peer's connection can't be accepted", "error", err)
		select {
		case <-time.After(acceptPause):
		case <-p.ctx.Done():
		}
	}
}

func (p *peerListener) greet(conn net.Conn) {
	defer func() { <-p.slots }()
	drop := context.AfterFunc(p.ctx, func() { conn.Close() })
	defer drop()
	pre, version, err := p.readPreamble(conn)
	if !drop() {
		err = errors.Join(err, errStopping)
	}
	if err == nil {
		p.route(conn, pre, version)
		return
	}
	p.log.Warn("a connection to the peer port was closed", "from", conn.RemoteAddr().String(), "error", err)
	if _, ok := errors.AsType[*mirror.VersionError](err); ok {
		mirror.RefuseConn(conn, mirror.CodeVersion, err.Error())
		return
	}
	conn.Close()
}

func (p *peerListener) readPreamble(conn net.Conn) (mirror.Preamble, uint16, error) {
	if err := conn.SetDeadline(time.Now().Add(greetingTime)); err != nil {
		return mirror.Preamble{}, 0, err
	}
	pre, version, err := mirror.ReadPreamble(conn)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	return pre, version, err
}

// routePeer gives a peer's connection to the volume that it asks for.
func (n *Node) routePeer(conn net.Conn, pre mirror.Preamble, version uint16) {
	h := n.volumes.get(pre.Volume)
	var code mirror.Code
	var sentence string
	switch {
	case n.stopping.Load():
		code, sentence = mirror.CodeShutdown, fmt.Sprintf("node %q is shutting down", n.cfg.Node)
	case h == nil:
		code = mirror.CodeUnknownVolume
		sentence = fmt.Sprintf("node %q has no volume %q: run `lockstep create` there, or take it off that volume's peers on node %q", n.cfg.Node, pre.Volume, pre.Node)
	case h.volume == nil:
		code, sentence = mirror.CodeFailed, fmt.Sprintf("on node %q, %s", n.cfg.Node, h.problem)
	default:
		h.volume.Accept(conn, pre, version)
		return
	}
	n.log.Warn("a peer was refused", "peer", pre.Node, "volume", pre.Volume, "from", conn.RemoteAddr().String(), "reason", sentence)
	mirror.RefuseConn(conn, code, sentence)
}
