// Package powercut cuts the power of a guest of integration/lab while the real
// daemon works on a real file system, ext4 and xfs, and looks at what is left.
//
// # How the power is cut
//
// Below the file system lies the kernel's dm-log-writes, which notes on a disk of
// its own, in their order, the writes that a flush or FUA has made durable; what
// no flush covered is not in it, as it would not be on a disk that loses its
// cache. Whoever writes those entries to an empty disk, up to any of them, has
// the disk of a machine whose power failed there, with every unsynced write
// lost. So one run of the daemon gives as many power cuts as its log has
// entries.
//
// The program of folder cutter does all that in the guest. Its writer is a client
// of ours that numbers its writes; each flush that the daemon has acknowledged
// becomes a mark in the log, which is not the file system's disk. After a cut
// the file system is mounted, the daemon started on it, and the volume read: it
// must be as after exactly the first k writes, and k no less than what the last
// mark before the cut says.
//
// That writes are really lost is tested, too: a file that was written and not
// synced is gone, or not whole, after a cut at that moment, and one that was
// synced is there.
//
// What dm-log-writes does not show is a disk that keeps some unsynced writes and
// loses older ones; disk/crashtest shows that, on a fake disk.
//
// The tests run with LOCKSTEP_LAB=1, as in `make lab`. LOCKSTEP_CUTS is the
// number of cuts on each file system.
package powercut
