package node

import (
	"context"
	"slices"
	"strings"

	"github.com/lockstep-storage/lockstep/mirror"
)

// A turn is taken by one at a time; its capacity is 1. Unlike a mutex, waiting
// for it can be given up.
type turn chan struct{}

func (t turn) try() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { <-t }

func errBusy(name string) error {
	return refuse(CodeBusy, "another change of volume %q is under way: try again", name)
}

// find gives a volume of this node, open or not.
func (n *Node) find(name string) (*hosted, error) {
	if h := n.volumes.get(name); h != nil {
		return h, nil
	}
	var names []string
	for _, h := range n.volumes.list() {
		names = append(names, h.name)
	}
	return nil, refuse(CodeNotFound, "node %q has no volume %q%s", n.cfg.Node, name, didYouMean(name, names))
}

func (n *Node) findOpen(name string) (*hosted, error) {
	h, err := n.find(name)
	if err == nil && h.volume == nil {
		err = refuse(CodeRefused, "%s", h.problem)
	}
	return h, err
}

// change runs f on an open volume, unless another change of it is under way.
func (n *Node) change(name string, f func(v volume) error) (VolumeStatus, error) {
	h, err := n.findOpen(name)
	if err != nil {
		return VolumeStatus{}, err
	}
	if n.stopping.Load() {
		return VolumeStatus{}, errStopping
	}
	if !h.change.TryLock() {
		return VolumeStatus{}, errBusy(name)
	}
	defer h.change.Unlock()
	if err := f(h.volume); err != nil {
		return VolumeStatus{}, err
	}
	return h.status(), nil
}

func (n *Node) promote(ctx context.Context, name string, r PromoteRequest) (VolumeStatus, error) {
	st, err := n.change(name, func(v volume) error { return v.Promote(ctx, mirror.PromoteOptions{Force: r.Force}) })
	if err == nil {
		n.log.Info("volume promoted", "volume", name, "force", r.Force)
	}
	return st, err
}

func (n *Node) demote(ctx context.Context, name string) (VolumeStatus, error) {
	st, err := n.change(name, func(v volume) error { return v.Demote(ctx) })
	if err == nil {
		n.log.Info("volume demoted", "volume", name)
	}
	return st, err
}

func (n *Node) connect(name string, r PeerRequest) (VolumeStatus, error) {
	return n.withPeer(name, r, volume.Connect)
}

func (n *Node) disconnect(name string, r PeerRequest) (VolumeStatus, error) {
	return n.withPeer(name, r, volume.Disconnect)
}

// withPeer calls f for the peer that is named, or "" for all.
func (n *Node) withPeer(name string, r PeerRequest, f func(v volume, peer string) error) (VolumeStatus, error) {
	return n.change(name, func(v volume) error {
		var peers []string
		for _, p := range v.Status().Peers {
			peers = append(peers, p.Node)
		}
		if r.Peer != "" && !slices.Contains(peers, r.Peer) {
			return refuse(CodeNotFound, "volume %q has no peer %q%s; its peers: %s", name, r.Peer, didYouMean(r.Peer, peers), orNone(peers))
		}
		return f(v, r.Peer)
	})
}

func orNone(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}
