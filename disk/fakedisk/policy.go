package fakedisk

import "math/rand/v2"

// Unsynced is a piece of an operation that no sync covers: a sector's worth of
// a write, a truncation, or a change of a name.
type Unsynced struct {
	Kind   Op     // OpWrite, OpTruncate, OpCreate, OpRename or OpRemove
	Name   string // of the file; for OpRename the new name
	Number int    // of the operation, rising over the whole disk
	Off    int64  // OpWrite: where the sector's piece begins; OpTruncate: the size
}

// A Policy decides whether a piece survives a power loss. It is asked in a fixed
// order: names first, then files by name, each file's pieces in the order of
// their writing. It is not asked about pieces that make no difference, because
// the file holds the same bytes without them.
type Policy func(Unsynced) (keep bool)

// LoseAll loses whatever was not synced.
func LoseAll(Unsynced) bool { return false }

// KeepAll loses nothing.
func KeepAll(Unsynced) bool { return true }

// KeepSome decides by seed: some operations survive, some do not, some are torn.
func KeepSome(seed uint64) Policy {
	rng := rand.New(rand.NewPCG(seed, 1))
	number, mood := -1, 0
	return func(u Unsynced) bool {
		if u.Number != number {
			number, mood = u.Number, rng.IntN(4)
		}
		switch mood {
		case 0:
			return false
		case 1:
			return true
		}
		return rng.IntN(2) == 0
	}
}

// Choices takes every way out of a power loss in turn: Keep is the policy, and
// Next goes on to another outcome until each combination of kept and lost
// pieces has been had. The zero value begins with the outcome that loses all.
//
//	var c fakedisk.Choices
//	for more := true; more; more = c.Next() {
//		left := d.CrashClone(c.Keep)
//		…
//	}
type Choices struct {
	taken []bool // the answers, in the order of the questions
	asked int    // of them, by now
}

// Keep is a Policy. What it is asked may depend on its earlier answers: a file
// without a name is lost whole.
func (c *Choices) Keep(Unsynced) bool {
	if c.asked == len(c.taken) {
		c.taken = append(c.taken, false)
	}
	c.asked++
	return c.taken[c.asked-1]
}

// Next turns to another outcome and reports whether there is one. The disk must
// not have changed since the first.
func (c *Choices) Next() bool {
	c.taken = c.taken[:c.asked] // the rest was not asked this time
	c.asked = 0
	for n := len(c.taken); n > 0; n-- {
		if !c.taken[n-1] {
			c.taken[n-1] = true
			c.taken = c.taken[:n]
			return true
		}
	}
	return false
}
