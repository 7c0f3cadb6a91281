package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	keep    string
	discard bool // what the loser wrote is not kept either
	common  Position
	end     Position // of the loser's history
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
		p.keep, p.discard = word.keep, word.discard
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
	theirs := splitParty{node: l.theirs.Node, role: l.theirs.Role, whole: l.theirs.Resync == nil, policies: m.told.Policies.normal(), keep: m.told.Keep, discard: m.told.Discard}
	s := settleSplit(c, &mine, &theirs)
	l.v.mu.Lock()
	if s.loser != Neither || c.GivesWay == Neither {
		c.Reason += "; " + s.reason
	}
	m.result.Reason = c.Reason
	if s.loser != Neither && !s.demote {
		l.peer.split = m // until one is Primary and the resync begins
		l.loser, l.discard, c.NeedsResync = s.loser, s.discard, true
		c.Verdict = PeerBehind
		if s.loser == Ours {
			// The other may have to be promoted first, and another policy be asked.
			c.Verdict, l.peer.keep = WeAreBehind, l.v.keepPeer(l.peer, c.Common)
			l.peer.keep.discard = s.discard
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
// overwritten: its side goes to a snapshot, unless an operator discards it, and what
// it shares with the winner is brought into the store, under which its own writes
// may lie.
func (l *link) giveUp(c LSN) error {
	v := l.v
	if err := l.keepLosing(c); err != nil {
		return fmt.Errorf("keep what is given up: %w", err)
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

// keepLosing keeps this side of a split-brain, which the peer's takes the place of,
// in a snapshot (P4): all that the replica has, its journal included, as OpenImage
// shows it. It stays until an operator deletes it. A handshake that comes here again
// finds the snapshot that the one before made. An error keeps everything as it is.
func (l *link) keepLosing(c LSN) error {
	v := l.v
	v.mu.Lock()
	end := v.queue.wholeTo(v.end)
	at, writes := v.super.History.Position(end), v.super.History.Writes(c+1, v.end)
	entries := v.super.Snapshots
	v.mu.Unlock()
	log := v.log.With("peer", l.peer.node, "after", c, "writes", writes)
	switch {
	case writes == 0:
		return nil
	case l.discard:
		log.Warn("gives up its side of a split-brain; an operator wants it kept nowhere")
		return nil
	}
	if i := slices.IndexFunc(entries, func(e SnapshotEntry) bool { return e.Peer == l.peer.node && e.At == at && e.Lost == "" }); i >= 0 {
		return v.commitSuper(func(sb *Superblock) {
			sb.Snapshots = editSnapshot(sb.Snapshots, entries[i].ID, func(e *SnapshotEntry) { e.Settling = true })
		})
	}
	if err := v.syncNow(); err != nil { // what is kept is what a restart would find
		return err
	}
	e := SnapshotEntry{Name: losingName(entries, end), Peer: l.peer.node, Settling: true}
	_, err := v.takeSnapshot(e, func() (LSN, error) {
		if l.peer.link != l || v.queue.wholeTo(v.end) != end {
			return 0, errAgain
		}
		return end, nil
	})
	switch {
	case errors.Is(err, errAgain) || v.failed() != nil:
		return err
	case err != nil:
		return &refusal{CodeDisconnected, fmt.Sprintf("the losing side of the split-brain, %d writes, could not be kept (%v): mend that and run 'lockstep connect %s'; "+
			"or resolve it with --discard-losing-writes", writes, err, v.opts.Volume)}
	}
	log.Warn("gives up its side of a split-brain, and keeps it in a snapshot", "snapshot", e.Name)
	return nil
}

// losingName names the snapshot of a losing side that ends at end.
func losingName(entries []SnapshotEntry, end LSN) string {
	name := fmt.Sprintf("split-%d", end)
	for n := 2; slices.ContainsFunc(entries, func(e SnapshotEntry) bool { return e.Name == name }); n++ {
		name = fmt.Sprintf("split-%d-%d", end, n)
	}
	return name
}
