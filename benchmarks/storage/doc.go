// The storage benchmarks measure what lies below the exports: a volume without
// peers, as a library, over real files, that is journal, write-intent bitmap and
// store in place, and the journal alone. They stand beside plain files on the
// same file system, in the same run, turn by turn.
//
//	make bench-storage                    # all cells, about 8 minutes
//	go run ./benchmarks/storage -only 'sync-4k' -secs 1 -runs 3
//
// # Cells and targets
//
// sync-4k-wN: N writers, each a 4 KiB write at random, then a flush, then the
// next. "volume" has a session for each writer; "journal" is the journal with
// nothing around it. Beside them:
//
//   - "log": a bare append file, the least that can make writes durable in one
//     order. It was written full before and goes round and round, so that a sync
//     needs no allocation; all who wait are written by one pwrite and made
//     durable by one fdatasync. It has no headers, no CRCs and nothing to read
//     back by. Targets: volume ≥ 0.9, journal ≥ 0.9, for 1, 16 and 64 writers.
//   - "file": pwrite and fdatasync by each writer, on a file that was written
//     full before. Target: volume ≥ 1.5 for 16 and 64 writers.
//
// randwrite-4k-sustained: one writer at random without flushes, for a time in
// which the journal, of 64 MiB, comes round many times, on an 8 GiB volume, which
// is more than the kernel lets lie dirty in memory here: beside pwrite on a file
// of that size. Target: ≥ 0.6. Two more lines hold it to being flat:
// -slowest-second has for each the least of its seconds, with the same target,
// and the latencies p50, p99, p99.9 and max stand side by side. Target: at p99.9
// no longer than 100 ms, unless the file is longer too. -synced counts the final
// flush, or fdatasync, into the time.
//
// write-1m, write-1m-journal-apart: one writer, 2 GiB in sequence, the final flush
// or fdatasync included, with the journal on the same device, and on tmpfs, which
// stands for a second one. Targets beside "file": ≥ 0.45, ≥ 0.9.
//
// read-1m, randread-4k, and both -cold: one reader of a volume at rest, of
// what is in the page cache, and of what is not. Target: ≥ 0.95 of the file.
//
// recover-1g: a journal of 1 GiB, as full as writers can make it, every record
// of which has yet to go into the store, is opened: "journal" until its end is
// known, "volume" until it serves, and, in the line -applied, which has no target,
// until its store has everything, durably. Beside it a plain read, 1 MiB at a time, of
// as many bytes of the same files. Both cold, and each done once before, untimed:
// the page cache of a virtual machine may be memory that its host has yet to find.
// As a rate, so that higher is
// better; 1.5 times the time is a ratio of 0.67, the target of
// "volume" and "journal".
//
// restart-16t and rss-16t: the real daemon, with one clean sparse volume of
// 16 TiB less one block (ext4's longest file), from its start until the volume
// serves, and its resident memory then. Limits: 100 ms, 100 MiB.
//
// # Method
//
//   - The subjects of a cell take turns; nobody is always first. The median of
//     the runs counts, the spread stands beside it.
//   - Every file is written full before it is measured, with bytes, not zeroes.
//   - Each turn ends with a sync of its own files, outside of the measured time,
//     so that nobody pays for what another has left dirty.
//   - Cold is posix_fadvise(DONTNEED) after an fdatasync, on every file of the
//     subject, which needs no root. The device's or host's own cache stays.
//   - Payloads of the volume lie in pooled buffers that it takes over, as those
//     of an export do; nobody copies them for it.
//   - While writes are flushed a volume leaves them in its journal, until a quarter
//     of that is left. The cells of synced writes use 256 MiB, which so is filled
//     in 1 to 2 s by 16 writers or more; what goes on for ever shows with -secs 10.
//   - A volume that is asked for a flush is done when it says so: the bytes are
//     durable in its journal. Up to 64 MiB (the pending limit) may still have to
//     go to the store, which is why the cells of large writes write 2 GiB.
//   - With -profile DIR the runs of ours are profiled, one file each, and then
//     are slower by a few per cent.
//
// # What makes a number meaningless
//
//   - What benchmarks/doc.go says: company on the machine, other runs, other days.
//   - A file system whose sync does not reach a device, such as tmpfs or overlayfs
//     on it: -dir says where the files lie, and the report says what that is.
//   - A virtual disk whose host has a write-back cache. What a flush costs there
//     is the host's business, and differs by the minute: look at the spread.
//   - Memory so large that 8 GiB of dirty pages make nobody wait: then the plain
//     file of randwrite-4k-sustained is memory, and the volume, which syncs its
//     journal after every 8 MiB, is compared with that.
package main
