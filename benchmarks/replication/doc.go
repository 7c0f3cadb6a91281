// The replication benchmarks measure what mirroring costs, and resyncs: pairs of real
// daemons on tmpfs, each beside a peer in the same run, turn by turn.
//
//	make bench-replication                # all cells
//	go run ./benchmarks/replication -only '^latency' -secs 1 -runs 2
//
// # Cells and targets
//
// latency-D: 4 KiB writes at random, one at a time, on a pair whose round trip is D
// longer than on the loopback. The line "limit" holds the mean latency against
//
//	max(local, RTT + peer) × 1.3 + 80 µs
//
// of figures of the same run: local is the latency of one copy of ours (the subject
// "one"); RTT what 4 KiB there and 32 bytes back take, over such a relay; peer what a
// write takes within a node, that is local less a round trip on the clients' socket.
// So nothing of fio or of the client's socket makes the bound longer.
//
// depth32-D: the same with 32 at a time. Targets: on the loopback ≥ 0.75 of one copy;
// ahead of qemu everywhere.
//
// cpu-loopback: what both sides of a mirror take of the processor, without the client.
//
// Beside them is qemu-storage-daemon, whose quorum driver writes to two children and
// acknowledges when both have it. How it is set up is said at bench.qemu: as whatever
// was fastest for it. It promises less: nothing says after a crash which of its sides
// is right, nor what they differ in.
//
// resync-*: a full resync of a volume of which every block is out of sync: all of them
// differ, none, or one of a hundred. Beside nbdcopy from one file to another, each
// written full and served by nbdkit, as bytes of the volume per second; nbdcopy copies
// all in each of the three. Ours is from the handshake to the peer's membership, with
// the undo, and, in the line -no-undo, without. Target: ≥ 0.85 where all differ.
//
// clients-during-resync: 4 KiB writes at random, one at a time, while a resync gives
// way to them (resync-rate auto), and while it is paused: the peer is connected and no
// member in both, so that nothing else differs. Target: p99 ≤ 1.1 times as long.
//
// sparse-1tib: resyncs of 128 and of 512 MiB, in pieces of 64 KiB, all over a volume
// of 1 TiB. Target: the larger takes no more than 1.25 times its share. What memory
// each node has at its peak stands beside it.
//
// # Method
//
//   - The subjects of a cell take turns; nobody is always first. The median of the runs
//     counts, the spread stands beside it.
//   - Distance is a relay in this process (package wire), for ours and for qemu alike: it
//     needs no root, keeps to microseconds, and takes some of the same two processors.
//   - Journals have 64 MiB, the least. Everything was written full before.
//
// # What makes a number meaningless
//
//   - What benchmarks/doc.go says: company on the machine, other runs, other days.
//   - Both nodes share one machine's processors: two copies do two copies' work there.
//   - tmpfs: nothing waits for a disk. What an undo costs is memory copied, not I/O.
package main
