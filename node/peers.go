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
	// greetingTime is how long one of them may take over its handshake and preamble.
	greetingTime = 5 * time.Second
	// acceptPause is how long accepting rests after a failure (too many open
	// files), so that it does not spin.
	acceptPause = 100 * time.Millisecond
)

// peerListener lets the other nodes in: it has each prove who it is, reads which
// volume it came for, and hands the connection to that volume.
type peerListener struct {
	l     net.Listener
	tls   *peerTLS // nil: none is asked to prove anything
	log   *slog.Logger
	route func(conn net.Conn, pre mirror.Preamble, version uint16)

	ctx   context.Context
	stop  context.CancelFunc
	slots chan struct{} // one is held by every greeting connection
	wg    sync.WaitGroup
}

func servePeers(l net.Listener, tls *peerTLS, log *slog.Logger, route func(net.Conn, mirror.Preamble, uint16)) *peerListener {
	p := &peerListener{l: l, tls: tls, log: log, route: route, slots: make(chan struct{}, maxGreeting)}
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

func (p *peerListener) greet(raw net.Conn) {
	defer func() { <-p.slots }()
	drop := context.AfterFunc(p.ctx, func() { raw.Close() })
	defer drop()
	conn, pre, version, err := p.hear(raw)
	if !drop() {
		err = errors.Join(err, errStopping)
	}
	if err == nil {
		p.route(conn, pre, version)
		return
	}
	p.log.Warn("a connection to the peer port was closed", "from", raw.RemoteAddr().String(), "error", err)
	if _, ok := errors.AsType[*mirror.VersionError](err); ok {
		mirror.RefuseConn(conn, mirror.CodeVersion, err.Error())
		return
	}
	raw.Close()
}

// hear takes in who came and for what, and returns the connection to go on with. Who
// fails to prove to be the node that it says is told nothing.
func (p *peerListener) hear(raw net.Conn) (conn net.Conn, pre mirror.Preamble, version uint16, err error) {
	if err := raw.SetDeadline(time.Now().Add(greetingTime)); err != nil {
		return raw, pre, 0, err
	}
	conn, proves := raw, func(string) error { return nil }
	if p.tls != nil {
		secure, err := p.tls.accept(p.ctx, raw)
		if err != nil {
			return raw, pre, 0, err
		}
		conn, proves = secure, secure.proves
	}
	if pre, version, err = mirror.ReadPreamble(conn); err == nil {
		err = proves(pre.Node)
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	return conn, pre, version, err
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
