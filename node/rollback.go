package node

import (
	"context"

	"github.com/lockstep-storage/lockstep/mirror"
)

// planRollback says what rollback would do.
func (n *Node) planRollback(name string) (mirror.RollbackPlan, error) {
	h, err := n.findOpen(name)
	if err != nil {
		return mirror.RollbackPlan{}, err
	}
	return h.volume.PlanRollback()
}

// rollback takes a replica that is being resynced back to what it was before.
func (n *Node) rollback(ctx context.Context, name string) (VolumeStatus, error) {
	return n.change(name, func(v volume) error {
		_, err := v.Rollback(ctx)
		return err
	})
}
