// Package nbdclient is a small NBD client: enough for Lockstep's own commands,
// its demo and its tests, and for programs that want to reach an export without
// the kernel.
//
// The protocol's source is doc/proto.md of the NBD project; the client speaks
// its fixed newstyle handshake with NBD_OPT_GO, and simple replies.
//
// # Concurrency
//
// All methods of a [Client] may be called concurrently. Each call is in flight
// on its own: requests go out as they come, replies are matched by their cookie
// in whatever order they arrive. A call returns once the server answered it, or
// once the connection is lost; it owns the caller's buffer until then and not
// longer.
//
// # Errors
//
// What the server refuses is a [*Error] that holds the server's [Errno]; the
// connection lives on. Anything else means that the connection is lost, and
// then whether the requests in flight took effect is not known.
package nbdclient
