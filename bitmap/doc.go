// Package bitmap keeps the two persistent bitmaps of a replica.
//
//   - [Map] is the out-of-sync bitmap: one for each peer, a bit for each block of
//     4 KiB in which the peer differs from us. It is relative to a [Base], the
//     last record that the peer is known to have (replication.md 7). [Blocks] is
//     such a set in memory alone: a snapshot, or what a peer told of its own.
//   - [Intent] is the write-intent bitmap: a bit for each region of 16 MiB with
//     records that are not yet in the backing store, durably, on every member.
//     It is what has to be resynced if the journal is lost.
//
// # Invariants
//
// The package upholds its part of two, and knows nothing of peers or journal:
// which bits to set, and when a Flush has to have returned, is its owner's
// affair.
//
//   - Invariant 5, retention or bitmap: what [Map.Set] set before a [Map.Flush]
//     that returned nil is set after any crash, until it is cleared; and the
//     base on disk is never ahead of the bits on disk.
//   - Invariant 1, WAL rule: a region that [Intent.Need] does not claim is marked
//     on disk.
//   - Invariant 9, a failed sync is final: after one, Flush and Reset return an
//     error that wraps [ErrFailed], for good.
//
// # Kills and failures
//
// What Open finds may be in the page cache alone: left by a process that was
// killed in mid-flush, or by one whose sync had failed. So the pages that it
// reads count as changed, and the first Flush writes them again.
//
// # Damage
//
// Every doubt is settled towards more work, never towards a lie. A page of bits
// that was torn or damaged counts as all set and is rewritten by the next Flush
// (see Damaged). The header is kept twice, each copy made durable on its own, so
// that either may be lost; if both are, Open fails with [ErrDamaged] and the
// owner presumes the worst. The format is in format.go.
//
// # Concurrency
//
// All methods may be called concurrently; [Intent.ClearIdle] wants no
// [Intent.Mark] beside it. No goroutine is started. Nothing is flushed unless
// asked: Close does not either.
package bitmap
