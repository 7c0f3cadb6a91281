package mirror

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// The Primary's side of a session.

// sendWindow is how many bytes of records a peer may owe a durable
// acknowledgement for: what it has to keep in its journal without being able to
// apply it (replication.md 9).
const sendWindow = 32 << 20

// sourceState is the Primary's side of a link. v.mu guards it, but for what link.sending
// does.
type sourceState struct {
	next       LSN  // the next record to send
	catchingUp bool // no member: the journal keeps what it lacks
	confirm    bool // tell it the recorded set
	greeted    bool // a member was told that it is UpToDate
	told       LSN  // the stable LSN that it was told
	asked      LSN  // the LSN that it was asked to sync
	owedSince  time.Time
	flight     []sent
	inFlight   int64 // bytes

	missing uint64 // records to catch up with, at the start
	goal    LSN    // the end, at the start
	from    LSN
	bytes   int64 // of records sent
	began   time.Time
	resync  *resyncSource

	// Of whoever holds link.sending.
	reader *journal.Reader // while what is next is not in the queue
	frame  RecordsFrame
	held   []*block.Buffer // payloads of the frame
	last   time.Time       // something was sent
}

// sent is one frame of records under way.
type sent struct {
	last  LSN
	bytes int64
}

func (s *sourceState) begin(p *Proceed, missing uint64, goal LSN) {
	s.goal = goal
	s.next, s.from, s.began, s.missing = p.From, p.From, time.Now(), missing
}

// closeSource is called once nothing of the session runs any more, but perhaps the
// sequencer, on its way to send something.
func (l *link) closeSource() {
	l.sending.Lock()
	defer l.sending.Unlock()
	l.failed = errLinkLost
	s, v := &l.source, l.v
	if s.resync != nil {
		s.resync.putBack(v)
	}
	s.closeReader()
}

func (s *sourceState) closeReader() {
	if s.reader != nil {
		s.reader.Close()
		s.reader = nil
	}
}

// sendLoop sends records as they are sequenced, and what has to be said between
// them.
func (l *link) sendLoop() error {
	tick := time.NewTicker(l.v.opts.PeerTimeout / 4)
	defer tick.Stop()
	for {
		for {
			more, err := l.send()
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
		select {
		case <-l.kick:
		case <-tick.C:
			if err := l.checkProgress(); err != nil {
				return err
			}
			if l.quiet() {
				if err := l.write(l.heartbeat()); err != nil {
					return err
				}
			}
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

// send is sendRound of the sender.
func (l *link) send() (more bool, err error) {
	l.sending.Lock()
	defer l.sending.Unlock()
	if l.failed != nil {
		return false, l.failed
	}
	return l.sendRound()
}

// quiet reports whether nothing was sent for so long that the peer wants to hear that
// we live.
func (l *link) quiet() bool {
	l.sending.Lock()
	defer l.sending.Unlock()
	return time.Since(l.source.last) > l.v.opts.PeerTimeout/5
}

// idleBefore reports whether the peer has everything before lsn, so that nothing is on
// its way to it. v.mu is held.
func (l *link) idleBefore(lsn LSN) bool {
	s := &l.source
	return l.ready && s.next == lsn && l.peer.received == lsn-1 && s.resync == nil
}

// sendNow sends what there is in place of the sender, unless that is awake. The peer
// has acknowledged all that it was sent, so the socket takes it without a wait.
func (l *link) sendNow() {
	if !l.sending.TryLock() {
		kick(l.kick)
		return
	}
	defer l.sending.Unlock()
	if l.failed != nil {
		return
	}
	more, err := l.sendRound()
	l.failed = err
	if more || err != nil {
		kick(l.kick)
	}
}

// checkProgress: a peer whose durable LSN does not move while it owes something
// is as good as lost (replication.md 9).
func (l *link) checkProgress() error {
	v, s := l.v, &l.source
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.asked > l.peer.durable && !s.owedSince.IsZero() && time.Since(s.owedSince) > v.opts.PeerTimeout {
		return fmt.Errorf("%w: node %q made nothing durable for %v: it stands at LSN %d and was asked for %d",
			errStalled, l.peer.node, v.opts.PeerTimeout, l.peer.durable, s.asked)
	}
	return nil
}

// sendRound sends one frame of records with what has to be said after it, or a
// resync block, and reports whether there may be more to send.
func (l *link) sendRound() (more bool, err error) {
	v, s := l.v, &l.source
	v.mu.Lock()
	notes := Records{Epoch: v.super.Epoch, SetVersion: v.super.SetVersion, Stable: v.stable, Committed: v.committed}
	fromJournal := l.collect()
	resync := s.resync
	v.mu.Unlock()
	if fromJournal {
		if err := l.collectJournal(); err != nil {
			return false, err
		}
	}
	records, err := l.sendRecords(notes)
	if err != nil {
		return false, err
	}
	said, err := l.say(notes.Stable)
	if err != nil {
		return false, err
	}
	blocks := false
	if resync != nil {
		if blocks, err = l.sendBlock(resync); err != nil {
			return false, err
		}
	}
	if records || said || blocks {
		s.last = time.Now()
	}
	return records || blocks, nil
}

// collect fills the frame from the queue, with a reference to each payload. It
// reports whether the journal has to be read instead. v.mu is held.
func (l *link) collect() (fromJournal bool) {
	v, s := l.v, &l.source
	if s.inFlight >= sendWindow || s.next > v.end {
		return false
	}
	for s.next <= v.end {
		e := v.queue.at(s.next)
		if e == nil || e.evicted {
			return s.frame.Len() == 0
		}
		if !s.frame.Add(&e.rec) {
			return false
		}
		if e.rec.Buf != nil {
			e.rec.Buf.Ref(1)
			s.held = append(s.held, e.rec.Buf)
		}
		s.next++
	}
	return false
}

// collectJournal fills the frame from the journal.
func (l *link) collectJournal() (err error) {
	s := &l.source
	if l.v.diskless() {
		return fmt.Errorf("node %q lacks LSN %d: %s", l.peer.node, s.next, noSource)
	}
	if s.reader == nil {
		if s.reader, err = l.v.journal.NewReader(s.next); err != nil {
			return fmt.Errorf("catch-up of %q: read the journal from LSN %d: %w", l.peer.node, s.next, err)
		}
	}
	next := s.next
	// A frame takes the largest record as long as less than this is in it.
	for s.frame.Size() < MaxFramePayload-journal.MaxPayload && s.frame.Len() < MaxFrameRecords {
		var rec journal.Record
		ok, err := s.reader.Next(&rec)
		if errors.Is(err, journal.ErrTrimmed) {
			return errAgain // by bitmap, then
		}
		if err != nil {
			return fmt.Errorf("catch-up of %q: read the journal at LSN %d: %w", l.peer.node, next, err)
		}
		if !ok {
			break
		}
		if rec.LSN != next || !s.frame.Add(&rec) {
			return fmt.Errorf("catch-up of %q: the journal gave LSN %d where %d was due", l.peer.node, rec.LSN, next)
		}
		if rec.Buf != nil {
			s.held = append(s.held, rec.Buf)
		}
		next++
	}
	l.v.mu.Lock()
	s.next = next
	live := l.v.queue.at(s.next) != nil || s.next > l.v.end
	l.v.mu.Unlock()
	if live {
		s.closeReader()
	}
	return nil
}

// sendRecords sends the frame if there is something in it.
func (l *link) sendRecords(notes Records) (bool, error) {
	v, s := l.v, &l.source
	if s.frame.Len() == 0 {
		return false, nil
	}
	size := int64(s.frame.Size())
	bufs := net.Buffers(s.frame.EncodeRecordsHeader(notes))
	v.mu.Lock()
	s.flight = append(s.flight, sent{last: s.next - 1, bytes: size})
	s.inFlight += size
	s.bytes += size
	s.told = max(s.told, notes.Stable)
	v.mu.Unlock()
	err := l.writeBuffers(bufs)
	for _, b := range s.held {
		b.Unref()
	}
	clear(s.held)
	s.held = s.held[:0]
	s.frame.Reset()
	return true, err
}

func (l *link) writeBuffers(bufs net.Buffers) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if l.ended != nil {
		return l.ended
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(l.v.opts.PeerTimeout))
	if err := l.writePieces(bufs); err != nil {
		return fmt.Errorf("send to %q: %w", l.peer.node, err)
	}
	return nil
}

// writePieces sends the pieces of one frame, without copying them where that can be: a
// connection that is wrapped, in TLS say, would make a packet of each.
func (l *link) writePieces(bufs net.Buffers) error {
	if l.out == nil {
		_, err := bufs.WriteTo(l.conn)
		return err
	}
	for _, b := range bufs {
		if _, err := l.out.Write(b); err != nil {
			return err
		}
	}
	return l.out.Flush()
}

// say sends what belongs behind the records: the wish for a sync, the recorded
// set, and a stable LSN that no record carries.
func (l *link) say(stable LSN) (bool, error) {
	v, s := l.v, &l.source
	var msgs [4]Message
	out := msgs[:0]
	v.mu.Lock()
	if want := min(v.syncWant, s.next-1); want > s.asked && want > l.peer.durable && s.next > v.syncWant {
		if l.peer.durable >= s.asked {
			s.owedSince = time.Now()
		}
		s.asked = want
		out = append(out, &SyncRequest{LSN: want})
	}
	member := setHas(v.super.Set, Member{Node: l.peer.node, Incarnation: l.theirs.Incarnation})
	if s.confirm || member && !s.greeted && l.peer.received >= s.goal {
		s.confirm, s.greeted = false, true
		out = append(out, &SetUpdate{SetVersion: v.super.SetVersion, Epoch: v.super.Epoch, Confirmed: true, Set: v.super.Set})
	}
	if pause := l.sayPause(); pause != nil {
		out = append(out, pause)
	}
	tell := v.stable > s.told
	s.told = max(s.told, v.stable)
	v.mu.Unlock()
	if tell {
		out = append(out, l.heartbeat())
	}
	if len(out) == 0 {
		return false, nil
	}
	return true, l.write(out...)
}

// ackLoop takes in what the peer acknowledges.
func (l *link) ackLoop() error {
	for {
		t, body, err := l.next()
		if err != nil {
			return err
		}
		switch t {
		case FrameAck:
			err = l.ack(body)
		case FrameJoinReady:
			err = l.joinIsReady(body)
		case FrameBlockAck:
			err = l.blockAck(body)
		case FrameReadReply:
			err = l.readReply(body)
		case FrameChecksums:
			err = l.checksums(body)
		case FrameResyncPause:
			err = l.resyncPause(body)
		default:
			err = l.unexpected(t)
		}
		if err != nil {
			return err
		}
	}
}

func (l *link) ack(body []byte) error {
	var m Ack
	if err := m.Decode(body); err != nil {
		return err
	}
	v, p, s := l.v, l.peer, &l.source
	v.mu.Lock()
	defer v.mu.Unlock()
	if p.link != l {
		return errAgain // it is leaving: its later acknowledgements are ignored
	}
	if m.Received >= s.next || m.Durable > m.Received || m.Session != l.mine.Session {
		return fmt.Errorf("%w: acknowledged through LSN %d, durable %d, of session %d; sent were those through %d of session %d",
			ErrFrame, m.Received, m.Durable, m.Session, s.next-1, l.mine.Session)
	}
	p.received = max(p.received, m.Received)
	if m.Durable > p.durable {
		p.durable = m.Durable
		p.claim = claim{l.theirs.Incarnation, m.Durable}
		s.owedSince = time.Now()
		n := 0
		for n < len(s.flight) && s.flight[n].last <= m.Durable {
			s.inFlight -= s.flight[n].bytes
			n++
		}
		if n > 0 {
			s.flight = append(s.flight[:0], s.flight[n:]...)
			kick(l.kick)
		}
	}
	if s.catchingUp || s.resync != nil { // no member: every acknowledgement counts
		l.observe(time.Now())
	}
	v.advance()
	if v.waiters != nil {
		v.broadcast()
	}
	return nil
}

func (l *link) joinIsReady(body []byte) error {
	var m JoinReady
	if err := m.Decode(body); err != nil {
		return err
	}
	l.v.mu.Lock()
	l.joinReady = max(l.joinReady, m.LSN)
	l.v.broadcast()
	l.v.mu.Unlock()
	return nil
}

// A peer may join once it lacks less than this of what was sequenced.
const joinLag = 4 << 20

// isMember: the peer is recorded in this very incarnation. v.mu is held.
func (l *link) isMember() bool {
	return setHas(l.v.super.Set, Member{Node: l.peer.node, Incarnation: l.theirs.Incarnation})
}

// observe tells how far the peer is to what judges whether it keeps up. v.mu is held.
func (l *link) observe(now time.Time) {
	v, p := l.v, l.peer
	p.lag.observe(now, lagSample{
		ours: v.appended, theirs: p.received,
		oursDurable: min(v.durable, v.syncWant), theirsDurable: p.durable,
		member: l.isMember(),
	})
}

// joinLoop makes the peer a member as soon as it has caught up and keeps up, and
// watches from then on whether it does.
func (l *link) joinLoop() error {
	v, p := l.v, l.peer
	tick := time.NewTicker(p.lag.tick())
	defer tick.Stop()
	for {
		v.mu.Lock()
		if p.link != l {
			v.mu.Unlock()
			return errAgain
		}
		now := time.Now()
		l.observe(now)
		may, member, slow := l.mayJoin(now), l.isMember(), p.lag.tooSlow()
		var changed <-chan struct{} // a member stays one as long as the session lasts
		if !member {
			changed = v.changed()
		}
		v.mu.Unlock()
		switch {
		case may:
			if err := l.tryJoin(); err != nil {
				return err
			}
			continue
		case slow:
			kick(v.watchKick)
		case member && p.lag.budget == 0:
			tick.Stop()
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

// mayJoin: the peer is no member, has caught up, keeps up, and has waited long enough
// if it did not before. v.mu is held.
func (l *link) mayJoin(now time.Time) bool {
	v, s := l.v, &l.source
	if !s.catchingUp && s.resync == nil {
		return false
	}
	if l.isMember() {
		s.catchingUp = false // a member, recorded before: it never left
		if s.missing > 0 {
			l.peer.catchUps++
		}
		return false
	}
	return v.led && v.role == Primary && v.mayGrow() && v.joiner == nil && !v.someLeave() &&
		(s.resync == nil || s.resync.done) &&
		s.next+maxQueue/8 > v.end && s.inFlight < joinLag && l.peer.received+maxQueue/8 > v.end &&
		l.peer.lag.mayJoin(now)
}

// tryJoin joins, and has a peer that could not wait before it tries again: longer each
// time (1b), unless the failure was not the peer's.
func (l *link) tryJoin() error {
	v, p := l.v, l.peer
	err := v.join(l)
	if err == nil {
		return nil
	}
	var notThePeer *notThePeer
	v.mu.Lock()
	p.lag.fail(time.Now(), !errors.As(err, &notThePeer))
	v.mu.Unlock()
	return fmt.Errorf("node %q could not join the in-sync set: %w", p.node, err)
}
