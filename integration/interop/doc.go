// Package interop uses Lockstep's exports through the NBD clients that people
// have: libnbd's nbdinfo, nbdcopy and Python module, qemu-img, qemu-io, and
// fio's NBD engine. (The kernel's client is package kernel's.) Everything is
// tried against nbdkit too: what fails there is no fault of Lockstep's. It
// consists of tests alone.
package interop
