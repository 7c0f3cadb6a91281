// Package store holds what a replica's bytes live on:
//
//   - [File]: a sparse or preallocated file, or a block device, through the page
//     cache or past it (O_DIRECT),
//   - [Memory]: for tests and for volumes that may be forgotten,
//   - [Disk]: any disk.File, so that a replica runs on a disk that lies.
//
// All have the methods that package mirror asks of a store, and all pass one
// suite, package storetest.
//
// # What a store promises
//
//   - Its size never changes. A range outside of it is refused with
//     block.ErrOutOfRange and changes nothing.
//   - What was never written, and what [File.Zero] was called for, reads as
//     zeroes: also on a device, whose bare discards promise nothing
//     (replication.md 11).
//   - What was written before a Sync that returned nil is durable. Before that
//     a write may be lost or torn, in any order against others: package mirror
//     writes only what its journal holds durably (invariant 1, WAL rule).
//   - A failed Sync is final (invariant 9): it and all later ones wrap
//     [ErrFailed]. Reads and writes go on; what to do with them is the owner's
//     affair.
//   - WriteBack promises nothing, but that a Sync after one that failed fails too.
//   - A full disk's error satisfies errors.Is(err, syscall.ENOSPC).
//
// # Ownership and concurrency
//
// Buffers stay the caller's; nothing is kept after a call. All methods may be
// called concurrently, no goroutine is started, and nothing is cached beside
// the kernel's page cache; past that, nothing at all. Calls that overlap in
// their ranges may see each other half done; writes to different bytes, also of
// one block of a disk, both take place. Past the page cache a call that is not
// aligned has a buffer of 256 KiB while it runs. A File belongs to whoever opened it until Close: it is locked
// against a second opener, in this process or another.
//
// The package is for Linux.
package store
