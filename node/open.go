package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/store"
	"github.com/lockstep-storage/lockstep/target"
)

// openAll opens the volumes side by side: one that replays a long journal does
// not hold the others up. It returns when all are open or have failed.
func (n *Node) openAll(names []string) {
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() { n.open(name) })
	}
	wg.Wait()
	for name := range n.cfg.Volumes {
		if n.volumes.get(name) == nil {
			n.problem(name, fmt.Errorf("the config file names it, but this node has no replica of it: make one with `lockstep create %s --size SIZE`", name))
		}
	}
}

// open opens a volume and exports it. What can't be opened is left as it is,
// and stands in the table with the reason.
func (n *Node) open(name string) *hosted {
	v, err := n.openVolume(name)
	if errors.Is(err, mirror.ErrJournalLost) {
		return n.problem(name, fmt.Errorf("%w. Nothing on disk was overwritten. Mend it and restart the daemon; or give the journal up "+
			"and have the replica resynced with `lockstep repair %s`", err, name))
	}
	if err != nil {
		return n.problem(name, fmt.Errorf("%w. Nothing on disk was overwritten. Mend it and restart the daemon; or, if another node holds the data, "+
			"remove this replica with `lockstep delete %s` and create it anew", err, name))
	}
	h := &hosted{name: name, volume: v}
	n.volumes.put(h)
	n.orderResyncs()
	if err := n.exports.Add(target.Export{Name: name, Device: v, Listed: func() bool { return v.Status().Serving }}); err != nil {
		n.log.Error("volume can't be exported", "volume", name, "error", err)
	}
	st := v.Status()
	n.log.Info("volume opened", "volume", name, "role", st.Role.String(), "disk", st.Disk.String(), "bytes", st.Size)
	return h
}

func (n *Node) problem(name string, err error) *hosted {
	h := &hosted{name: name, problem: fmt.Sprintf("volume %q is not open: %v", name, err)}
	n.log.Error("volume is not open", "volume", name, "error", err)
	n.volumes.put(h)
	return h
}

func (n *Node) openVolume(name string) (volume, error) {
	o, err := n.options(name)
	if err != nil {
		return nil, err
	}
	return n.engine.open(o)
}

// options open the store and say how to open the volume on it.
func (n *Node) options(name string) (o mirror.Options, err error) {
	dir := n.dir.volume(name)
	stored, err := readSettings(dir)
	if err != nil {
		return o, err
	}
	s := n.effective(name, stored)
	fsys, err := disk.OS(dir)
	if err != nil {
		return o, err
	}
	journal, err := openJournal(s, disk.OS)
	if err != nil {
		return o, err
	}
	path := storePath(dir, s)
	f, err := store.OpenFile(path, store.FileOptions{Direct: s.Direct})
	if errors.Is(err, fs.ErrNotExist) {
		return o, fmt.Errorf("its store %s is missing (is its disk mounted?)", path)
	}
	if err != nil {
		return o, err
	}
	shared, err := sameFileSystem(dir, path)
	if err != nil {
		return o, errors.Join(err, f.Close())
	}
	over := n.cfg.Volumes[name]
	o = mirror.Options{
		Node: n.cfg.Node, Volume: name, FS: fsys, Journal: journal, Store: f,
		Peers: s.names(), Dialer: newDialer(s.Peers, n.cfg), Logger: n.log,
		PendingLimit: s.PendingLimit, PeerTimeout: time.Duration(s.PeerTimeout), SyncInterval: time.Duration(s.SyncInterval),
		PeerLatencyBudget: time.Duration(s.PeerLatencyBudget),
		RetryInterval:     time.Duration(s.RetryInterval), ResyncRate: s.ResyncRate, ResyncUndo: s.ResyncUndo, SnapshotLimit: s.SnapshotLimit, SharedDisk: shared,
		OnIOError: s.OnIOError,
		Split:     over.Split,
		MinInSync: s.MinInSync, OnNoQuorum: s.OnNoQuorum,
		NoResyncChecksums: over.Resync.Checksums != nil && !*over.Resync.Checksums,
		Hooks:             n.hooks(name, s.Peers),
	}
	override(&o.ResyncRateMin, over.Resync.RateMin)
	override(&o.ResyncRateMax, over.Resync.RateMax)
	return o, nil
}

// sameFileSystem reports whether a regular file takes its space from the file system
// that a directory is on.
func sameFileSystem(dir, file string) (bool, error) {
	var d, f syscall.Stat_t
	if err := syscall.Stat(dir, &d); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if err := syscall.Stat(file, &f); err != nil {
		return false, fmt.Errorf("look at %s: %w", file, err)
	}
	return f.Mode&syscall.S_IFMT == syscall.S_IFREG && f.Dev == d.Dev, nil
}

// dialer reaches a volume's peers at their configured addresses.
type dialer struct {
	addresses map[string]string
	peer      PeerConfig
	tls       *peerTLS // nil without
}

func newDialer(peers []Peer, c Config) dialer {
	d := dialer{map[string]string{}, c.Peer, c.tls()}
	for _, p := range peers {
		d.addresses[p.Name] = p.Address
	}
	return d
}

// Dial implements mirror.Dialer.
func (d dialer) Dial(ctx context.Context, node string) (net.Conn, error) {
	addr := d.addresses[node]
	if addr == "" {
		return nil, fmt.Errorf("the address of node %q is unknown: add it to nodes in the config file", node)
	}
	if err := d.peer.plaintext(addr); err != nil { // one that was stored with the volume
		return nil, err
	}
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil || d.tls == nil {
		return conn, err
	}
	secure, err := d.tls.dial(ctx, conn, node)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}
