// Package interop uses Lockstep's exports through the NBD clients that people
// have: libnbd's nbdinfo, nbdcopy and Python module, qemu-img, qemu-io, and
// fio's NBD engine. (The kernel's client is package kernel's.) The same drivers
// run against the NBD server over a device in memory, where a failure is the
// server's, and against a mirrored pair of daemons; those that have TLS also
// against a node that requires it. It consists of tests alone.
package interop
