package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ResolveOptions say how a split-brain is to end.
type ResolveOptions struct {
	// Keep is the node whose writes are kept: this one, or a peer.
	Keep string
	// DiscardLosingWrites: the other side's writes are kept nowhere. Else they go to a
	// snapshot on its node, which stays until it is deleted.
	DiscardLosingWrites bool
}

// A SplitPlan is what ResolveSplit would do, or did.
type SplitPlan struct {
	Volume string `json:"volume"`
	Keep   string `json:"keep"`
	Peer   string `json:"peer"` // with whom the split-brain is
	// Lost is the side that gives up what it wrote.
	Lost SplitSide `json:"lost"`
	// Since is when the two parted; zero if that is not known.
	Since time.Time `json:"since,omitzero"`
	// Preserved is the snapshot, on the losing side's node, that keeps its writes; "" is
	// none: they are lost. Where there is one of that name already it gets a number.
	Preserved string `json:"preserved,omitempty"`
	// Demotes: the loser is this node and Primary; it is demoted, and its clients
	// are disconnected.
	Demotes bool `json:"demotes"`
	// Next are the commands that are left to do, in order.
	Next []SplitStep `json:"next"`
}

// A SplitStep is one command for an operator.
type SplitStep struct {
	Node    string `json:"node"` // on which it is typed
	Command string `json:"command"`
}

// A ResolveRefusedError is why a split-brain is not resolved.
type ResolveRefusedError struct {
	Volume string
	Reason string
}

func (e *ResolveRefusedError) Error() string {
	return fmt.Sprintf("the split-brain of volume %q is not resolved: %s", e.Volume, e.Reason)
}

// PlanResolve says what ResolveSplit would do, and does nothing of it. Its error is
// a *ResolveRefusedError if there is nothing to resolve.
func (v *Volume) PlanResolve(o ResolveOptions) (SplitPlan, error) {
	keep := o.Keep
	refuse := func(format string, a ...any) (SplitPlan, error) {
		return SplitPlan{}, &ResolveRefusedError{Volume: v.opts.Volume, Reason: fmt.Sprintf(format, a...)}
	}
	list, err := v.SplitBrains()
	if err != nil {
		return SplitPlan{}, err
	}
	if len(list) == 0 {
		return refuse("no split-brain is known on node %q", v.opts.Node)
	}
	at := slices.IndexFunc(list, func(r SplitReport) bool { return r.Peer == keep })
	switch {
	case at < 0 && keep != v.opts.Node:
		var nodes []string
		for _, r := range list {
			nodes = append(nodes, r.Peer)
		}
		return refuse("node %q has no part in it: keep %s or %s", keep, v.opts.Node, strings.Join(nodes, " or "))
	case at < 0 && len(list) > 1:
		return refuse("node %q is in a split-brain with %d peers: resolve it there", keep, len(list))
	case at < 0:
		at = 0
	}
	r := &list[at]
	p := SplitPlan{Volume: r.Volume, Keep: keep, Peer: r.Peer, Lost: r.Theirs, Since: r.Parted, Next: []SplitStep{}}
	kept := &r.Ours
	if keep != v.opts.Node {
		p.Lost, kept = r.Ours, &r.Theirs
	}
	for _, s := range []*SplitSide{&p.Lost, kept} {
		if s.Disk == Inconsistent || s.Disk == Failed || s.Disk == Diskless {
			return refuse("the replica of node %q is %v: delete it and create it anew, or repair it", s.Node, s.Disk)
		}
	}
	if kept.Writes == 0 && kept.Role != Primary {
		return refuse("node %q wrote nothing since and is Secondary, so it gives way by itself, and nothing is lost: connect the two", kept.Node)
	}
	if !o.DiscardLosingWrites && p.Lost.Writes > 0 {
		p.Preserved = losingName(nil, p.Lost.End)
	}
	p.Demotes = p.Lost.Node == v.opts.Node && p.Lost.Role == Primary
	p.steps(v.opts.Node, kept.Role)
	return p, nil
}

// steps are what is left to do once self has its operator's word.
func (p *SplitPlan) steps(self string, keptRole Role) {
	step := func(node, format string, a ...any) {
		p.Next = append(p.Next, SplitStep{Node: node, Command: fmt.Sprintf("lockstep "+format, a...)})
	}
	switch {
	case p.Lost.Node != self && p.Lost.Role == Primary: // it has to be demoted there
		discard := ""
		if p.Preserved == "" {
			discard = " --discard-losing-writes"
		}
		step(p.Peer, "split resolve %s --keep %s%s", p.Volume, p.Keep, discard)
	default:
		step(p.Peer, "connect %s", p.Volume)
	}
	if keptRole != Primary {
		step(p.Keep, "promote %s", p.Volume)
	}
}

// ResolveSplit ends a split-brain: the side that is not kept gives up what it wrote,
// and is resynced from the other as soon as the two meet and the kept one is
// Primary. What it gives up goes to a snapshot first, unless o says otherwise. A loser that is Primary here is demoted first, which disconnects its
// clients. The word is in memory: it is void after a restart before the two met,
// and if the loser writes more.
//
// It has to be let in by the other node, too (SplitPlan.Next). Its error is a
// *ResolveRefusedError if nothing was done.
func (v *Volume) ResolveSplit(ctx context.Context, o ResolveOptions) (SplitPlan, error) {
	plan, err := v.PlanResolve(o)
	if err != nil {
		return plan, err
	}
	if plan.Demotes {
		if err := v.Demote(ctx); err != nil {
			return plan, err
		}
	}
	p := v.peers[plan.Peer]
	v.mu.Lock()
	defer v.mu.Unlock()
	m := p.split
	if m == nil {
		return plan, &ResolveRefusedError{Volume: v.opts.Volume, Reason: "it is over: the two met in the meantime"}
	}
	word := v.keepPeer(p, m.result.Common)
	if plan.Keep == v.opts.Node {
		d := &m.hello.Description
		word.keep, word.end = plan.Keep, d.History.Position(d.End)
	}
	word.discard = o.DiscardLosingWrites
	p.keep = word
	p.closeLink(CodeBusy, "an operator resolves the split-brain")
	p.wantAgain()
	v.broadcast()
	v.log.Warn("an operator resolves the split-brain", "keep", plan.Keep, "loses", plan.Lost.Node, "writes", plan.Lost.Writes)
	return plan, nil
}
