// Package wire is the iSCSI protocol on the wire (RFC 7143, whose section
// numbers the comments cite): headers and their fields, the text of login and
// negotiation, and the digest. It does no I/O and knows no state, so that server
// and tests share it.
//
//	var h wire.Header
//	h.SetOpcode(wire.OpNopIn)
//	h.Put32(wire.ITT, 7)
//
// # Invariants
//
//   - A Header of any content can be asked for any field.
//   - ParseText takes no key or value beyond the stated lengths, and allocates
//     in proportion to its input.
package wire
