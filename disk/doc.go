// Package disk is the door to everything durable: a directory ([FS]) of files
// ([File]) whose writes are durable once [File.Datasync] returned and not
// before. Journal, bitmaps, superblock and file stores take it as an interface,
// so that all of them run on [OS], the operating system's files, or on a fake
// that loses, tears and damages what was not synced (package disk/fakedisk).
//
// # What is assumed of a disk
//
//   - A write that was not synced may, after a power loss, be there wholly, not
//     at all, or in any subset of its 512-byte sectors, in any order against
//     other unsynced writes. A sector is not torn.
//   - Datasync that returned nil is believed. Datasync that returned an error is
//     final: nothing unsynced of that file may be believed, and asking again
//     proves nothing (invariant 9).
//   - Names (Create, Rename, Remove) are durable once [FS.SyncDir] returned.
//   - Reads may return damaged bytes; whoever needs to know carries a CRC.
package disk
