package mirror

import (
	"fmt"
	"slices"
)

// MaxGenerations is the most generations that a history keeps; Prune makes room.
const MaxGenerations = 1000

// leastGenerations is what Prune leaves at least: enough that a peer that was away for
// long still finds a common entry.
const leastGenerations = 64

// Histories are immutable values: every method that changes one returns another
// and leaves the old as it was, so a history may be shared and read concurrently.

// Last is the newest generation, nil if there is none. It is not to be changed.
func (h History) Last() *Generation {
	if len(h) == 0 {
		return nil
	}
	return &h[len(h)-1]
}

// At is the generation that a record at lsn belongs to, nil if lsn is before
// the first one. It is not to be changed. The last generation has no end here:
// only the journal knows it.
func (h History) At(lsn LSN) *Generation {
	i := h.index(lsn)
	if i < 0 {
		return nil
	}
	return &h[i]
}

// index of the generation of lsn, or -1.
func (h History) index(lsn LSN) int {
	i, found := slices.BinarySearchFunc(h, lsn, func(g Generation, lsn LSN) int {
		switch {
		case g.First < lsn:
			return -1
		case g.First > lsn:
			return 1
		}
		return 0
	})
	if found {
		return i
	}
	return i - 1
}

// Position names the record at lsn; the zero Position is the volume's beginning,
// all zeroes.
func (h History) Position(lsn LSN) Position {
	g := h.At(lsn)
	if g == nil {
		return Position{LSN: lsn}
	}
	return Position{Generation: g.ID, LSN: lsn}
}

// Holds reports whether the record that p names is in this history, which ends
// at end. Every history holds the zero Position.
func (h History) Holds(p Position, end LSN) bool {
	return p == Position{} || p.LSN != 0 && p.LSN <= end && h.Position(p.LSN) == p && !p.Generation.IsZero()
}

// Valid reports whether a record of the generation with this tag may stand at
// lsn (replication.md 1; for journal.Options.Valid).
//
// Below a pruned history's first entry every tag is accepted. That is no hole:
// the chain of CRCs ties those records to the first one whose tag is known, so
// an old record among them ends the journal below the durable LSN that it
// notes, which is damage and not an end.
func (h History) Valid(lsn LSN, tag uint64) bool {
	g := h.At(lsn)
	if g == nil {
		return lsn != 0 && h.pruned()
	}
	return g.Tag() == tag
}

// pruned reports whether older generations were dropped from h: the first one
// of a volume has no parent.
func (h History) pruned() bool { return len(h) > 0 && !h[0].Parent.IsZero() }

// Append returns h with g as its newest generation. It fails if g does not
// follow: its first LSN must be past the last generation's, and its parent be
// that generation (none, for the first).
func (h History) Append(g Generation) (History, error) {
	var parent ID
	if last := h.Last(); last != nil {
		parent = last.ID
		if g.First <= last.First {
			return nil, fmt.Errorf("generation %v at LSN %d cannot follow generation %v at LSN %d", g.ID, g.First, last.ID, last.First)
		}
	}
	if g.Parent != parent {
		return nil, fmt.Errorf("generation %v at LSN %d has parent %v, but the history's last generation is %v", g.ID, g.First, g.Parent, parent)
	}
	if g.First == 0 || g.ID.IsZero() {
		return nil, fmt.Errorf("generation %v at LSN %d: the first LSN is 1 and an id is wanted", g.ID, g.First)
	}
	return append(slices.Clip(h), g), nil
}

// CutTo drops the generations that begin past end: no generation is empty, so
// they never had a record here (replication.md 6).
func (h History) CutTo(end LSN) History {
	return slices.Clip(h[:h.index(end)+1])
}

// Prune makes room in a history that has reached MaxGenerations, or tells of as many
// rollbacks as one may: it drops the oldest half, but neither the one of keepFrom (the oldest LSN that may
// have to be compared, truncated to or resynced from: at most the stable LSN
// and any resync base), nor a later one, nor the newest 64.
func (h History) Prune(keepFrom LSN) History {
	if len(h) < MaxGenerations && h.rollbacks() < maxHistoryRollbacks {
		return h
	}
	drop := min(len(h)/2, max(h.index(keepFrom), 0), len(h)-leastGenerations)
	return slices.Clone(h[drop:])
}

// Writes counts the records from first to last that are no generation records.
// Exact where h is not pruned beyond first.
func (h History) Writes(first, last LSN) uint64 {
	if last < first {
		return 0
	}
	n := uint64(last-first) + 1
	for _, g := range h {
		if g.First >= first && g.First <= last {
			n--
		}
	}
	return n
}

// LastWrite is the newest record up to end that is no generation record, 0 if
// there is none. Exact where h is not pruned beyond it.
func (h History) LastWrite(end LSN) LSN {
	for i := h.index(end); i >= 0 && h[i].First == end; i-- {
		end--
	}
	return end
}

// RollingBack is the snapshot that a volume whose newest record is at end is in the
// middle of being rolled back to; zero: it is not.
func (h History) RollingBack(end LSN) RollbackTarget {
	if g := h.At(end); g != nil {
		return g.RollingBack
	}
	return RollbackTarget{}
}

// rollbacks counts the generations that say otherwise than those before them that the
// volume is being rolled back.
func (h History) rollbacks() (n int) {
	was := RollbackTarget{}
	for i := range h {
		if t := h[i].RollingBack; t != was && !t.IsZero() {
			n++
		}
		was = h[i].RollingBack
	}
	return n
}

// Common finds where two histories part: c is the newest LSN whose record both
// hold, k the index in ours of its generation, the last common one. Without a
// common generation k is -1 and c is 0. ourEnd and theirEnd are the LSNs at which the
// histories end. One of them may have been pruned further than the other.
//
// An error means that the two contradict each other in what they share: one of
// them is damaged.
func Common(ours, theirs History, ourEnd, theirEnd LSN) (c LSN, k int, err error) {
	ours, theirs = ours.CutTo(ourEnd), theirs.CutTo(theirEnd)
	k, j := lastShared(ours, theirs)
	if k < 0 {
		return 0, -1, nil
	}
	for back := 0; back <= min(k, j); back++ {
		if err := sameGeneration(&ours[k-back], &theirs[j-back]); err != nil {
			return 0, -1, err
		}
	}
	return min(ours.endOf(k, ourEnd), theirs.endOf(j, theirEnd)), k, nil
}

// lastShared is where the newest id that both histories hold stands in each, or
// -1, -1.
func lastShared(ours, theirs History) (k, j int) {
	where := make(map[ID]int, len(theirs))
	for j := range theirs {
		where[theirs[j].ID] = j
	}
	for k := len(ours) - 1; k >= 0; k-- {
		if j, ok := where[ours[k].ID]; ok {
			return k, j
		}
	}
	return -1, -1
}

// endOf is the last LSN of generation k in a history that ends at end.
func (h History) endOf(k int, end LSN) LSN {
	if k+1 < len(h) {
		return h[k+1].First - 1
	}
	return end
}

// sameGeneration says how two generations at the same place differ. They share
// an ancestor's id, and every id names its parent, so they cannot.
func sameGeneration(a, b *Generation) error {
	switch {
	case a.ID != b.ID:
		return fmt.Errorf("a common generation has parent %v (LSN %d) here and %v (LSN %d) there", a.ID, a.First, b.ID, b.First)
	case a.First != b.First:
		return fmt.Errorf("generation %v begins at LSN %d here and at LSN %d there", a.ID, a.First, b.First)
	case a.Parent != b.Parent || a.Epoch != b.Epoch || a.SetVersion != b.SetVersion || !setEqual(a.Set, b.Set):
		return fmt.Errorf("generation %v at LSN %d has another parent, epoch or in-sync set here than there", a.ID, a.First)
	}
	return nil
}
