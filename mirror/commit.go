package mirror

import (
	"time"

	"github.com/lockstep-storage/lockstep/block"
)

// A flushWait is a request that waits until a record is stable.
type flushWait struct {
	lsn LSN
	req *block.Request
}

// addFlush completes req once lsn is stable: durable on every in-sync replica. It
// reports whether the peers have to be asked for that. v.mu is held.
func (v *Volume) addFlush(req *block.Request, lsn LSN) (ask bool) {
	if v.stable >= lsn && v.led {
		finish(req, nil)
		return false
	}
	v.flushes = append(v.flushes, flushWait{lsn, req})
	if !v.suspended {
		v.pace.flushing(lsn)
	}
	return v.noteSync(lsn)
}

// wantSync asks for lsn to become durable, here and on every voter, at the same
// time (architecture, section 5). v.mu is held; the caller kicks the syncer
// once the record is in the journal.
func (v *Volume) wantSync(lsn LSN) {
	if v.noteSync(lsn) {
		v.kickSenders()
	}
}

// noteSync is wantSync, but for the senders: it reports whether they are to be
// kicked. v.mu is held.
func (v *Volume) noteSync(lsn LSN) bool {
	if lsn <= v.syncWant {
		return false
	}
	v.syncWant, v.resting = lsn, true
	return true
}

// advance moves committed and stable as far as the acknowledgements reach, and
// completes what waited for them. Neither goes back. v.mu is held.
//
// A write commits once every voter has it; it is stable once every voter has it
// durably. A new Primary commits nothing before its generation record is
// durable on every member, and with it everything before (replication.md 2).
func (v *Volume) advance() {
	if v.role != Primary || v.failure != nil || v.detaching {
		return
	}
	received, durable := v.reach()
	if !v.led {
		if durable < v.generation {
			return
		}
		v.heed(generationDurable{time.Now()})
		v.broadcast()
	}
	received = min(received, v.quorumLimit())
	if c := v.queue.wholeTo(received); c > v.committed {
		v.commitTo(c)
	}
	if s := v.queue.wholeTo(min(durable, v.committed)); s > v.stable {
		v.evict(v.stable+1, s)
		v.stable = s
		v.completeFlushes()
		v.pace.stable(s)
		v.kickSenders()
		if v.unsynced > 0 && v.queue.held > v.opts.PendingLimit/4 {
			kick(v.syncKick)
		}
		if v.detached != nil {
			kick(v.applyKick) // to let go of it
		}
		v.broadcast()
	}
}

// commitTo makes the records up to c visible to reads and answers their
// requests.
func (v *Volume) commitTo(c LSN) {
	from := v.committed + 1
	if v.detached == nil {
		v.pending.enter(v.queue, from, c)
	}
	v.pace.committed(c)
	v.committed, v.crcAt, v.commitCRC = c, c, v.queue.at(c).rec.CRC
	ask := false
	for l := from; l <= c; l++ {
		e := v.queue.at(l)
		req := e.req
		if req == nil {
			continue
		}
		e.req = nil
		if req.FUA || !v.super.WriteCache {
			req.Buf = nil
			ask = v.addFlush(req, l) || ask
		} else {
			finish(req, nil)
		}
	}
	if ask {
		v.kickSenders()
	}
	if v.waiters != nil {
		v.broadcast()
	}
}

// evict leaves the payloads of those records from … to, which become stable, that a
// sync was asked for to the journal alone, if memory holds half of what it may: so
// what is flushed is bounded by the journal, and what is not, by memory. The
// applier takes none of them before they are noted as stable, and none that it may
// have taken is let go of here: it holds no reference. v.mu is held.
func (v *Volume) evict(from, to LSN) {
	to = min(to, v.syncWant)
	if v.detached != nil || v.queue.held <= v.opts.PendingLimit/2 {
		return
	}
	v.pending.evict(v.queue, from, to)
	for l := from; l <= to; l++ {
		v.queue.evict(l)
	}
}

func (v *Volume) completeFlushes() {
	rest := v.flushes[:0]
	for _, f := range v.flushes {
		if f.lsn <= v.stable {
			finish(f.req, nil)
		} else {
			rest = append(rest, f)
		}
	}
	if n := len(v.flushes) - len(rest); n > 1 {
		v.crowd.Store(crowdTurns)
	} else if n == 1 && v.crowd.Load() > 0 {
		v.crowd.Add(-1)
	}
	clear(v.flushes[len(rest):])
	v.flushes = rest
}

func (v *Volume) failFlushes(err error) {
	for _, f := range v.flushes {
		finish(f.req, err)
	}
	v.flushes = nil
}
