package node

import (
	"context"
	"errors"

	"github.com/lockstep-storage/lockstep/mirror"
)

// planRepair says what repair would do. That only force would go on is part of
// the plan, and no error.
func (n *Node) planRepair(name string) (mirror.RepairPlan, error) {
	h, err := n.find(name)
	if err != nil {
		return mirror.RepairPlan{}, err
	}
	if !h.change.TryLock() {
		return mirror.RepairPlan{}, errBusy(name)
	}
	defer h.change.Unlock()
	plan, err := n.judgeRepair(h, mirror.RepairOptions{})
	if r, ok := errors.AsType[*mirror.RepairRefusedError](err); ok && !r.Hopeless {
		return r.Plan, nil
	}
	return plan, err
}

func (n *Node) judgeRepair(h *hosted, r mirror.RepairOptions) (mirror.RepairPlan, error) {
	if h.volume != nil {
		return h.volume.PlanRepair(r)
	}
	o, err := n.options(h.name)
	if err != nil {
		return mirror.RepairPlan{}, err
	}
	return n.engine.plan(o, r)
}

// repair closes a volume that is open, gives up its journal, and opens it again.
func (n *Node) repair(ctx context.Context, name string, r RepairRequest) (VolumeStatus, error) {
	if n.stopping.Load() {
		return VolumeStatus{}, errStopping
	}
	if !n.making.try() {
		return VolumeStatus{}, refuse(CodeBusy, "another volume is being created, deleted or repaired: try again")
	}
	defer n.making.give()
	h, err := n.find(name)
	if err != nil {
		return VolumeStatus{}, err
	}
	if !h.change.TryLock() {
		return VolumeStatus{}, errBusy(name)
	}
	defer h.change.Unlock()
	options := mirror.RepairOptions{Force: r.Force, JournalSize: r.JournalSize}
	if _, err := n.judgeRepair(h, options); err != nil {
		return VolumeStatus{}, err
	}
	if err := n.retire(ctx, h); err != nil {
		return VolumeStatus{}, err
	}
	o, err := n.options(name)
	if err == nil {
		_, err = n.engine.repair(o, options)
	}
	if err == nil {
		n.log.Info("volume repaired", "volume", name, "force", r.Force)
	}
	return n.open(name).status(), err
}
