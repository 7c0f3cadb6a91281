package node

import (
	"context"

	"github.com/lockstep-storage/lockstep/mirror"
)

// splitBrains says what is known of the split-brains that a volume is in.
func (n *Node) splitBrains(name string) ([]mirror.SplitReport, error) {
	h, err := n.findOpen(name)
	if err != nil {
		return nil, err
	}
	return h.volume.SplitBrains()
}

// resolve ends a split-brain in favour of one side, or says what that would do.
func (n *Node) resolve(ctx context.Context, name string, r ResolveRequest) (plan mirror.SplitPlan, err error) {
	o := mirror.ResolveOptions{Keep: r.Keep, DiscardLosingWrites: r.DiscardLosingWrites}
	if r.DryRun {
		h, err := n.findOpen(name)
		if err != nil {
			return plan, err
		}
		return h.volume.PlanResolve(o)
	}
	_, err = n.change(name, func(v volume) (err error) {
		plan, err = v.ResolveSplit(ctx, o)
		return err
	})
	if err == nil {
		n.log.Warn("split-brain is resolved by an operator", "volume", name, "keep", r.Keep, "loses", plan.Lost.Node)
	}
	return plan, err
}
