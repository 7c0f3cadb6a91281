package node

import "github.com/lockstep-storage/lockstep/mirror"

// pauseResync holds a volume's bitmap resyncs back, or lets them go on.
func (n *Node) pauseResync(name string, pause bool) (VolumeStatus, error) {
	return n.change(name, func(v volume) error {
		if pause {
			v.PauseResync()
		} else {
			v.ResumeResync()
		}
		return nil
	})
}

// orderResyncs holds the resync of each volume with resync-after back while the
// volume that it names is resynced, with whichever peer, paused or not. It is called
// whenever a resync begins or ends; one that began at the same moment as that which
// goes first may have moved a few blocks by then.
func (n *Node) orderResyncs() {
	n.resyncs.Lock()
	defer n.resyncs.Unlock()
	for name, o := range n.cfg.Volumes {
		after := o.Resync.After
		h := n.volumes.get(name)
		if after == "" || h == nil || h.volume == nil {
			continue
		}
		if first := n.volumes.get(after); first == nil || first.volume == nil || !resyncing(first.volume.Status()) {
			after = ""
		}
		h.volume.HoldResync(after)
	}
}

func resyncing(st mirror.Status) bool {
	for _, p := range st.Peers {
		switch p.Replication {
		case mirror.SyncSource, mirror.SyncTarget, mirror.PausedSyncS, mirror.PausedSyncT:
			return true
		}
	}
	return false
}
