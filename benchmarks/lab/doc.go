// The lab benchmarks measure a mirrored volume beside the mirrors of the Linux
// kernel, DRBD and md, in guests that run Debian's kernel (integration/lab): this
// machine's own need have neither.
//
//	make bench-lab                           # all subjects, about 10 minutes
//	go run ./benchmarks/lab -only lockstep   # one of them
//
// # Subjects
//
// Each has two guests, node1 and node2, on one bridge, each with one CPU and a RAM disk
// (brd) that it mirrors; fio runs in node1. guest/ has the scripts.
//
//   - lockstep: two nodes of ours, protocol C; the store is the RAM disk, the journal
//     lies in memory as well; the volume is attached in node1 by the kernel's NBD client,
//     over a unix socket. "lockstep-c4" has four connections.
//   - drbd: DRBD 8.4, protocol C, metadata internal, al-extents as it comes (1237, so 4.8
//     GiB). "drbd-6433" is what its manual advises for large disks, "drbd-67" the least
//     that there is: 268 MiB, less than the disk, so random writes change it.
//   - md: raid1 with an internal bitmap; one leg is node1's RAM disk, the other comes
//     over the kernel's NBD client from nbdkit in node2.
//
// Cells: 4 KiB random writes at queue depth 1 and 32, 128 KiB writes in sequence at
// queue depth 8, all with O_DIRECT, none with a flush. After each turn both nodes'
// first 64 MiB are compared.
//
// The subjects take turns, one boot of two guests each; the median of the runs counts.
//
// # What the engine distorts
//
// Where a virtual machine is not to be had the guests are User Mode Linux: the kernel
// as a program. Its own code runs at native speed, so DRBD and md, which never leave
// the kernel, lose little. A system call costs some 30 us there instead of 0.1, and a
// change of process much the same, and there is one CPU: a request of ours costs a dozen
// of the first and several of the second on each node, the kernel's NBD client included.
// So the ratios are the worst that ours can be, and not what a real machine would show;
// -accel kvm, on one that has it, measures that.
package main
