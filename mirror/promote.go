package mirror

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/journal"
)

// PromoteOptions say how far Promote may go.
type PromoteOptions struct {
	// Force promotes although it is unknown whether another replica went on: an
	// operator's word that the others are dead, or that what they have is to be
	// given up. It is recorded in the history (invariant 8).
	Force bool
}

// An UnsafePromotionError lists what would have to be known before this replica
// may lead without force.
type UnsafePromotionError struct {
	Volume  string
	Unknown []string // sentences
	// Hopeless: force would not help either.
	Hopeless bool
}

func (e *UnsafePromotionError) Error() string {
	return fmt.Sprintf("volume %q cannot be promoted: %s", e.Volume, strings.Join(e.Unknown, "; "))
}

// Promote makes this replica Primary: it serves once its generation record is
// durable on every member of its in-sync set, which commits everything before
// (replication.md 2 and 10). It does nothing on a Primary.
//
// Without Force it returns an *UnsafePromotionError unless every configured
// replica is connected and none is ahead, or those that are absent are excluded
// by this replica's own superblock.
//
// If ctx ends first the error says what the volume waits for; it stays Primary
// and serves as soon as it can.
func (v *Volume) Promote(ctx context.Context, o PromoteOptions) error {
	if o.Force {
		v.awaitPrimaryGone(ctx)
		if err := v.fenceAbsent(); err != nil {
			return fmt.Errorf("promote volume %q by force: %w", v.opts.Volume, err)
		}
	} else {
		v.awaitSafe(ctx)
	}
	v.change.Lock()
	v.mu.Lock()
	if v.role == Primary {
		v.mu.Unlock()
		v.change.Unlock()
		return v.awaitServing(ctx)
	}
	forced := o.Force && v.judgePromotion(false) != nil
	unsafe := v.judgePromotion(o.Force)
	set := v.setForPromotion()
	v.mu.Unlock()
	if unsafe == nil {
		if err := v.becomePrimary(set, forced); err != nil {
			v.change.Unlock()
			return fmt.Errorf("promote volume %q: %w", v.opts.Volume, err)
		}
	}
	v.change.Unlock()
	if unsafe != nil {
		return unsafe
	}
	return v.awaitServing(ctx)
}

// awaitSafe gives a peer that was demoted just now the moment in which it
// connects again, so that a promotion may follow at once.
func (v *Volume) awaitSafe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, v.opts.PeerTimeout/4)
	defer cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.await(ctx, func() (bool, error) { // whatever is still unsafe, Promote says
		return v.role == Primary || v.failure != nil || v.judgePromotion(false) == nil, nil
	})
}

// awaitPrimaryGone gives a connection to a Primary that may have just died the
// time to end: a live one is not overridden, not even by force.
func (v *Volume) awaitPrimaryGone(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, v.opts.PeerTimeout*5/4)
	defer cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.await(ctx, func() (bool, error) {
		for _, p := range v.peers {
			if p.link != nil && p.link.met && p.link.theirs.Role == Primary {
				return false, nil
			}
		}
		return true, nil
	})
}

func (v *Volume) awaitServing(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.await(ctx, func() (bool, error) {
		if v.failure != nil {
			return false, v.failure
		}
		if v.role != Primary || v.closing {
			return false, errors.New("the role was taken away again")
		}
		return v.serving, nil
	})
	if err != nil {
		return fmt.Errorf("promote volume %q: %w (%s)", v.opts.Volume, err, v.waitingFor())
	}
	return nil
}

// judgePromotion returns an *UnsafePromotionError, or nil. v.mu is held.
func (v *Volume) judgePromotion(force bool) error {
	never := &UnsafePromotionError{Volume: v.opts.Volume, Hopeless: true}
	unsafe := &UnsafePromotionError{Volume: v.opts.Volume}
	if v.failure != nil {
		never.Unknown = append(never.Unknown, v.failure.Error())
	}
	if v.super.Disk == Inconsistent {
		why := "its data is Inconsistent: " + v.super.Resync.String()
		if _, err := v.planRollback(); err == nil {
			why += fmt.Sprintf("; 'lockstep rollback %s' takes it back to what it was before", v.opts.Volume)
		}
		never.Unknown = append(never.Unknown, why)
	}
	if (v.super.Disk == Outdated || v.super.Excluded) && !v.supersedes() {
		unsafe.Unknown = append(unsafe.Unknown, "its data is Outdated: others are known to have gone on without it")
	}
	for _, node := range v.opts.Peers {
		p := v.peers[node]
		s, hopeless := p.unknown()
		switch {
		case s == "":
		case hopeless:
			never.Unknown = append(never.Unknown, s)
		default:
			unsafe.Unknown = append(unsafe.Unknown, s)
		}
	}
	switch {
	case len(never.Unknown) > 0:
		return never
	case len(unsafe.Unknown) > 0 && !force:
		return unsafe
	}
	if len(unsafe.Unknown) > 0 {
		v.log.Warn("promotion is forced", "unknown", unsafe.Unknown)
	}
	return nil
}

// supersedes reports whether this replica may lead although it was excluded: the
// members of the set that excluded it are all here, Secondary, with that set or a
// newer one in their superblocks, and each has stood down because it lost records
// that this replica has; nobody else has more either. So all that they flushed is
// here, and of what they had only in memory as much as anybody has
// (replication.md 10). v.mu is held.
func (v *Volume) supersedes() bool {
	sb := &v.super
	for _, p := range v.peers {
		l := p.link
		if l == nil || !l.met || l.theirs.Role == Primary || !l.theirs.Excluded || l.theirs.Resync != nil ||
			l.verdict.Verdict != PeerBehind && l.verdict.Verdict != InSync {
			return false
		}
	}
	for _, m := range sb.Set {
		p := v.peers[m.Node]
		if p == nil || p.link.theirs.SetVersion < sb.SetVersion || !setHasNode(p.link.theirs.Set, m.Node) {
			return false
		}
	}
	return len(sb.Set) > 0
}

// unknown says what of this peer speaks against a promotion here. v.mu is held.
func (p *peer) unknown() (sentence string, hopeless bool) {
	v := p.v
	if l := p.link; l != nil && l.met {
		switch {
		case l.theirs.Role == Primary:
			return fmt.Sprintf("node %q is Primary: demote it first; should it be dead, its connection ends within %v", p.node, v.opts.PeerTimeout), true
		case l.verdict.Verdict == InSync, l.verdict.Verdict == PeerBehind,
			l.verdict.Verdict == PeerTruncates, l.verdict.Verdict == PeerIsNew:
			return "", false
		case l.verdict.Verdict == WeAreNew:
			return fmt.Sprintf("node %q has the volume's data and this replica is empty: promote it there", p.node), true
		case l.verdict.Verdict == WeAreBehind, l.verdict.Verdict == WeTruncate:
			return fmt.Sprintf("node %q has %d records that this one lacks: promote it there", p.node, l.verdict.Theirs.Records), false
		}
		return fmt.Sprintf("node %q: %s", p.node, l.verdict.Reason), false
	}
	if p.split != nil {
		return fmt.Sprintf("node %q: %s", p.node, p.split.result.Reason), false
	}
	if !p.want {
		return fmt.Sprintf("node %q is StandAlone and may have gone on alone: run 'lockstep connect %s %s' (%s)", p.node, v.opts.Volume, p.node, orNothing(p.problem)), false
	}
	if len(v.super.History) == 0 {
		return fmt.Sprintf("node %q is not connected, and this replica is empty: forced, it begins as an empty volume of its own, and what %q may hold cannot be joined with it again", p.node, p.node), false
	}
	if v.super.Excluded || len(v.super.Set) == 0 || setHasNode(v.super.Set, p.node) {
		return fmt.Sprintf("node %q is not connected: it may have gone on alone", p.node), false
	}
	return "", false // excluded by our own superblock
}

func orNothing(problem string) string {
	if problem == "" {
		return "nothing was reported"
	}
	return problem
}

// setForPromotion is the in-sync set of the generation that a promotion begins:
// ourselves and those recorded members that are here, in the incarnation that
// is recorded, with nothing that we lack. v.mu is held.
func (v *Volume) setForPromotion() []Member {
	set := []Member{v.self()}
	for _, m := range v.super.Set {
		p := v.peers[m.Node]
		if p == nil || p.link == nil || !p.link.met || p.link.theirs.Incarnation != m.Incarnation || p.link.theirs.Resync != nil {
			continue
		}
		if sentence, _ := p.unknown(); sentence == "" && !v.super.Excluded {
			set = setWith(set, m)
		}
	}
	return set
}

// notBegun stands for the LSN of a generation whose record has none yet.
const notBegun = math.MaxUint64

// becomePrimary takes the role. forced is remembered of it. v.change is held.
func (v *Volume) becomePrimary(set []Member, forced bool) error {
	v.endImage(fmt.Errorf("volume %q is being promoted on node %q", v.opts.Volume, v.opts.Node))
	if err := v.dropCutWrite(); err != nil {
		return err
	}
	v.apply.Lock() // no round may be under way that was begun as Secondary
	v.mu.Lock()
	has := v.memberHoldings()
	// It may lack what was acknowledged.
	suspect := v.super.Excluded || setHasNode(v.super.Set, v.opts.Node) && !setHas(v.super.Set, v.self())
	epoch, version := v.super.Epoch, v.super.SetVersion
	v.role, v.serving, v.led = Primary, false, false
	v.unheld, v.suspended = 0, false
	v.generation = notBegun // nothing is durable enough
	v.term++
	v.committed = v.applied
	v.pending.reset()
	v.syncWant = 0
	v.joiner = nil
	for _, p := range v.peers {
		p.leaving = false
		if l := p.link; l != nil && l.met {
			epoch, version = max(epoch, l.theirs.Epoch), max(version, l.theirs.SetVersion)
		}
		p.received, p.durable, p.claim = 0, 0, claim{}
		p.removeAt = time.Now().Add(v.opts.PeerTimeout)
		p.lag.slow = nil // as another Primary's peer
		p.closeLink(CodeBusy, "promoted")
	}
	v.mu.Unlock()
	v.apply.Unlock()
	lsn, err := v.begin(func(sb *Superblock) ([]Member, error) {
		if sb.Volume.IsZero() {
			id, err := NewID(nil)
			if err != nil {
				return nil, err
			}
			sb.Volume = id
		}
		sb.Epoch, sb.SetVersion = max(sb.Epoch, epoch)+1, max(sb.SetVersion, version)+1
		sb.Set, sb.Excluded, sb.Disk = set, false, UpToDate
		sb.Snapshots = settledSnapshots(sb.Snapshots) // it gives nothing up by now
		if suspect {
			sb.LossCounter++
		}
		return set, nil
	})
	if err != nil {
		v.mu.Lock()
		v.role = Secondary
		v.mu.Unlock()
		return err
	}
	v.mu.Lock()
	v.genNotes[v.super.History.At(lsn).ID] = genNote{began: time.Now(), forced: &forced}
	v.unheld = lsn
	v.advance()
	v.mu.Unlock()
	v.log.Info("promoted; serves once its generation is durable on every member", "generation", lsn, "members", nodesOf(set))
	kick(v.syncKick)
	v.raiseHeld(has)
	return nil
}

// dropCutWrite drops a write whose last part never came (replication.md 1): its
// parts can have been acknowledged by nobody.
func (v *Volume) dropCutWrite() error {
	v.mu.Lock()
	whole := v.queue.wholeTo(v.end)
	v.mu.Unlock()
	return v.truncateTo(whole, nil, nil)
}

// begin starts a generation: its place in the history is durable before its
// record is written (replication.md 6). edit changes the superblock and returns
// the generation's in-sync set. The record waits in the journal and in the
// queue like a write. A rollback to a snapshot that is not through is not through in
// it either. v.change is held.
func (v *Volume) begin(edit func(*Superblock) ([]Member, error)) (LSN, error) {
	return v.beginWith(edit, nil)
}

// beginWith is begin of a generation in which the volume is being rolled back to
// target, or if that is zero is not any more; nil leaves that as it is.
func (v *Volume) beginWith(edit func(*Superblock) ([]Member, error), target *RollbackTarget) (LSN, error) {
	v.seq.Lock()
	defer v.seq.Unlock()
	gen := Generation{}
	var err error
	if gen.ID, err = NewID(nil); err != nil {
		return 0, err
	}
	v.mu.Lock()
	gen.First = v.end + 1
	keep := v.keepHistory()
	v.mu.Unlock()
	commitErr := v.commitSuper(func(sb *Superblock) {
		if gen.Set, err = edit(sb); err != nil {
			return
		}
		gen.Epoch, gen.SetVersion = sb.Epoch, sb.SetVersion
		h := sb.following(gen.First, keep)
		if last := h.Last(); last != nil {
			gen.Parent, gen.RollingBack = last.ID, last.RollingBack
		}
		if target != nil {
			gen.RollingBack = *target
		}
		if h, err = h.Append(gen); err == nil {
			sb.History = h
		}
	})
	if err := errors.Join(err, commitErr); err != nil {
		return 0, err
	}
	payload := EncodeGeneration(nil, &gen)
	b := &v.scratch
	b.add(journal.Record{
		Kind: journal.KindGeneration, Flags: journal.FlagLast,
		Payload: payload, PayloadCRC: crc32.Checksum(payload, journal.Castagnoli),
	}, nil)
	v.mu.Lock()
	v.enqueue(b)
	v.generation = gen.First
	v.noteGeneration(gen.ID)
	notes := v.notes()
	v.wantSync(gen.First)
	v.mu.Unlock()
	v.append(b, notes, true)
	v.mu.Lock()
	defer v.mu.Unlock()
	return gen.First, v.failure
}

// keepHistory is the oldest LSN that may have to be compared. v.mu is held.
func (v *Volume) keepHistory() LSN {
	if r := v.super.Resync; r != nil {
		return min(v.stable, r.Base.LSN)
	}
	return v.stable
}

// Demote makes this replica Secondary: its clients' connections are closed,
// what they had written is made durable on every member, and the peers are
// told. It does nothing on a Secondary. If ctx ends first the volume is Primary
// again and the error says what it waited for.
func (v *Volume) Demote(ctx context.Context) error {
	v.mu.Lock()
	if v.role == Secondary || v.failure != nil {
		v.mu.Unlock()
		return nil
	}
	v.serving, v.demoting = false, true
	v.mu.Unlock()
	v.revokeSessions(fmt.Errorf("volume %q is being demoted on node %q", v.opts.Volume, v.opts.Node))
	for {
		if err := v.quiesce(ctx); err != nil {
			v.mu.Lock()
			v.demoting, v.serving = false, v.led && v.failure == nil
			waits := v.waitingFor()
			v.mu.Unlock()
			return fmt.Errorf("demote volume %q: %w (%s)", v.opts.Volume, err, waits)
		}
		if v.stepDown() {
			return nil
		}
	}
}

// quiesce waits until everything in the journal is stable.
func (v *Volume) quiesce(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	end := v.end
	v.wantSync(end)
	kick(v.syncKick)
	return v.await(ctx, func() (bool, error) {
		if v.failure != nil {
			return false, v.failure
		}
		return v.stable >= end, nil
	})
}

// stepDown gives up the role unless something was ordered meanwhile.
func (v *Volume) stepDown() bool {
	v.change.Lock()
	defer v.change.Unlock()
	v.seq.Lock()
	defer v.seq.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stable < v.end {
		return false
	}
	v.role, v.demoting, v.led, v.suspended = Secondary, false, false, false
	v.term++
	for _, p := range v.peers {
		p.closeLink(CodeBusy, "demoted")
	}
	if v.detached != nil {
		v.failLocked(v.detached, fromNothing)
	}
	v.log.Info("demoted", "end", v.end)
	kick(v.syncKick)
	v.broadcast()
	return true
}

// waitingFor says, for people, what writes wait for; "" if nothing. v.mu is held.
func (v *Volume) waitingFor() string {
	if v.role != Primary || v.failure != nil {
		return ""
	}
	if v.noSpace {
		return "the backing store is full"
	}
	if v.suspended {
		return v.noQuorum()
	}
	var names []string
	v.voters(func(p *peerState, _, durable LSN) {
		if durable < v.generation || p.with == nil && v.committed < v.end {
			names = append(names, p.node)
		}
	})
	if len(names) == 0 {
		return ""
	}
	return "waits for " + strings.Join(names, ", ")
}

func nodesOf(set []Member) []string {
	names := make([]string, len(set))
	for i, m := range set {
		names[i] = m.Node
	}
	return names
}
