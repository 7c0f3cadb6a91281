package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/target"
)

// Snapshot is one snapshot of this node's replica of a volume.
type Snapshot struct {
	mirror.SnapshotStatus
	// Export is the read-only export under which it is read; "" if it is not.
	Export string `json:"export,omitempty"`
}

// snapshots lists those of a volume, oldest first.
func (n *Node) snapshots(name string) ([]Snapshot, error) {
	h, err := n.findOpen(name)
	if err != nil {
		return nil, err
	}
	list := []Snapshot{}
	for _, s := range h.volume.Snapshots() {
		x := Snapshot{SnapshotStatus: s}
		if s.Image != nil {
			x.Export = snapshotExport(name, n.cfg.Node, s.Name)
		}
		list = append(list, x)
	}
	return list, nil
}

// snapshot gives one of them.
func (n *Node) snapshot(name, snapshot string) (Snapshot, error) {
	list, err := n.snapshots(name)
	if err != nil {
		return Snapshot{}, err
	}
	var names []string
	for _, s := range list {
		if s.Name == snapshot {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Snapshot{}, refuse(CodeNotFound, "volume %q has no snapshot %q on node %q%s", name, snapshot, n.cfg.Node, didYouMean(snapshot, names))
}

// changeSnapshot runs f on a volume and gives what became of one of its snapshots.
func (n *Node) changeSnapshot(name, snapshot string, f func(v volume) error) (Snapshot, error) {
	_, err := n.change(name, func(v volume) error { return snapshotError(f(v)) })
	if err != nil {
		return Snapshot{}, err
	}
	return n.snapshot(name, snapshot)
}

// snapshotError gives an error of the volume its code.
func snapshotError(err error) error {
	var known *Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, mirror.ErrNoSnapshot):
		return refuse(CodeNotFound, "%v", err)
	case errors.Is(err, mirror.ErrSnapshotExists):
		return refuse(CodeExists, "%v", err)
	case errors.Is(err, mirror.ErrFailed):
		return err
	}
	return refuse(CodeRefused, "%v", err)
}

func (n *Node) createSnapshot(ctx context.Context, name string, r SnapshotRequest) (Snapshot, error) {
	return n.changeSnapshot(name, r.Name, func(v volume) error {
		_, err := v.CreateSnapshot(ctx, r.Name)
		return err
	})
}

func (n *Node) deleteSnapshot(name, snapshot string) error {
	if _, err := n.snapshot(name, snapshot); err != nil {
		return err
	}
	_, err := n.change(name, func(v volume) error { return snapshotError(v.DeleteSnapshot(snapshot)) })
	return err
}

// exportSnapshot exports one read-only, until it is deleted or lost.
func (n *Node) exportSnapshot(ctx context.Context, name, snapshot string, r ExportRequest) (Snapshot, error) {
	if !r.ReadOnly {
		return Snapshot{}, refuse(CodeBadRequest, "a snapshot is exported read-only, and has to be asked for as that")
	}
	if _, err := n.snapshot(name, snapshot); err != nil {
		return Snapshot{}, err
	}
	return n.changeSnapshot(name, snapshot, func(v volume) error {
		image, err := v.OpenSnapshot(snapshot)
		if err != nil {
			return err
		}
		return n.addImage(ctx, target.Export{
			Name: snapshotExport(name, n.cfg.Node, snapshot), Device: image,
			Description: fmt.Sprintf("snapshot %s of volume %s on node %s, read-only", snapshot, name, n.cfg.Node),
		}, image)
	})
}

func (n *Node) unexportSnapshot(ctx context.Context, name, snapshot string) (Snapshot, error) {
	return n.changeSnapshot(name, snapshot, func(volume) error {
		return n.endImage(ctx, snapshotExport(name, n.cfg.Node, snapshot), fmt.Sprintf("snapshot %q of volume %q", snapshot, name))
	})
}

// planSnapshotRollback says what a rollback to a snapshot would do.
func (n *Node) planSnapshotRollback(name, snapshot string) (mirror.SnapshotRollbackPlan, error) {
	if _, err := n.snapshot(name, snapshot); err != nil {
		return mirror.SnapshotRollbackPlan{}, err
	}
	h, err := n.findOpen(name)
	if err != nil {
		return mirror.SnapshotRollbackPlan{}, err
	}
	plan, err := h.volume.PlanSnapshotRollback(snapshot)
	if err != nil {
		err = refuse(CodeRefused, "%v", err)
	}
	return plan, err
}

// rollbackToSnapshot has a volume be what it was. Whoever asked may go away: half of
// it is worse than all.
func (n *Node) rollbackToSnapshot(ctx context.Context, name, snapshot string) (Snapshot, error) {
	was, err := n.snapshot(name, snapshot)
	if err != nil {
		return Snapshot{}, err
	}
	s, err := n.changeSnapshot(name, snapshot, func(v volume) error {
		_, err := v.RollbackToSnapshot(context.WithoutCancel(ctx), snapshot)
		return err
	})
	if known := (*Error)(nil); was.Before && errors.As(err, &known) && known.Code == CodeNotFound {
		was.Rollback = nil
		return was, nil // it has done its work, and is dropped
	}
	return s, err
}

// giveUpRollback takes a volume that is half rolled back to a snapshot as it is.
func (n *Node) giveUpRollback(name string) (VolumeStatus, error) {
	return n.change(name, func(v volume) error { return snapshotError(v.GiveUpRollback()) })
}
