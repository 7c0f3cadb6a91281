package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// EventKind says what happened to a volume.
type EventKind uint8

const (
	// EventSplitBrain: a split-brain was found that no policy settles; the peer is
	// StandAlone until an operator does.
	EventSplitBrain EventKind = iota
	// EventBeforeResyncTarget: a bitmap resync of this replica is about to begin, or to
	// go on (Resumed).
	EventBeforeResyncTarget
	// EventAfterResyncTarget: it is through, and the replica UpToDate.
	EventAfterResyncTarget
	// EventLocalIOError: the replica's own disk failed; what it does then is
	// Options.OnIOError's.
	EventLocalIOError
	// EventOutOfSync: the peer is away, and what it lacks has begun to go into its
	// bitmap: it will need a resync.
	EventOutOfSync
	// EventFencePeer: this Primary is about to go on without the peer, or this replica
	// to be promoted by force while the peer is away.
	EventFencePeer
	// EventResync: a bitmap resync with the peer began or ended, of which this
	// replica is the source or the target; Status says how that stands.
	EventResync
	// EventSlowPeer: the peer left the in-sync set for being slow.
	EventSlowPeer
)

var eventNames = []string{
	"split-brain", "before-resync-target", "after-resync-target", "local-io-error", "out-of-sync", "fence-peer", "resync", "slow-peer",
}

// String is the kind's name; where DRBD has a handler for it, that handler's.
func (k EventKind) String() string { return nameOf(eventNames, k) }

// An Event tells an embedding program what happened to a volume, or is about to.
type Event struct {
	Kind    EventKind
	Volume  string
	Node    string
	Peer    string // "" where it concerns none
	Role    Role   // of this replica, now
	Disk    DiskState
	Reason  string // a sentence for people, "" without
	Resumed bool   // of a resync: an earlier session had begun it
}

// Hooks are what an embedding program has a volume call. Any of them may be nil.
// None is called with a lock held, and each may call the volume's methods, but not
// Close.
type Hooks struct {
	// Event is told what happened, in that order, on a goroutine of its own: while it
	// does not return, nothing waits but the next event. More than 64 that wait are
	// dropped, with a line in the log.
	Event func(Event)
	// BeforeResyncTarget is asked before a bitmap resync changes this replica. An
	// error refuses it, and the peer is StandAlone until an operator connects it
	// again. The session waits for the answer, and ctx ends with it.
	BeforeResyncTarget func(ctx context.Context, e Event) error
	// FencePeer is asked before this Primary goes on without a peer that is lost, and
	// before a forced promotion past one that is away. An error says that the peer
	// may still be writing: the Primary acknowledges nothing without it, and asks
	// again every few seconds; the promotion fails.
	FencePeer func(ctx context.Context, e Event) error
}

// maxEvents is how many may wait for Hooks.Event.
const maxEvents = 64

// fencePause is how long a lost peer that could not be fenced is left alone.
var fencePause = 5 * time.Second // less in tests

// emit tells the embedding program. v.mu is held.
func (v *Volume) emit(kind EventKind, peer, reason string) {
	if v.opts.Hooks.Event == nil {
		return
	}
	select {
	case v.events <- v.event(kind, peer, reason):
	default:
		v.log.Error("too many events wait: one is dropped", "event", kind, "peer", peer, "reason", reason)
	}
}

// event describes what happens. v.mu is held.
func (v *Volume) event(kind EventKind, peer, reason string) Event {
	return Event{Kind: kind, Volume: v.opts.Volume, Node: v.opts.Node, Peer: peer, Role: v.role, Disk: v.disk(), Reason: reason}
}

func (v *Volume) eventLoop() {
	for {
		select {
		case e := <-v.events:
			v.opts.Hooks.Event(e)
		case <-v.ctx.Done():
			return
		}
	}
}

// askTarget asks whether the resync that the source wants may begin. The source
// hears meanwhile that we live, if its protocol lets it.
func (l *link) askTarget() error {
	ask := l.v.opts.Hooks.BeforeResyncTarget
	if ask == nil {
		return nil
	}
	v := l.v
	v.mu.Lock()
	e := v.event(EventBeforeResyncTarget, l.peer.node, l.verdict.Reason)
	e.Resumed = l.mine.Description.Resync != nil
	v.mu.Unlock()
	answer := make(chan error, 1)
	go func() { answer <- ask(l.ctx, e) }()
	tick := time.NewTicker(v.opts.PeerTimeout / 4)
	defer tick.Stop()
	for {
		select {
		case err := <-answer:
			if err != nil && l.ctx.Err() == nil {
				return &refusal{CodeDisconnected, fmt.Sprintf("before-resync-target on node %q refuses the resync: %v; once that is mended, run 'lockstep connect %s' there",
					v.opts.Node, err, v.opts.Volume)}
			}
			return err
		case <-tick.C:
			if l.version < 2 {
				continue
			}
			if err := l.write(l.heartbeat()); err != nil {
				l.stop()
				<-answer
				return err
			}
		}
	}
}

// awaitReady is the Primary's wait for the answer to its Proceed.
func (l *link) awaitReady() ([]byte, error) {
	for {
		t, body, err := l.next()
		switch {
		case err != nil:
			return nil, err
		case t == FrameReady:
			return body, nil
		case t != FrameHeartbeat || l.version < 2:
			return nil, l.unexpected(t)
		}
	}
}

// askFence asks whether this replica may go on without the peer. No lock is held.
func (v *Volume) askFence(node string) fenceAnswer {
	v.mu.Lock()
	e := v.event(EventFencePeer, node, v.other(node).problem)
	v.mu.Unlock()
	err := v.opts.Hooks.FencePeer(v.ctx, e)
	return fenceAnswer{node, err, time.Now(), fencePause}
}

// fenceAbsent is asked before a forced promotion: the members that are not here.
func (v *Volume) fenceAbsent() error {
	if v.opts.Hooks.FencePeer == nil {
		return nil
	}
	var errs error
	v.mu.Lock()
	absent := v.absent()
	for _, p := range absent {
		p.asking = true // whenever it was asked last: an operator asks
	}
	v.mu.Unlock()
	for _, p := range absent {
		answer := v.askFence(p.node)
		if answer.err != nil {
			errs = errors.Join(errs, fmt.Errorf("node %q is not fenced: %w", p.node, answer.err))
		}
		v.mu.Lock()
		v.heed(answer)
		v.mu.Unlock()
	}
	return errs
}
