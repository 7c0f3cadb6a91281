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
// their writing.
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
