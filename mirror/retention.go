package mirror

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/journal"
)

// trim lets records leave the journal (invariant 5, retention or bitmap): those
// that are applied and durable in the store, and that every configured peer
// either has durably or has set in its durable out-of-sync bitmap.
//
// What gives way first is what nobody needs. A peer that is away keeps its
// records until the journal is three quarters full; then the oldest go into its
// bitmap, and so do those of one in catch-up that is out for being slow. Any other
// in catch-up keeps them, and writers wait (replication.md 8, 13c).
func (v *Volume) trim() {
	v.tail.Lock()
	defer v.tail.Unlock()
	v.mu.Lock()
	starved, trimmed := v.starved, v.trimmed
	v.mu.Unlock()
	size := v.journal.Size()
	if v.journal.Used() < size/4 && !starved {
		return
	}
	limit, err := v.raiseBases()
	if err == nil && (v.journal.Used() > size/4*3 || starved && limit <= trimmed) {
		limit, err = v.bitsInstead(size / 4)
	}
	if err == nil && limit <= trimmed {
		return // wakes nobody: whoever waits for room would ask for another trim at once
	}
	if err == nil {
		v.mu.Lock()
		v.trimmed = limit
		v.mu.Unlock()
		err = v.journal.Trim(limit)
	}
	if err != nil {
		v.fault(fmt.Errorf("trim the journal: %w", err))
		return
	}
	v.mu.Lock()
	v.broadcast()
	v.mu.Unlock()
}

// hold is what a peer lets go of: everything up to the LSN that it returns; away
// means that only its bitmap moves it. v.mu is held.
func (p *peer) hold() (upTo LSN, away bool) {
	v := p.v
	switch {
	case setHasNode(v.super.Set, p.node) && !v.super.Excluded && setHasNode(v.super.Set, v.opts.Node):
		return v.stable, false
	case p.link != nil && p.link.source.catchingUp:
		return max(p.durable, p.bitsThrough), false
	}
	return p.bitsThrough, true
}

// yields: the peer is in catch-up, and left the in-sync set for being slow. Clients
// wait for it no more, for room in the journal as little. v.mu is held.
func (p *peer) yields() bool {
	return p.lag.slow != nil && p.link != nil && p.link.source.catchingUp && !setHasNode(p.v.super.Set, p.node)
}

// raiseBases finds how far the journal may be trimmed without any new bits, and
// raises, durably, the base of each bitmap that would otherwise speak of less
// (replication.md 7).
func (v *Volume) raiseBases() (LSN, error) {
	v.mu.Lock()
	limit := v.checkpoint
	if !v.starved {
		// The generation records at the end may yet be given up, and the journal
		// be cut to what is before them (replication.md 6).
		limit = min(limit, v.super.History.LastWrite(v.end))
	}
	for _, p := range v.peers {
		upTo, _ := p.hold()
		limit = min(limit, upTo)
	}
	v.mu.Unlock()
	for _, p := range v.peers {
		v.mu.Lock()
		_, away := p.hold()
		base := v.position(limit)
		behind := p.bitsThrough < limit
		v.mu.Unlock()
		if away || !behind {
			continue
		}
		p.bits.SetBase(base)
		if err := p.bits.Flush(); err != nil {
			return 0, fmt.Errorf("raise the base of the out-of-sync bitmap of %q: %w", p.node, err)
		}
		v.mu.Lock()
		p.bitsThrough = max(p.bitsThrough, limit)
		v.mu.Unlock()
	}
	return limit, nil
}

// memberHoldings is what each member has durably, for certain. v.mu is held.
func (v *Volume) memberHoldings() map[*peer]LSN {
	has := map[*peer]LSN{}
	for _, p := range v.peers {
		if upTo, away := p.hold(); !away && setHasNode(v.super.Set, p.node) {
			has[p] = upTo
		}
	}
	return has
}

// raiseHeld raises the bases of the bitmaps of peers that leave the in-sync set to
// what they had when they were members: should one come back without its journal,
// nothing older is copied.
func (v *Volume) raiseHeld(has map[*peer]LSN) {
	for p, upTo := range has {
		v.mu.Lock()
		base, behind := v.position(upTo), p.bitsThrough < upTo
		v.mu.Unlock()
		if !behind {
			continue
		}
		p.bits.SetBase(base)
		if err := p.bits.Flush(); err != nil {
			v.fault(fmt.Errorf("raise the base of the out-of-sync bitmap of %q: %w", p.node, err))
			return
		}
		v.mu.Lock()
		p.bitsThrough = max(p.bitsThrough, upTo)
		v.mu.Unlock()
	}
}

// bitsInstead sets the oldest records, about so many bytes of them, in the
// bitmaps of the peers that are away, durably, and returns the new limit.
func (v *Volume) bitsInstead(bytes int64) (LSN, error) {
	v.mu.Lock()
	from, upTo := LSN(0), v.checkpoint
	var away []*peer
	for _, p := range v.peers {
		held, gone := p.hold()
		if !gone && !p.yields() {
			upTo = min(upTo, held)
			continue
		}
		away = append(away, p)
		if from == 0 || held+1 < from {
			from = held + 1
		}
	}
	v.mu.Unlock()
	if len(away) == 0 || from > upTo {
		return v.raiseBases()
	}
	clean := map[*peer]bool{}
	for _, p := range away {
		clean[p] = p.bits.Count() == 0
	}
	last, err := v.setBits(away, from, upTo, bytes)
	if err != nil {
		return 0, err
	}
	for _, p := range away {
		if err := p.bits.Flush(); err != nil {
			return 0, fmt.Errorf("write the out-of-sync bitmap of %q: %w", p.node, err)
		}
		v.mu.Lock()
		p.bitsThrough = max(p.bitsThrough, last)
		if clean[p] {
			v.emit(EventOutOfSync, p.node, fmt.Sprintf("%d bytes of what it lacks are no longer in the journal", p.bits.Count()))
		}
		v.mu.Unlock()
		v.log.Info("journal is short of space: the oldest writes went into the bitmap of a peer that is away or slow",
			"peer", p.node, "through", last, "outOfSyncBytes", p.bits.Count())
	}
	return v.raiseBases()
}

// setBits sets the ranges of the records from … upTo, until so many bytes of
// journal are covered, and returns the last one.
func (v *Volume) setBits(away []*peer, from, upTo LSN, bytes int64) (LSN, error) {
	// Should one rise meanwhile, some bits are set for nothing.
	through := make([]LSN, len(away))
	v.mu.Lock()
	for i, p := range away {
		through[i] = p.bitsThrough
	}
	v.mu.Unlock()
	last := from - 1
	err := v.scan(from, upTo, func(r *journal.Record) bool {
		for i, p := range away {
			if r.Kind != journal.KindGeneration && r.LSN > through[i] {
				p.mark(r.Offset, r.Length)
			}
		}
		last = r.LSN
		bytes -= int64(len(r.Payload)) + journal.HeaderSize
		return bytes > 0
	})
	return last, err
}

// scan calls f with each record from … upTo that the journal holds, until f
// says that it has seen enough. The payload is gone after the call.
func (v *Volume) scan(from, upTo LSN, f func(*journal.Record) bool) error {
	r, err := v.journal.NewReader(from)
	if err != nil {
		return fmt.Errorf("read the journal from LSN %d: %w", from, err)
	}
	defer r.Close()
	for {
		var rec journal.Record
		ok, err := r.Next(&rec)
		if err != nil {
			return fmt.Errorf("read the journal past LSN %d: %w", from, err)
		}
		if !ok || rec.LSN > upTo {
			if rec.Buf != nil {
				rec.Buf.Unref()
			}
			return nil
		}
		more := f(&rec)
		if rec.Buf != nil {
			rec.Buf.Unref()
		}
		if !more {
			return nil
		}
	}
}
