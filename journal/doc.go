// Package journal is the write-ahead journal of one replica: the records of its
// volume, in their order, kept until nobody needs them. It knows nothing of
// peers, histories or the backing store; [Options.Valid] and [Notes] are all
// that it is told of them.
//
// # Invariants
//
// Numbers are those of docs/architecture.md, section 4.
//
//   - 1, WAL rule: Sync says what is durable, and nothing else does.
//   - 4, one order: Append takes the next LSN only, chained by its CRC.
//   - 5, retention: Trim lets whole segments go, when it is told to.
//   - 9, a failed fsync is final: after one, or after a failed write, every
//     Append, Sync, Trim, Truncate and Reset is ErrFailed.
//   - A restart needs no help: what a crash left torn is cut by Open. What had
//     been noted as durable and is unreadable is ErrDamaged, never a shorter
//     journal.
//
// # Design
//
// A journal is a directory of segment files, each written full once, then
// recycled for ever: syncs into blocks that were written before take half the
// time. A new life of a segment begins with a header, in two copies that are
// made durable one after the other. The segment with the highest sequence
// number is the newest; links lead back to the oldest one that it says is
// needed. Records at or past the next segment's first LSN are dead, so a
// truncation is a new segment, and nothing is ever rewritten in place. What
// recycled segments still hold has another segment's number in its batch
// headers, other LSNs, or another chain of CRCs.
//
// A batch is written by one vectored write, straight from the callers' buffers,
// right behind the one before it. Not into a block that may be durable, though: a
// power loss in the middle of writing it again could take what it held. So the
// first batch after a sync has begun takes a block of its own.
// A batch of which any part is torn was never synced, and is dropped as a whole.
//
// Every segment but the last was synced before the next one began. In the last
// one, batch headers note how far the journal was durable: damage below that is
// ErrDamaged. A record that was synced, but not yet noted in a later batch, and
// that then rots, cannot be told from one that was torn.
//
// # Who owns what
//
// One goroutine at a time appends, truncates, resets and closes. Trim, Sync,
// readers and the rest may run beside it and each other. Append keeps nothing of
// its records; a reader's record owns one reference to its buffer.
//
// Memory: an index of 16 bytes per 4 KiB page at most (0.4 % of the journal's size),
// scratch for the largest batch's headers, while Open or Check run 1 MiB and the
// largest payload (1 MiB), and for each reader 256 KiB that it read ahead.
//
// # Reading the source
//
// record.go and format.go hold the bytes. append.go, roll.go and sync.go are a
// batch's way to the disk; open.go, scan.go (which reads through a stream.go) and
// recover.go what a restart makes of it; trim.go and truncate.go the two ends;
// reader.go and payload.go the way back; check.go reads without changing.
package journal
