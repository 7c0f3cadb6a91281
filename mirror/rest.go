package mirror

import "time"

// While clients flush, the applier rests: its writes to random places would make
// each sync of the journal longer, where they share a device, and what is
// overwritten meanwhile need not be written at all. What waits is bounded by
// pressedToApply, and is in the pending index, from where reads have it.

// applyRest is for how long nobody has to ask for a sync before the applier takes
// up its work.
const applyRest = 100 * time.Millisecond

// stillResting ends the applier's rest if nobody has asked for a sync since asked,
// and returns what is asked for now.
func (v *Volume) stillResting(asked LSN) LSN {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.resting, v.restWatched = v.syncWant != asked, false
	return v.syncWant
}

// wakeApplier tells the applier that there is something to do, unless it rests.
// v.mu is held.
func (v *Volume) wakeApplier() {
	if !v.resting || !v.restWatched || v.pressedToApply() {
		kick(v.applyKick)
	}
}

// applyDue reports whether it is time to bring records to the store.
func (v *Volume) applyDue() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.resting || v.pressedToApply()
}

// pressedToApply reports whether the applier may not rest: somebody waits for it,
// or memory or the journal will be full soon. v.mu is held.
func (v *Volume) pressedToApply() bool {
	q := v.queue
	return v.detached != nil || v.applied < v.applyWant || v.starved || q.held > v.opts.PendingLimit/4*3 || q.n > maxQueue/2 ||
		v.roomIsShort()
}

// roomIsShort reports whether the journal has little room beyond what keeps the
// writers waiting. v.mu is held.
func (v *Volume) roomIsShort() bool {
	size := v.journal.Size()
	return size-v.journal.Used() < v.limits.room(0)+size/4
}

// applyAll has the applier bring to the store what is stable by now, though it
// rests: nothing stays in memory and in doubt for longer than intentTicks.
func (v *Volume) applyAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.applyWant = v.stable
	v.wakeApplier()
}
