package mirror

import (
	"time"

	"github.com/lockstep-storage/lockstep/journal"
)

// syncBytes is how much may be appended before a sync is begun that nobody
// asked for: it bounds what a power failure takes, and keeps the stable LSN,
// and with it the applier, moving.
const syncBytes = 8 << 20

// syncLoop syncs the journal for whoever waits, and in the background: all who
// wait when a round begins are served by it (group commit).
func (v *Volume) syncLoop() {
	tick := time.NewTicker(v.opts.SyncInterval)
	defer tick.Stop()
	for {
		background := false
		select {
		case <-v.syncKick:
		case <-tick.C:
			background = true
		case <-v.ctx.Done():
			return
		}
		for v.syncRound(background) {
			background = false
		}
	}
}

// syncRound syncs the journal if somebody waits for it or it is due, and
// reports whether another round is.
func (v *Volume) syncRound(background bool) (again bool) {
	if v.abandoned() {
		return false
	}
	v.mu.Lock()
	wanted := v.syncWant > v.durable && v.appended > v.durable
	due := background || v.unsynced > syncBytes || v.pressed()
	unsynced := v.appended > v.durable
	unnoted := v.stable > v.stableNote
	v.mu.Unlock()
	if !wanted && !(due && (unsynced || unnoted)) {
		return false
	}
	if due && unnoted {
		v.note()
	}
	if err := v.syncNow(); err != nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.syncWant > v.durable && v.appended > v.durable || v.unsynced > syncBytes ||
		v.pressed() && v.stable > v.stableNote
}

// pressed reports whether somebody waits for the applier, or writers are near the limits that only applying
// records moves, and a note of what is stable would give the applier more to do
// than it has. v.mu is held.
func (v *Volume) pressed() bool {
	if v.applyWant > v.stableNote && v.stable > v.stableNote {
		return true // somebody waits for it to be applied
	}
	if v.stableNote > v.applied && int(v.stableNote-v.applied) > v.queue.n/2 {
		return false
	}
	return v.queue.held > v.opts.PendingLimit/4 || v.queue.n > maxQueue/4 || v.journal.Used() > v.journal.Size()/2
}

// note writes an empty batch if the last one noted an older stable LSN: a
// stable LSN is acted on only once it is noted durably (replication.md 3).
func (v *Volume) note() {
	v.seq.Lock()
	defer v.seq.Unlock()
	v.mu.Lock()
	notes, old := v.notes(), v.noted
	v.mu.Unlock()
	if notes.Stable <= old {
		return
	}
	v.appendNote(notes)
}

// appendNote writes an empty batch. v.seq is held.
func (v *Volume) appendNote(notes journal.Notes) {
	if v.abandoned() {
		return
	}
	if err := v.journal.Append(nil, notes, true); err != nil {
		v.fault(err)
		return
	}
	v.mu.Lock()
	v.noted = notes.Stable
	v.mu.Unlock()
}

// syncNow makes everything appended before the call durable. None of it counts
// as durable before its region's write-intent mark is (invariant 1): the marks,
// which were made before the records were appended, go last.
func (v *Volume) syncNow() error {
	if v.abandoned() {
		return nil
	}
	v.mu.Lock()
	noted, cuts := v.noted, v.cuts
	v.unsynced = 0
	v.mu.Unlock()
	durable, err := v.journal.Sync()
	if err == nil {
		err = v.intent.Flush()
	}
	if err != nil {
		v.fault(err)
		return err
	}
	v.synced(durable, noted, cuts)
	return nil
}

// synced takes in what a sync made durable, unless the journal was truncated
// since it began: some of it is gone then, and others stand in its place.
func (v *Volume) synced(durable, noted LSN, cuts uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cuts != cuts {
		return
	}
	v.durable = max(v.durable, durable)
	v.stableNote = max(v.stableNote, noted)
	v.advance()
	if v.role == Secondary {
		v.kickSenders() // it is acknowledged
	}
	v.wakeApplier()
	v.broadcast()
}
