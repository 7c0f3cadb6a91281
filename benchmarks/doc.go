// The benchmarks run fio's NBD engine against Lockstep and, in the same run,
// turn by turn, against other NBD servers: nbdkit's file plugin and qemu-nbd,
// all on tmpfs, with the same options for each; on a single copy, on a mirrored
// pair, and on a pair whose peer is one round trip away.
// `make bench` runs them; SECS and RUNS set how long, and how often. What lies
// below the exports is measured by `make bench-storage`, in benchmarks/storage, a
// mirror beside qemu's by `make bench-replication`, in benchmarks/replication, and
// beside the kernel's by `make bench-lab`, in benchmarks/lab.
//
// # What makes a number meaningless
//
//   - Anything else that runs on the machine. Client and servers share its cores;
//     with two of them a queue depth of 32 measures who gets the processor.
//   - A comparison across runs, machines or days. Only the ratios of one run mean
//     something, and only beyond the spread that stands beside them.
//   - A size that does not fit into memory, beside three servers' copies of it.
//   - tmpfs has no fsync: fsync=1 measures the path of a flush here, not a disk's.
//   - Lockstep writes a journal and then the store, the others write once and
//     promise less. Reads and single copies compare like with like; writes show
//     what the journal costs.
//   - A mirrored pair stores everything twice, the others once: beside them it shows
//     what the second copy costs, not who is the better server.
//   - A mirrored pair with both nodes, the relay and fio on one machine pays for
//     two nodes' work with one node's processor.
package main
