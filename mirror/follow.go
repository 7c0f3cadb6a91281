package mirror

import (
	"fmt"
	"time"

	"github.com/lockstep-storage/lockstep/journal"
)

// The Secondary's side of a session.

// targetState is the Secondary's side of a link. v.mu guards it, but for what
// is the receiver's.
type targetState struct {
	proceed  Proceed
	joinLSN  LSN // a generation that names us, and that we are no member by yet
	joinSaid LSN
	acked    Ack
	resync   *resyncTarget
	compares chan ChecksumRequest
	told     bool // of the resync's end

	// The receiver's own.
	batch batch
	bytes int64
}

// follow is the handshake of a Secondary with a Primary, and then the session.
func (l *link) follow() error {
	if err := l.sayRegions(); err != nil {
		return err
	}
	t, body, err := l.next()
	if err != nil {
		return err
	}
	if t != FrameProceed {
		return l.unexpected(t)
	}
	m := &l.target.proceed
	if err := m.Decode(body); err != nil {
		return err
	}
	if err := l.obey(m); err != nil {
		return err
	}
	v := l.v
	v.mu.Lock()
	if l.peer.link != l {
		v.mu.Unlock()
		return errAgain
	}
	ready := &Ready{End: v.end, Durable: v.durable, EndCRC: v.chain}
	l.ready, l.epoch = true, m.Epoch
	v.broadcast()
	v.mu.Unlock()
	if l.loser != Neither {
		l.closeSplit()
	}
	if err := l.write(ready); err != nil {
		return err
	}
	err = l.together(l.receive, l.answer, l.compareLoop, l.writeLoop)
	l.dropHeld()
	l.server.wg.Wait()
	return err
}

// obey does what the Primary decided, if our own judgement of the two histories
// is the same.
func (l *link) obey(m *Proceed) error {
	v := l.v
	v.mu.Lock()
	seen := v.super.Epoch // by now, whatever the hello said
	l.peer.following = true
	v.mu.Unlock()
	if err := judgeProceed(seen, &l.meeting, m); err != nil {
		return err
	}
	if m.Mode == ModeResync {
		if err := l.askTarget(); err != nil {
			return err
		}
	}
	v.endImage(fmt.Errorf("volume %q on node %q follows node %q from now on, and changes", v.opts.Volume, v.opts.Node, l.peer.node))
	// The epoch and the volume's name first: what follows is of them.
	err := v.commitSuper(func(sb *Superblock) {
		sb.obey(m.Epoch, &l.theirs)
	})
	if err != nil {
		return err
	}
	if m.Mode == ModeResync {
		return l.beginResync(m)
	}
	return v.truncateTo(m.Common, l, nextEntry(m.History, m.Common))
}

// nextEntry is the first generation of h past lsn, nil if there is none.
func nextEntry(h History, lsn LSN) *Generation {
	for i := range h {
		if h[i].First > lsn {
			return &h[i]
		}
	}
	return nil
}

// receive takes in the stream.
func (l *link) receive() error {
	for {
		t, body, err := l.next()
		if err != nil {
			return err
		}
		switch t {
		case FrameRecords:
			err = l.records(body)
		case FrameSyncRequest:
			err = l.syncRequest(body)
		case FrameHeartbeat:
			err = l.heard(body)
		case FrameSetUpdate:
			err = l.setUpdate(body)
		case FrameRead:
			err = l.serveRead(body)
		case FrameResyncStart, FrameBlock, FrameResyncEnd:
			err = l.resyncFrame(t, body)
		case FrameChecksumRequest:
			err = l.compare(body)
		case FrameResyncPause:
			err = l.resyncPause(body)
		default:
			err = l.unexpected(t)
		}
		if err != nil {
			return err
		}
		if !l.in.Buffered() {
			if err := l.passInTime(); err != nil {
				return err
			}
			if err := l.acknowledge(false); err != nil {
				return err
			}
		}
	}
}

// acknowledge sends how far we are if that is news, or anyway.
func (l *link) acknowledge(anyway bool) error {
	v := l.v
	v.mu.Lock()
	// A sync may cover a batch before the receiver comes to note that it is
	// appended.
	ack := Ack{Received: max(v.appended, v.durable), Durable: v.durable, Session: l.hello.Session}
	news := ack != l.target.acked
	l.target.acked = ack
	dead := l.peer.link != l
	v.mu.Unlock()
	if dead {
		return errAgain
	}
	if !news && !anyway {
		return nil
	}
	return l.write(&ack)
}

// answer acknowledges what became durable, says when we are ready to join, and
// that we live.
func (l *link) answer() error {
	tick := time.NewTicker(l.v.opts.PeerTimeout / 4)
	defer tick.Stop()
	for {
		anyway := false
		select {
		case <-l.kick:
		case <-tick.C:
			anyway = true
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
		if err := l.acknowledge(anyway); err != nil {
			return err
		}
		v := l.v
		v.mu.Lock()
		pause := l.sayPause()
		v.mu.Unlock()
		if pause != nil {
			if err := l.write(pause); err != nil {
				return err
			}
		}
		if err := l.sayJoinReady(); err != nil {
			return err
		}
	}
}

// sayJoinReady: durable through the generation that names us, we record
// UpToDate, and only then say so (replication.md 2, growth).
func (l *link) sayJoinReady() error {
	v, t := l.v, &l.target
	v.mu.Lock()
	lsn := t.joinLSN
	due := lsn > t.joinSaid && v.durable >= lsn && (t.resync == nil || t.resync.whole)
	v.mu.Unlock()
	if !due {
		return nil
	}
	t.joinSaid = lsn
	err := v.commitSuper(func(sb *Superblock) {
		sb.Disk, sb.Resync = UpToDate, nil
		sb.Snapshots = settledSnapshots(sb.Snapshots)
	})
	if err != nil {
		return err
	}
	v.endUndo()
	if t.resync != nil {
		v.mu.Lock()
		if !t.told {
			t.told = true
			v.emit(EventAfterResyncTarget, l.peer.node, "")
			v.emit(EventResync, l.peer.node, "it is through")
		}
		v.mu.Unlock()
	}
	return l.write(&JoinReady{LSN: lsn})
}

// records journals a frame of records, in one append where no generation
// begins among them.
func (l *link) records(body []byte) error {
	v, t := l.v, &l.target
	var m Records
	if err := m.Decode(body); err != nil {
		return err
	}
	v.seq.Lock()
	defer v.seq.Unlock()
	defer t.batch.discard()
	v.mu.Lock()
	chain, end, size := v.chain, v.end, v.super.Size
	if l.peer.link != l || m.Epoch < v.super.Epoch {
		v.mu.Unlock()
		return errAgain
	}
	tag := uint64(0)
	if g := v.super.History.Last(); g != nil {
		tag = g.Tag()
	}
	v.mu.Unlock()
	for range m.Count {
		var rec journal.Record
		if err := l.in.ReadRecord(&rec, chain); err != nil {
			return err
		}
		t.batch.add(rec, nil)
		chain, end = rec.CRC, end+1
		if rec.LSN != end || rec.Kind != journal.KindGeneration && (rec.Generation != tag || rec.Offset+rec.Length > size) {
			return fmt.Errorf("%w: record LSN %d of generation tag %016x, range %d+%d, where LSN %d of %016x is due", ErrFrame, rec.LSN, rec.Generation, rec.Offset, rec.Length, end, tag)
		}
		t.bytes += int64(len(rec.Payload)) + journal.HeaderSize
		if rec.Kind == journal.KindGeneration {
			gen, err := l.generation(&rec)
			if err != nil {
				return err
			}
			tag = gen.Tag()
		}
		if t.bytes >= l.v.limits.round || len(t.batch.mem) >= roundRecords {
			if err := l.journalBatch(m); err != nil {
				return err
			}
		}
	}
	return l.journalBatch(m)
}

// generation takes in a generation record, the last of the batch: what comes
// before it is journaled first, then the history says that it begins, durably,
// and only then its record follows.
func (l *link) generation(rec *journal.Record) (*Generation, error) {
	v, t := l.v, &l.target
	gen, err := DecodeGeneration(rec.Payload, rec.LSN)
	if err != nil {
		return nil, err
	}
	if gen.Tag() != rec.Generation {
		return nil, fmt.Errorf("%w: the record of generation %v has tag %016x", ErrFrame, gen.ID, rec.Generation)
	}
	last := len(t.batch.mem) - 1
	held := t.batch.mem[last]
	t.batch.mem, t.batch.reqs = t.batch.mem[:last], t.batch.reqs[:last]
	err = l.journalBatch(Records{})
	t.batch.add(held, nil)
	if err != nil {
		return nil, err
	}
	if err := l.keepBefore(&gen); err != nil {
		return nil, err
	}
	v.mu.Lock()
	self, keep := v.self(), v.keepHistory()
	v.mu.Unlock()
	var appendErr error
	err = v.commitSuper(func(sb *Superblock) {
		var h History
		if h, appendErr = sb.following(gen.First, keep).Append(gen); appendErr != nil {
			return
		}
		sb.History = h
		sb.hear(&gen)
	})
	if appendErr != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, appendErr)
	}
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	v.noteGeneration(gen.ID)
	if setHas(gen.Set, self) && !setHas(v.super.Set, self) {
		t.joinLSN = gen.First
	}
	if gen.Epoch == l.epoch && !setHasNode(gen.Set, l.peer.node) {
		l.theirs.Disk = Diskless // it goes on through the members (detach.go)
	}
	v.mu.Unlock()
	return &gen, nil
}

// journalBatch writes what was received to the journal, once there is room, and
// puts it into the queue. v.seq is held, and let go while it waits.
func (l *link) journalBatch(m Records) error {
	v, t := l.v, &l.target
	b := &t.batch
	if len(b.mem) == 0 {
		return nil
	}
	if err := l.awaitRoom(t.bytes, m.Stable); err != nil {
		return err
	}
	v.mu.Lock()
	notes, early := v.notes(), v.super.Protocol == ProtocolB
	durable := v.durable
	v.mu.Unlock()
	if early { // protocol B acknowledges what is in memory
		ack := &Ack{Received: b.mem[len(b.mem)-1].LSN, Durable: durable, Session: l.hello.Session}
		if err := l.write(ack); err != nil {
			return err
		}
	}
	for i := range b.mem {
		b.recs = append(b.recs, &b.mem[i])
		v.intent.Mark(b.mem[i].Offset, b.mem[i].Length)
	}
	if err := v.journal.Append(b.recs, notes, true); err != nil {
		v.fault(err)
		return err
	}
	v.mu.Lock()
	for i := range b.mem {
		rec := &b.mem[i]
		v.end, v.chain = rec.LSN, rec.CRC
		v.pushEvictable(rec)
	}
	v.appended, v.noted = v.end, notes.Stable
	v.unsynced += t.bytes
	v.believe(m.Stable)
	if v.unsynced > syncBytes || v.pressed() {
		kick(v.syncKick)
	}
	v.mu.Unlock()
	t.bytes = 0
	b.reset()
	return nil
}

// discard drops what was received and not journaled.
func (b *batch) discard() {
	for i := range b.mem {
		if b.mem[i].Buf != nil {
			b.mem[i].Buf.Unref()
		}
	}
	b.reset()
}

// awaitRoom waits until the journal takes a batch of so many bytes. What came with the
// batch as stable may be what makes the room, and nothing else would bring it: it would
// come behind the batch (19a). v.seq is held before and after, not while it waits.
func (l *link) awaitRoom(bytes int64, stable LSN) error {
	v := l.v
	v.mu.Lock()
	defer v.mu.Unlock()
	v.believe(stable)
	bytes = v.limits.batch(bytes)
	if v.journalHas(bytes) && v.queue.n < maxQueue {
		return nil
	}
	end := v.end
	v.seq.Unlock()
	v.mu.Unlock()
	err := l.passHeld() // the applier may wait for it
	v.mu.Lock()
	if err == nil {
		err = v.await(l.ctx, func() (bool, error) {
			kick(v.syncKick)
			kick(v.applyKick)
			kick(v.checkpointKick)
			return v.journalHas(bytes) && v.queue.n < maxQueue, v.failure
		})
		v.starved = false // nobody waits any more
	}
	v.mu.Unlock() // v.seq is taken before v.mu
	v.seq.Lock()
	v.mu.Lock()
	if err == nil && (v.end != end || l.peer.link != l) {
		err = errAgain
	}
	return err
}

// believe takes in the Primary's stable LSN, as far as we have its records: it
// counts only from the connection of the current epoch (replication.md 3).
// v.mu is held.
func (v *Volume) believe(stable LSN) {
	if s := v.queue.wholeTo(min(stable, v.end)); s > v.stable {
		v.stable = s
	}
}

func (l *link) syncRequest(body []byte) error {
	var m SyncRequest
	if err := m.Decode(body); err != nil {
		return err
	}
	v := l.v
	v.mu.Lock()
	if lsn := min(m.LSN, v.end); lsn > v.syncWant {
		v.syncWant, v.resting = lsn, true
	}
	v.mu.Unlock()
	kick(v.syncKick)
	return nil
}

// heard takes in a heartbeat: with it comes a stable LSN that no record
// carried.
func (l *link) heard(body []byte) error {
	var m Heartbeat
	if err := m.Decode(body); err != nil {
		return err
	}
	v := l.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if l.peer.link != l || m.Epoch < v.super.Epoch {
		return errAgain
	}
	v.believe(m.Stable)
	if v.pressed() {
		kick(v.syncKick)
	}
	return nil
}

// setUpdate records the in-sync set that the Primary recorded.
func (l *link) setUpdate(body []byte) error {
	var m SetUpdate
	if err := m.Decode(body); err != nil {
		return err
	}
	v := l.v
	v.mu.Lock()
	self, dead := v.self(), l.peer.link != l || m.Epoch < v.super.Epoch
	v.mu.Unlock()
	if dead || !m.Confirmed {
		return errAgain
	}
	err := v.commitSuper(func(sb *Superblock) {
		sb.told(m.Set, m.SetVersion)
	})
	if err != nil {
		return err
	}
	if setHas(m.Set, self) {
		return v.agree(m.Set)
	}
	return nil
}
