package mirror

import (
	"cmp"
	"slices"
	"time"
)

// Status describes the volume as it stands.
func (v *Volume) Status() Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	sb := &v.super
	s := Status{
		Volume: sb.Name, ID: sb.Volume, Node: sb.Node, Size: sb.Size,
		Role: v.role, Protocol: sb.Protocol, WriteCache: sb.WriteCache, AtomicWrite: v.limits.write,
		Epoch: sb.Epoch, SetVersion: sb.SetVersion, InSync: slices.Clone(sb.Set), Incarnation: sb.Incarnation,
		End: v.end, Committed: v.committed, Stable: v.stable, Durable: v.durable,
		Applied: v.applied, Checkpoint: v.checkpoint, PendingBytes: v.queue.held, InDoubt: v.intent.Count(),
		Journal:  JournalStatus{First: v.journal.First(), Used: v.journal.Used(), Size: v.journal.Size()},
		Sessions: len(v.sessions), Waiting: v.waitingFor(), Serving: v.serving, Image: v.image.status(),
		ResyncPaused: v.pausedByUser, ResyncAfter: v.pausedAfter,
		MinInSync: v.opts.MinInSync, OnNoQuorum: v.opts.OnNoQuorum, Suspended: v.suspended,
		Peers: []PeerStatus{},
	}
	if v.role == Secondary {
		s.Committed = s.Applied
	}
	if g := sb.History.Last(); g != nil {
		s.Generation = g.ID
	}
	s.Disk = v.disk()
	if err := cmp.Or(v.failure, v.detached); err != nil {
		s.Failure = err.Error()
	}
	s.Undo, s.Snapshots = v.undoStatus(), v.snapshotsStatus()
	if t := v.rollingBack(); !t.IsZero() {
		s.RollingBack, s.Unfinished = &t, v.halfRolledBack().Error()
	}
	for _, node := range v.opts.Peers {
		s.Peers = append(s.Peers, v.peers[node].status())
	}
	return s
}

// disk is the replica's disk state. v.mu is held.
func (v *Volume) disk() DiskState {
	switch {
	case v.failure != nil:
		return Failed
	case v.detached != nil:
		return Diskless
	}
	return v.super.Disk
}

// status describes one peer. v.mu is held.
func (p *peer) status() PeerStatus {
	v := p.v
	s := PeerStatus{
		Node: p.node, Connection: Connecting, Member: setHasNode(v.super.Set, p.node) && !v.super.Excluded,
		Received: p.received, Durable: p.durable, OutOfSync: p.bits.Count(),
		SplitBrain: p.split.status(), Problem: p.problem, CatchUps: p.catchUps, Resyncs: p.resyncs, LastResync: p.lastResync,
	}
	s.Behind = p.behind()
	if v.role == Primary && !s.Member {
		s.Slow = p.lag.status()
	}
	l := p.link
	switch {
	case !p.want && (l == nil || !l.met):
		s.Connection = StandAlone
	case l != nil && l.met:
		s.Connection = Connected
		role, disk := l.theirs.Role, l.theirs.Disk
		s.Role, s.Verdict = &role, l.verdict.Verdict.String()
		if v.role == Primary && l.ready {
			disk = l.diskNow()
		}
		s.Disk = &disk
		s.Replication, s.Progress = l.replication()
		if s.Replication == PausedSyncS || s.Replication == PausedSyncT {
			s.Paused = l.pauseReason()
		}
		if l.idles() && l.verdict.Verdict != InSync {
			s.Reason = l.verdict.Reason
		}
	}
	return s
}

// idles: both are Secondary.
func (l *link) idles() bool {
	return l.mine.Description.Role == Secondary && l.theirs.Role == Secondary
}

// behind is about how many bytes the peer lacks: its bitmap's, and its share of
// what the journal holds. v.mu is held.
func (p *peer) behind() int64 {
	v := p.v
	if v.role != Primary {
		return -1
	}
	first, end := v.journal.First(), v.end
	has := max(p.received, p.claim.durable, p.bitsThrough, first-1)
	if end == 0 || has >= end {
		return p.bits.Count()
	}
	return p.bits.Count() + int64(float64(v.journal.Used())*float64(end-has)/float64(end-first+1))
}

// diskNow is a Secondary's disk state as its Primary knows it. v.mu is held.
func (l *link) diskNow() DiskState {
	switch {
	case l.source.resync != nil:
		return Inconsistent
	case setHas(l.v.super.Set, Member{Node: l.peer.node, Incarnation: l.theirs.Incarnation}):
		return UpToDate
	}
	return Outdated
}

// replication says what goes on over the link. v.mu is held.
func (l *link) replication() (ReplState, *Progress) {
	s, t := &l.source, &l.target
	switch {
	case !l.ready:
		return ReplOff, nil
	case s.resync != nil:
		r := s.resync
		state := SyncSource
		if l.paused() && !r.done {
			state = PausedSyncS
		}
		return state, r.progress()
	case t.resync != nil && l.v.super.Resync != nil:
		if l.paused() && !t.resync.whole {
			return PausedSyncT, nil
		}
		return SyncTarget, nil
	case l.idles() && l.verdict.Verdict != InSync:
		return ReplOff, nil // one lacks something, and nobody sends it
	case s.catchingUp:
		sentRecords := int64(s.next - s.from)
		left := int64(l.v.end - min(l.v.end, l.peer.received))
		total := s.bytes
		if sentRecords > 0 {
			total += s.bytes / sentRecords * max(int64(l.v.end-min(l.v.end, s.next-1)), 0)
		}
		done := s.bytes - s.inFlight
		if left == 0 {
			done = total
		}
		return CatchUp, progress(done, total, int64(l.peer.received-min(l.peer.received, s.from-1)), s.began)
	}
	return Established, nil
}

// progress of a resync. v.mu is held.
func (r *resyncSource) progress() *Progress {
	now := time.Now()
	p := &Progress{
		Done: r.doneBytes(), Total: r.total, Records: int64(r.acked), Compared: r.compared, Equal: r.equal, Copied: r.ackedBytes,
		Elapsed: now.Sub(r.began), Speed: int64(r.estimate.speed()), Left: r.estimate.left(now, r.total),
	}
	if p.Done >= p.Total {
		p.Left = 0
	}
	return p
}

func progress(done, total, count int64, began time.Time) *Progress {
	p := &Progress{Done: done, Total: max(total, done), Records: count, Elapsed: time.Since(began), Left: -1}
	if sec := p.Elapsed.Seconds(); sec > 0 {
		p.Speed = int64(float64(done) / sec)
	}
	if p.Speed > 0 {
		p.Left = time.Duration(float64(p.Total-p.Done) / float64(p.Speed) * float64(time.Second))
	}
	return p
}
