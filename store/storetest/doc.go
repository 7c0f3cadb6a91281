// Package storetest is the suite that every store passes: it says by test what
// package mirror relies on, above all that a store reads as it was last written
// and as zeroes elsewhere, that it refuses what lies outside of it, and that a
// range that it calls a hole has only zeroes.
//
// [Run] takes a function that opens a new store:
//
//	func TestMemory(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Store { return store.NewMemory(4 << 20) })
//	}
//
// Random tests log the seed that LOCKSTEP_SEED gives or a new one. Durability
// is not its subject: that takes a disk whose power can be cut.
package storetest
