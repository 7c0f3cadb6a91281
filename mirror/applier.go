package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
	"github.com/lockstep-storage/lockstep/snapshot"
)

// What one round of the applier takes at most. Its writes go out in the order of
// their offsets: the more there are, the less each costs.
const (
	applyBytes   = 16 << 20
	applyRecords = 8192
)

// checkpointBytes is how much is applied between two syncs of the store.
const checkpointBytes = 32 << 20

// retryNoSpace is the pause before a store that was full is tried again.
const retryNoSpace = time.Second

// applier carries stable records from the queue to the backing store
// (invariant 2, apply when stable). Volume.apply guards it.
type applier struct {
	entries    []entry
	ranges     []extent        // of the entries
	newest     []extent        // their newest bytes, by offset
	work       *extents        // finds them where ranges overlap; empty between two clusters
	loaded     []*block.Buffer // payloads read back from the journal
	out        writeOut
	overwrites []snapshot.Range
	bytes      int64 // applied since the last checkpoint
}

func (v *Volume) applyLoop() {
	// What was found at the start gives way to a promotion that follows at once.
	retry, rest := time.NewTimer(time.Hour), time.NewTimer(applyRest)
	defer retry.Stop()
	defer rest.Stop()
	var asked LSN
	for {
		select {
		case <-v.applyKick:
		case <-rest.C:
			asked = v.stillResting(asked)
		case <-retry.C:
		case <-v.ctx.Done():
			return
		}
		for v.applyDue() && v.applyRound() {
		}
		v.mu.Lock()
		if v.noSpace {
			retry.Reset(retryNoSpace)
		}
		if v.resting && !v.restWatched {
			v.restWatched = true
			rest.Reset(applyRest)
		}
		v.mu.Unlock()
	}
}

// applyRound applies one round and reports whether there may be more to do.
func (v *Volume) applyRound() bool {
	v.apply.Lock()
	defer v.apply.Unlock()
	if v.diskless() {
		v.dropStable()
		return false
	}
	a := &v.applier
	upTo, ok := v.collect(a)
	if !ok {
		return false
	}
	defer a.reset()
	err := v.applyCollected(a)
	if isNoSpace(err) {
		if v.yieldSnapshot(err) {
			return true
		}
		v.outOfSpace(err)
		return false
	}
	if err != nil {
		v.faultStore(err)
		return false
	}
	v.mu.Lock()
	v.applied = upTo // show does not enter it any more
	v.mu.Unlock()
	v.pending.leave(a.ranges, upTo)
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.queue.held + v.queue.evicted
	v.queue.popTo(upTo)
	a.bytes += before - v.queue.held - v.queue.evicted
	if v.noSpace {
		v.noSpace = false
		v.log.Info("there is space again")
	}
	if a.bytes >= min(checkpointBytes, v.journal.Size()/4) || a.bytes >= v.limits.segment && v.roomIsShort() || v.starved {
		kick(v.checkpointKick)
	}
	v.broadcast()
	return true
}

// collect copies the next round's entries out of the queue; their buffers stay
// referenced by it, for only the applier takes from its front.
func (v *Volume) collect(a *applier) (upTo LSN, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failure != nil {
		return 0, false
	}
	stable := min(v.stableNote, v.appended)
	if v.held {
		stable = min(stable, v.heldAt)
	}
	limit := v.queue.wholeTo(stable)
	if v.role == Primary {
		limit = min(limit, v.committed)
	}
	if v.applyCut > limit {
		limit = min(v.applyCut, v.stableNote)
	}
	bytes, whole := int64(0), 0
	most := min(applyBytes, v.opts.PendingLimit/4)
	for l := v.queue.first; l <= limit; l++ {
		e := v.queue.at(l)
		a.entries = append(a.entries, *e)
		bytes += e.rec.Length
		if e.rec.Flags&journal.FlagLast != 0 || l == v.applyCut {
			upTo, whole = l, len(a.entries)
			if bytes >= most || whole >= applyRecords {
				break
			}
		}
	}
	clear(a.entries[whole:])
	a.entries = a.entries[:whole]
	return upTo, whole > 0
}

// applyCollected writes the newest bytes of the round, in the order of offsets.
func (v *Volume) applyCollected(a *applier) error {
	if err := v.load(a); err != nil {
		return err
	}
	for i := range a.entries {
		e := &a.entries[i]
		if x, ok := extentOf(e); ok {
			a.ranges = append(a.ranges, x)
		}
	}
	parts := a.coalesce()
	if v.keepers.Load() != nil {
		if err := v.preserve(a.rangesOf(parts)); err != nil {
			return err
		}
	}
	return a.out.write(parts)
}

// rangesOf is what a round overwrites.
func (a *applier) rangesOf(parts []extent) []snapshot.Range {
	a.overwrites = a.overwrites[:0]
	for _, x := range parts {
		a.overwrites = append(a.overwrites, snapshot.Range{Off: x.off, N: x.end - x.off})
	}
	return a.overwrites
}

// coalesce returns the newest bytes of a.ranges as extents that do not overlap,
// by offset. Mostly none overlap, and sorting them is all; those that do go, by
// clusters, through a set that knows which is newest.
func (a *applier) coalesce() []extent {
	slices.SortFunc(a.ranges, func(x, y extent) int {
		return cmp.Or(cmp.Compare(x.off, y.off), cmp.Compare(x.lsn, y.lsn))
	})
	for from := 0; from < len(a.ranges); {
		to, end := from+1, a.ranges[from].end
		for to < len(a.ranges) && a.ranges[to].off < end {
			end = max(end, a.ranges[to].end)
			to++
		}
		if to == from+1 {
			a.newest = append(a.newest, a.ranges[from])
		} else {
			a.settle(a.ranges[from:to], end)
		}
		from = to
	}
	return a.newest
}

// settle appends the newest bytes of a cluster, which ends at end, to a.newest.
// What one record has in neighbouring extents becomes one again.
func (a *applier) settle(cluster []extent, end int64) {
	off := cluster[0].off
	slices.SortFunc(cluster, func(x, y extent) int { return cmp.Compare(x.lsn, y.lsn) })
	for _, x := range cluster {
		a.work.insert(x)
	}
	first := len(a.newest)
	a.work.overlapping(off, end, func(x extent) bool {
		if n := len(a.newest); n > first {
			if last := &a.newest[n-1]; last.lsn == x.lsn && last.end == x.off {
				last.end = x.end
				if x.data != nil { // it lies behind what last has of the same payload
					last.data = last.data[:len(last.data)+len(x.data)]
				}
				return true
			}
		}
		a.newest = append(a.newest, x)
		return true
	})
	a.work.clear()
}

// load reads the round's evicted payloads back, in their order.
func (v *Volume) load(a *applier) (err error) {
	var r *journal.Reader // at the next record
	defer func() {
		if r != nil {
			r.Close()
		}
	}()
	for i := range a.entries {
		e := &a.entries[i]
		if r == nil && !e.evicted {
			continue
		}
		if r == nil {
			if r, err = v.journal.NewReader(e.rec.LSN); err != nil {
				return fmt.Errorf("read the journal from LSN %d to apply it: %w", e.rec.LSN, err)
			}
		}
		next := r.NextHeader // it is in memory
		if e.evicted {
			next = r.Next
		}
		var rec journal.Record
		ok, err := next(&rec)
		if err == nil && (!ok || rec.LSN != e.rec.LSN) {
			err = fmt.Errorf("the journal has LSN %d there: %w", rec.LSN, journal.ErrDamaged)
		}
		if err != nil {
			return fmt.Errorf("read LSN %d back from the journal to apply it: %w", e.rec.LSN, err)
		}
		if rec.Buf != nil {
			a.loaded = append(a.loaded, rec.Buf)
		}
		if e.evicted {
			e.rec.Payload, e.evicted = rec.Payload, false
		}
	}
	return nil
}

func (a *applier) reset() {
	for _, b := range a.loaded {
		b.Unref()
	}
	clear(a.entries)
	clear(a.ranges)
	clear(a.newest)
	clear(a.loaded)
	a.entries, a.ranges, a.newest, a.loaded = a.entries[:0], a.ranges[:0], a.newest[:0], a.loaded[:0]
	a.out.reset()
}

// outOfSpace keeps what could not be applied where it is, in the journal and in
// memory, and has new writes refused until the store takes it.
func (v *Volume) outOfSpace(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.noSpace && !errors.Is(err, snapshot.ErrFull) { // haltResync has said so
		v.log.Error("the backing store is full: writes are refused until it has space; nothing is lost", "error", err)
	}
	v.noSpace = true
	v.broadcast()
}

// checkpointLoop syncs the store now and then, which lets the journal's tail
// move.
func (v *Volume) checkpointLoop() {
	tick := time.NewTicker(5 * v.opts.SyncInterval)
	defer tick.Stop()
	for ticks := 0; ; {
		idle := false
		select {
		case <-v.checkpointKick:
		case <-tick.C:
			ticks++
			if idle = ticks%intentTicks == 0; idle {
				v.applyAll()
			}
		case <-v.ctx.Done():
			return
		}
		if err := v.takeCheckpoint(); err == nil {
			v.trim()
			v.dropBefore()
			if idle {
				v.clearIntent()
			}
		}
	}
}

// takeCheckpoint makes what was applied durable in the store.
func (v *Volume) takeCheckpoint() error {
	v.tail.Lock()
	defer v.tail.Unlock()
	v.apply.Lock()
	v.mu.Lock()
	upTo, have, failed := v.applied, v.checkpoint, cmp.Or(v.failure, v.detached)
	v.mu.Unlock()
	v.applier.bytes = 0
	v.apply.Unlock()
	if upTo <= have || failed != nil {
		return failed
	}
	if err := v.store.Sync(); err != nil {
		err = fmt.Errorf("sync the backing store: %w", err)
		v.faultStore(err)
		return err
	}
	v.mu.Lock()
	v.checkpoint = max(v.checkpoint, upTo)
	v.broadcast()
	v.mu.Unlock()
	return nil
}
