package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/nbd"
)

// Options start a daemon.
type Options struct {
	Config  Config
	Version string       // of the program, for status
	Logger  *slog.Logger // nil for none
}

// Node is a running daemon.
type Node struct {
	cfg     Config
	version string
	log     *slog.Logger
	engine  engine
	started time.Time

	dir     *dataDir
	volumes table
	exports target.Exports
	images  images

	bound    listeners
	nbd      *nbd.Server
	peers    *peerListener
	admin    *adminServer
	serving  sync.WaitGroup // the NBD listeners' accept loops
	making   turn           // taken while a volume is created or deleted
	runner   *runner
	resyncs  sync.Mutex // held while resyncs are put in their order
	stopping atomic.Bool
	stopOnce sync.Once
	stopErr  error
}

// listeners are everything that the daemon listens on. All are bound before a
// volume is touched: a port in use is known at once.
type listeners struct {
	admin net.Listener
	peer  net.Listener
	nbd   []net.Listener
}

var errStopping = refuse(CodeStopping, "the daemon is shutting down")

// Start brings a daemon up: it locks the data directory, listens, opens every
// volume, and serves. It returns once it does; a volume that can't be opened
// does not keep it from starting (see Status), anything else that is missing
// does, with one sentence that says what and what to do.
func Start(o Options) (*Node, error) { return start(o, mirrorEngine) }

func start(o Options, e engine) (*Node, error) {
	n := &Node{cfg: o.Config, version: o.Version, log: o.Logger, engine: e, started: time.Now(), making: make(turn, 1)}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if n.nbd, err = nbd.NewServer(&n.exports, nbd.Options{Log: n.log, TLS: n.cfg.NBD.TLS.options()}); err != nil {
		return nil, err
	}
	if err := errors.Join(n.checkTLS(), n.checkNBDTLS()); err != nil {
		return nil, err
	}
	n.runner = newRunner(n.log, n.cfg.Admin)
	dir, err := openDataDir(n.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	n.dir = dir
	if err := n.bind(); err != nil {
		return nil, errors.Join(err, n.bound.close(), dir.Close())
	}
	names, err := dir.scan(n.log)
	if err != nil {
		return nil, errors.Join(err, n.bound.close(), dir.Close())
	}
	n.openAll(names)
	n.serve()
	return n, nil
}

func (n *Node) bind() (err error) {
	b := &n.bound
	if b.admin, err = listen(Address{"unix", n.cfg.Admin}, "admin API", "admin", 0o600); err != nil {
		return err
	}
	if b.peer, err = listen(n.cfg.Peer.Listen, "peers", "peer.listen", 0o600); err != nil {
		return err
	}
	for _, a := range n.cfg.NBD.Listen {
		l, err := listen(a, "NBD", "nbd.listen", 0o660)
		if err != nil {
			return err
		}
		b.nbd = append(b.nbd, l)
		if text := n.cfg.NBD.TLS.warning(a); text != "" {
			n.log.Warn(text, "address", a.String())
		}
	}
	return nil
}

// checkTLS refuses to start with files that no peer would be convinced by, and warns of
// peers that need not prove anything.
func (n *Node) checkTLS() error {
	p := n.cfg.Peer
	if !p.TLS.isSet() {
		if !p.Listen.Loopback() {
			n.log.Warn("peers are neither authenticated nor encrypted: whoever reaches this address can pose as one", "address", p.Listen.String())
		}
		return nil
	}
	id, err := p.TLS.load(n.cfg.Node)
	if err != nil {
		return err
	}
	if warning := id.warning(time.Now()); warning != "" {
		n.log.Warn(warning)
	}
	return nil
}

func (b *listeners) close() error {
	var errs []error
	for _, l := range append([]net.Listener{b.admin, b.peer}, b.nbd...) {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// serve begins to answer: peers first, so that a volume finds its peers, then
// clients.
func (n *Node) serve() {
	n.peers = servePeers(n.bound.peer, n.cfg.tls(), n.log, n.routePeer)
	for _, l := range n.bound.nbd {
		n.serving.Go(func() {
			if err := n.nbd.Serve(l); err != nil && !n.stopping.Load() {
				n.log.Error("NBD listener failed", "address", l.Addr().String(), "error", err)
			}
		})
	}
	n.admin = serveAdmin(n.bound.admin, n)
	st := n.Status()
	n.log.Info("serving", "node", n.cfg.Node, "version", n.version, "nbd", fmt.Sprint(st.NBD), "peer", st.Peer.String(), "admin", n.cfg.Admin, "volumes", len(st.Volumes))
}

// Status is what the daemon is and how its volumes are.
func (n *Node) Status() Status {
	st := Status{
		Node: n.cfg.Node, Version: n.version, DataDir: n.cfg.DataDir, Started: n.started,
		Peer: boundAddress(n.bound.peer), Volumes: []VolumeStatus{},
	}
	for _, l := range n.bound.nbd {
		st.NBD = append(st.NBD, boundAddress(l))
	}
	for _, h := range n.volumes.list() {
		st.Volumes = append(st.Volumes, h.status())
	}
	return st
}

func boundAddress(l net.Listener) Address {
	return Address{l.Addr().Network(), l.Addr().String()}
}

// Stop ends the daemon: clients' requests in flight are finished and their
// connections closed, volumes are flushed and closed and their peers told, and
// the listeners go last, the admin API after all. When ctx ends first it gives
// up waiting and says so; nothing acknowledged is lost then either, the next
// start recovers.
func (n *Node) Stop(ctx context.Context) error {
	n.stopOnce.Do(func() { n.stopErr = n.stop(ctx) })
	return n.stopErr
}

func (n *Node) stop(ctx context.Context) error {
	n.stopping.Store(true)
	n.log.Info("shutting down")
	var errs []error
	note := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	n.runner.stop() // a volume may wait for its handler
	note("stop NBD", n.nbd.Shutdown(ctx))
	n.peers.Close()
	// A create or delete under way comes to its end, and no other begins.
	note("wait for a create or delete", n.making.take(ctx))
	note("close volumes", n.closeVolumes(ctx))
	n.runner.close()
	n.images.wg.Wait() // their volumes are closed, and their connections
	note("stop the admin API", n.admin.Shutdown(ctx))
	n.serving.Wait()
	note("unlock", n.dir.Close())
	err := errors.Join(errs...)
	if err == nil {
		n.log.Info("stopped")
	}
	return err
}

func (n *Node) closeVolumes(ctx context.Context) error {
	var wg sync.WaitGroup
	all := n.volumes.list()
	errs := make([]error, len(all))
	for i, h := range all {
		if h.volume == nil {
			continue
		}
		wg.Go(func() {
			if err := h.volume.Close(ctx); err != nil {
				errs[i] = fmt.Errorf("volume %q: %w", h.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
