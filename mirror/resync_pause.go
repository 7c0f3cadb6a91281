package mirror

import (
	"fmt"
	"time"
)

// PauseResync holds back every bitmap resync of the volume, of which this replica
// is the source or a target, those to come as well, until ResumeResync; what
// clients write goes on to the peers meanwhile. It is not recorded: a volume that is
// opened resyncs. A peer that speaks protocol version 1 cannot be told; only its
// source can pause it then.
func (v *Volume) PauseResync() { v.holdResync(func() { v.pausedByUser = true }) }

// ResumeResync ends what PauseResync began.
func (v *Volume) ResumeResync() { v.holdResync(func() { v.pausedByUser = false }) }

// HoldResync holds resyncs back as PauseResync does, independently of it, until
// another volume's resync is through; "" lets them go.
func (v *Volume) HoldResync(after string) { v.holdResync(func() { v.pausedAfter = after }) }

func (v *Volume) holdResync(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.resyncHeld()
	change()
	if v.resyncHeld() != before {
		v.log.Info("resync: held back", "held", !before, "byUser", v.pausedByUser, "after", v.pausedAfter)
	}
	for _, p := range v.peers {
		if l := p.link; l != nil {
			l.pauseChanged()
		}
	}
	v.broadcast()
}

// resyncHeld: resyncs are held back on this node. v.mu is held.
func (v *Volume) resyncHeld() bool { return v.pausedByUser || v.pausedAfter != "" }

// paused: either side holds the resync back. v.mu is held.
func (l *link) paused() bool { return l.v.resyncHeld() || l.theirPause }

// pauseChanged has the feeder look again, and the peer be told. v.mu is held.
func (l *link) pauseChanged() {
	kick(l.kick)
	r := l.source.resync
	if r == nil {
		return
	}
	r.estimate.pause(time.Now(), l.paused())
	kick(r.feedKick)
}

// sayPause is what the peer is to be told of a pause; nil if that is no news.
// v.mu is held.
func (l *link) sayPause() Message {
	held := l.v.resyncHeld()
	if l.version < 2 || held == l.pauseSaid || l.source.resync == nil && l.target.resync == nil {
		return nil
	}
	l.pauseSaid = held
	return &ResyncPause{Paused: held}
}

// resyncPause takes in that the peer holds the resync back, or does no longer.
func (l *link) resyncPause(body []byte) error {
	var m ResyncPause
	if err := m.Decode(body); err != nil {
		return err
	}
	l.v.mu.Lock()
	defer l.v.mu.Unlock()
	l.theirPause = m.Paused
	l.pauseChanged()
	l.v.broadcast()
	return nil
}

// pauseReason says, for people, why the resync is held back; "" if it is not. v.mu
// is held.
func (l *link) pauseReason() string {
	switch v := l.v; {
	case v.pausedByUser:
		return fmt.Sprintf("the resync is paused here: 'lockstep resync resume %s' lets it go on", v.opts.Volume)
	case v.pausedAfter != "":
		return fmt.Sprintf("the resync waits for that of volume %q (resync-after)", v.pausedAfter)
	case l.theirPause:
		return fmt.Sprintf("the resync is paused on node %q", l.peer.node)
	}
	return ""
}
