package mirror

import (
	"context"
	"fmt"

	"github.com/lockstep-storage/lockstep/bitmap"
)

// How a split-brain ends: one side gives up what it wrote (split_policy.go says
// which), and is resynced from the other. The blocks to copy are those that either
// side wrote (9f): the loser names its own, which become part of the winner's
// out-of-sync bitmap, durably, before the loser is told to go on.

// A keepWord says that one side of a split-brain is to be kept: an operator's word,
// or what was settled before. It holds for what was known of the loser, and is void
// if that wrote more since.
type keepWord struct {
	keep   string
	common Position
	end    Position // of the loser's history
}

// party is what we bring to the settlement.
func (l *link) party(common Position) splitParty {
	v, d := l.v, &l.mine.Description
	p := splitParty{node: d.Node, role: d.Role, whole: d.Resync == nil, policies: v.opts.Split.normal()}
	v.mu.Lock()
	defer v.mu.Unlock()
	word := l.peer.keep
	if word == nil {
		return p
	}
	loser := d
	if word.keep == d.Node {
		loser = &l.theirs
	}
	if word.common == common && word.end == loser.History.Position(loser.End) {
		p.keep = word.keep
	} else {
		l.peer.keep = nil
		v.log.Warn("an operator's word to keep a side of a split-brain is void: the other wrote more since, or it is another split-brain", "keep", word.keep)
	}
	return p
}

// settle acts on what the two sides of a split-brain told each other. It returns
// nil if one gives up what it wrote; the verdict then says so.
func (l *link) settle(m *metSplit, mine splitParty) error {
	c := &l.verdict
	theirs := splitParty{node: l.theirs.Node, role: l.theirs.Role, whole: l.theirs.Resync == nil, policies: m.told.Policies.normal(), keep: m.told.Keep}
	s := settleSplit(c, &mine, &theirs)
	l.v.mu.Lock()
	if s.loser != Neither || c.GivesWay == Neither {
		c.Reason += "; " + s.reason
	}
	m.result.Reason = c.Reason
	if s.loser != Neither && !s.demote {
		l.peer.split = m // until one is Primary and the resync begins
		l.loser, c.NeedsResync = s.loser, true
		c.Verdict = PeerBehind
		if s.loser == Ours {
			// The other may have to be promoted first, and another policy be asked.
			c.Verdict, l.peer.keep = WeAreBehind, l.v.keepPeer(l.peer, c.Common)
		}
	}
	l.v.mu.Unlock()
	switch {
	case s.loser == Neither:
		l.v.mu.Lock()
		l.v.emit(EventSplitBrain, l.peer.node, c.Reason)
		l.v.mu.Unlock()
		return &refusal{CodeSplitBrain, c.Reason}
	case s.demote && s.loser == Theirs:
		return fmt.Errorf("%s; it is being demoted", s.reason)
	case s.demote:
		return l.demoteLoser(s.reason)
	}
	l.v.log.Warn("a split-brain is settled", "peer", l.peer.node, "reason", c.Reason)
	return nil
}

// demoteLoser demotes this node, whose side a policy gives up: its clients are
// disconnected first (10d). What they wrote until then is given up with the rest.
func (l *link) demoteLoser(reason string) error {
	v := l.v
	v.log.Warn("this Primary is demoted, and its clients disconnected", "reason", reason)
	ctx, cancel := context.WithTimeout(v.ctx, 4*v.opts.PeerTimeout)
	defer cancel()
	if err := v.Demote(ctx); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	l.peer.keep = v.keepPeer(l.peer, l.verdict.Common)
	return errAgain
}

// keepPeer is the word that a peer's side is kept, and ours as it is now given up.
// v.mu is held.
func (v *Volume) keepPeer(p *peer, c LSN) *keepWord {
	h := v.super.History
	return &keepWord{keep: p.node, common: h.Position(c), end: h.Position(v.end)}
}

// losingBlocks are what the winner of a split-brain has to copy because the loser,
// which we are, wrote it.
func (l *link) losingBlocks() *bitmap.Blocks {
	if l.diverged != nil {
		return l.diverged
	}
	all := bitmap.NewBlocks(l.v.store.Size())
	all.SetAll()
	return all
}

// closeSplit: the loser has given its side up, durably, and the two are one again.
func (l *link) closeSplit() {
	l.v.mu.Lock()
	l.split = nil
	l.v.mu.Unlock()
	l.peer.forgetSplit()
}

// giveUp is what the loser of a split-brain does before its first block is
// overwritten: what it shares with the winner is brought into the store, under
// which its own writes may lie.
func (l *link) giveUp(c LSN) error {
	v := l.v
	if err := v.preserveLosing(l.peer, c, l.losingBlocks()); err != nil {
		return fmt.Errorf("preserve what is given up: %w", err)
	}
	if err := l.markCut(c); err != nil {
		return err
	}
	return v.applyThrough(l.ctx, c)
}

// markCut makes the replica Inconsistent before anything of a write is applied
// that was cut at the common point: the Primary sends what lies past it, and
// nothing before. Its base is, until the cut parts are applied, what lies before
// that write.
func (l *link) markCut(common LSN) error {
	v := l.v
	v.mu.Lock()
	whole := v.queue.wholeTo(common)
	v.mu.Unlock()
	if whole == common {
		return nil
	}
	base := l.mine.Description.History.Position(whole)
	return v.commitSuper(func(sb *Superblock) {
		sb.Disk, sb.Resync = Inconsistent, &ResyncMark{Base: base, Source: l.peer.node}
	})
}

// preserveLosing is called with the blocks that only this side of a split-brain
// wrote, before the first of them is overwritten, and while its journal still has
// what it has not applied. An error keeps everything as it is.
//
// Today it preserves nothing: what is given up is lost, which an operator has to
// have said, or a policy of his.
func (v *Volume) preserveLosing(p *peer, c LSN, blocks *bitmap.Blocks) error {
	v.mu.Lock()
	writes := v.super.History.Writes(c+1, v.end)
	v.mu.Unlock()
	v.log.Warn("gives up its side of a split-brain; it is not kept", "peer", p.node, "after", c, "writes", writes, "bytes", blocks.Count())
	return nil
}
