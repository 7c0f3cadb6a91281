// Package nbd tests Lockstep's NBD server with other people's clients: libnbd's
// nbdinfo and nbdcopy and its Python binding, qemu's qemu-img and qemu-io, and
// fio. Each test runs over TCP and over a unix socket.
//
// The tests know nothing of what is behind the export. What they run against is
// what backends in backend_test.go lists.
package nbd
