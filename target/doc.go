// Package target is what the exports have in common: the table of what is
// exported under which name, who is attached to it, and how many may be. It
// knows no protocol (package nbd speaks one) and nothing of mirroring: it
// serves anything that is a [block.Device].
//
// # The few types
//
//   - [Export]: a device under a name.
//   - [Exports]: the table. Safe for concurrent use.
//   - [Session]: one client connection's use of an export, opened with
//     [Exports.Open]. It is a block.Session that also holds a place in the table.
//
// # Revoking
//
// A session ends in one of three ways: its connection closes it, its device
// stops serving (the device calls revoked), or its export is removed (the table
// calls revoked). Revoked tells the connection to close; it is called at most
// once for a session, from a goroutine of its own, and never after the
// session's Close has returned. Whatever the reason, the connection closes the
// session, and [Exports.Remove] waits for that: when it returns, no request of
// a removed export that had not been ordered will ever take effect
// (docs/replication.md section 11: no request outlives the role).
//
// # Ownership
//
// The table never closes a device: who made it closes it, after Remove.
package target
