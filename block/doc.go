// Package block says what a block device is inside Lockstep: a [Device] that
// sessions attach to, the [Request] that a session submits, and the pooled,
// reference-counted [Buffer] that carries its payload from the client's socket
// through the journal and the peers' sockets without a copy.
//
// A program that waits for each of its requests is served by a [Client], which
// has ReadAt, WriteAt and Flush.
//
// It is the seam between the exports (package target and below), which serve
// anything that is a Device, and package mirror, whose Volume is one. It does
// no I/O and knows neither protocol.
//
// # Ownership
//
// Whoever holds a *Buffer owns one reference to it. Submitting a request hands
// the request and its buffer's reference over to the device until
// [Completer.Complete] is called; the device takes references of its own for
// what it keeps longer. A buffer goes back to its pool with its last reference,
// never earlier, also when a client has gone or a wait has timed out.
package block
