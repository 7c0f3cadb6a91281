package mirror

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
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
// by this replica's own superblock; and unless those that are relied on agree,
// within PeerTimeout. Of two that are promoted at the same moment each may refuse
// the other.
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
	err := v.promote(o.Force)
	v.change.Unlock()
	var unsafe *UnsafePromotionError
	switch {
	case errors.As(err, &unsafe):
		return unsafe
	case err != nil:
		return fmt.Errorf("promote volume %q: %w", v.opts.Volume, err)
	}
	return v.awaitServing(ctx)
}

// promote takes the role, if it may. v.change is held.
func (v *Volume) promote(force bool) error {
	v.mu.Lock()
	e := promoteTurn{force, v.canRollBack()}
	v.mu.Unlock()
	v.carryThrough(e)
	kick(v.syncKick)
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.core.change.err
}

// canRollBack reports whether a resync under way can be taken back. v.mu is held.
func (v *Volume) canRollBack() bool {
	_, err := v.planRollback()
	return err == nil
}

// awaitSafe gives a peer that was demoted just now the moment in which it
// connects again, so that a promotion may follow at once, and a handshake that is
// under way the time to end.
func (v *Volume) awaitSafe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, v.opts.PeerTimeout)
	defer cancel()
	soon, cancelSoon := context.WithTimeout(ctx, v.opts.PeerTimeout/4)
	defer cancelSoon()
	v.mu.Lock()
	defer v.mu.Unlock()
	settled := func() bool { // whatever is still unsafe, Promote says
		return v.role == Primary || v.failure != nil || v.judgePromotion(false, false) == nil
	}
	_ = v.await(soon, func() (bool, error) { return settled(), nil })
	_ = v.await(ctx, func() (bool, error) { return settled() || !v.shakesHands(), nil })
}

// awaitPrimaryGone gives a connection to a Primary that may have just died, or to a
// peer that is about to be one, the time to end: a live one is not overridden, not
// even by force.
func (v *Volume) awaitPrimaryGone(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, v.opts.PeerTimeout*5/4)
	defer cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.await(ctx, func() (bool, error) {
		for _, p := range v.peers {
			if m := p.with; m != nil && m.met && (m.theirs.Role == Primary || m.promised) {
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

// takeRole takes the role, once nothing is under way that began as Secondary.
// v.change is held.
func (v *Volume) takeRole() error {
	v.endImage(fmt.Errorf("volume %q is being promoted on node %q", v.opts.Volume, v.opts.Node))
	if err := v.dropCutWrite(); err != nil {
		return err
	}
	v.apply.Lock() // no round may be under way that was begun as Secondary
	defer v.apply.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.heed(roleTaken{time.Now()})
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
	v.kickSenders()
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
	v.heed(demoteBegins{})
	v.mu.Unlock()
	v.revokeSessions(fmt.Errorf("volume %q is being demoted on node %q", v.opts.Volume, v.opts.Node))
	for {
		if err := v.quiesce(ctx); err != nil {
			v.mu.Lock()
			v.heed(demoteGivesUp{})
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
	v.heed(demoteTurn{})
	return v.role == Secondary
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
