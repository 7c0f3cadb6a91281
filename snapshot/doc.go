// Package snapshot keeps one image of a store while the store goes on changing:
// before a block is overwritten for the first time, its old content is appended
// to the snapshot's file (copy-on-write). The image is what was preserved, and
// everywhere else what the store holds. Package mirror goes back to it when a
// bitmap resync cannot be finished, and keeps images for users with it.
//
// # Use
//
// [Create] begins an image: the store as it is then. Whoever writes to the store
// calls [Snapshot.Preserve] first, and writes once that has returned nil; many
// ranges in one call cost one sync. [Snapshot.ReadAt] reads the image,
// [Snapshot.Restore] writes it back over the store, [Open] finds it again after a
// crash, and [Snapshot.Discard] ends it. [Check] reads a file and changes nothing.
//
// # Invariants
//
//   - What was overwritten after a Preserve that returned nil is in the file,
//     durably: after any crash the image is the one that Create began.
//   - A block is preserved once. Later contents of it are of another image.
//   - Whatever reads as zeroes, a hole or not, is preserved without data.
//   - Invariant 9, a failed sync is final: after one, Preserve returns an error
//     that wraps [ErrFailed], for good. What is in the file already goes on being
//     the image's, for nothing was overwritten on the strength of the rest. A disk
//     that is full is no failure: the call changed nothing and may be repeated.
//   - Restore may be repeated, whole, after a crash in the middle of it.
//
// # Damage
//
// One batch is appended at a time, and synced before the next begins. So the last
// one alone can be torn, and is cut by Open: what it was to preserve was never
// overwritten. Anything else that does not fit is damage, which is an error that
// says where, and never skipped. Open and Close append an empty batch, which
// vouches for the one before it. The data of a batch that is not the last is
// checked when it is read; [Snapshot.Verify] reads all of it. The format is in
// format.go.
//
// # Memory
//
// 32 bytes for each range that is in the file: of at most 256 KiB if it is data,
// of 16 MiB if it is zeroes, of 4 KiB at the least. And a buffer of up to 8 MiB.
//
// # Concurrency
//
// All methods may be called concurrently. Calls of Preserve take turns, so that a
// block which one of them is about to preserve is preserved for all of them when
// they return. No goroutine is started.
package snapshot
