// Package fakedisk is a disk that lies, for tests: a [disk.FS] in memory that
// keeps apart what was written and what is durable, and fails on request.
//
// It upholds nothing of its own: it exists to attack the invariants that stand
// on package disk's assumptions, above all 1 (WAL rule), 9 (a failed fsync is
// final) and 10 (the superblock commits first).
//
// # Fault model
//
//   - Power loss ([FS.Crash], [FS.CrashClone]): what was synced is there; of what was not, a
//     [Policy] chooses sector by sector (512 bytes) and name by name. A write
//     may be torn, and a later one be there without an earlier one.
//   - Kill of the process ([FS.Kill], [FS.KillClone]): everything written is
//     there, and is as durable as it was.
//   - Failure of any one operation ([FS.Fail], [FS.OnOp]), with any error. A
//     failed write may have written some of its sectors.
//   - A failed Datasync leaves every page that it was to sync in one of three
//     states, by seed: durable after all; as before the write; or readable as
//     written yet clean, so that no later Datasync makes it durable. This is
//     what Linux file systems do.
//   - Rot ([FS.Flip]): bits of a file that turn by themselves.
//
// Directories are durable when made, files cannot be opened without a name, and
// a sector is never torn: package disk says so.
//
// # Use
//
// One seed decides everything that is random, so a run repeats as long as the
// operations come in the same order. All methods may be called concurrently.
// Clones share nothing with the disk that they were taken of, neither faults
// nor locks.
package fakedisk
