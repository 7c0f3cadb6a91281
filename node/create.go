package node

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
)

const blockSize = 4096

// create makes a new replica on this node, opens it and exports it. A crash at
// any moment leaves either the whole volume or nothing that counts.
func (n *Node) create(r CreateRequest) (VolumeStatus, error) {
	settings, err := n.settle(r)
	if err != nil {
		return VolumeStatus{}, err
	}
	if n.stopping.Load() {
		return VolumeStatus{}, errStopping
	}
	if !n.making.try() {
		return VolumeStatus{}, refuse(CodeBusy, "another volume is being created or deleted: try again")
	}
	defer n.making.give()
	switch there, err := n.dir.exists(r.Name); {
	case err != nil:
		return VolumeStatus{}, err
	case there:
		return VolumeStatus{}, refuse(CodeExists, "volume %q exists on node %q already: delete it first, or choose another name", r.Name, n.cfg.Node)
	}
	if err := n.make(r, settings); err != nil {
		return VolumeStatus{}, fmt.Errorf("create volume %q: %w", r.Name, err)
	}
	n.log.Info("volume created", "volume", r.Name, "bytes", r.Size, "peers", settings.names())
	h := n.open(r.Name)
	return h.status(), nil
}

// settle judges a request and gives the settings to store.
func (n *Node) settle(r CreateRequest) (Settings, error) {
	err := checkName("volume", r.Name)
	if r.Size <= 0 || r.Size%blockSize != 0 {
		err = errors.Join(err, fmt.Errorf("the size is %d bytes: it must be a multiple of %d, and more than 0", r.Size, blockSize))
	}
	s := Settings{
		Format: settingsFormat, Peers: r.Peers, Store: r.Store, Direct: r.Direct, Journal: r.Journal,
		PendingLimit: r.PendingLimit, PeerTimeout: r.PeerTimeout, PeerLatencyBudget: r.PeerLatencyBudget, ResyncRate: r.ResyncRate, ResyncUndo: r.ResyncUndo, SnapshotLimit: r.SnapshotLimit, OnIOError: r.OnIOError,
		MinInSync: r.MinInSync, OnNoQuorum: r.OnNoQuorum,
		SyncInterval: r.SyncInterval, RetryInterval: r.RetryInterval,
	}
	over := n.cfg.Volumes[r.Name]
	if r.Store != "" && over.Store != nil && r.Store != *over.Store {
		err = errors.Join(err, fmt.Errorf("store %s was asked for, but the config file says %s: make them agree", r.Store, *over.Store))
	}
	if r.Journal != "" && over.Journal != nil && r.Journal != *over.Journal {
		err = errors.Join(err, fmt.Errorf("journal %s was asked for, but the config file says %s: make them agree", r.Journal, *over.Journal))
	}
	// Stored too, for they say what delete is to remove.
	override(&s.Store, over.Store)
	override(&s.Journal, over.Journal)
	if len(r.Peers) > 0 && over.Peers != nil && !slices.Equal(s.names(), over.Peers) {
		err = errors.Join(err, fmt.Errorf("peers %v were asked for, but the config file says %v: make them agree", s.names(), over.Peers))
	}
	effective := n.effective(r.Name, s)
	err = errors.Join(err, effective.check(n.cfg.Node))
	for _, p := range effective.Peers {
		if plain := n.cfg.Peer.plaintext(p.Address); p.Address != "" && plain != nil {
			err = errors.Join(err, fmt.Errorf("peer %q: %w", p.Name, plain))
		}
	}
	if len(r.Peers) == 0 {
		s.Peers = effective.Peers
	}
	if err != nil {
		return Settings{}, refuse(CodeBadRequest, "volume %q can't be created: %v", r.Name, err)
	}
	return s, nil
}

// effective is what is stored with a volume under what the configuration says.
func (n *Node) effective(name string, s Settings) Settings {
	return n.cfg.Volumes[name].apply(s, n.cfg.Nodes)
}

// make builds the volume's directory under its temporary name and renames it,
// synced, into place.
func (n *Node) make(r CreateRequest, s Settings) (err error) {
	tmp := n.dir.creating(r.Name)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	undo := []string{tmp}
	defer func() {
		for _, path := range undo {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}()
	if err := writeSettings(tmp, s); err != nil {
		return err
	}
	journal, err := openJournal(s, disk.OS)
	if err != nil {
		return err
	}
	made, err := makeStore(storePath(tmp, s), r, n.effective(r.Name, s).Direct)
	if err != nil {
		return err
	}
	if made {
		undo = append(undo, storePath(tmp, s))
	}
	fsys, err := disk.OS(tmp)
	if err != nil {
		return err
	}
	o := n.replica(r)
	o.Journal = journal
	if err := n.engine.create(fsys, o); err != nil {
		return errors.Join(err, eraseJournal(tmp, s))
	}
	err = syncDir(tmp)
	if err == nil {
		err = os.Rename(tmp, n.dir.volume(r.Name))
	}
	if err != nil {
		return errors.Join(err, eraseJournal(tmp, s))
	}
	undo = nil
	return n.dir.sync()
}

func (n *Node) replica(r CreateRequest) mirror.CreateOptions {
	return mirror.CreateOptions{
		Node: n.cfg.Node, Volume: r.Name, Size: r.Size, JournalSize: r.JournalSize,
		Protocol: r.Protocol, NoWriteCache: r.NoWriteCache,
	}
}
