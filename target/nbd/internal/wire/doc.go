// Package wire holds the numbers of the NBD protocol that Lockstep's server and
// client use, under the names that the protocol's document gives them. The
// source is doc/proto.md of the NBD project; section names are cited.
package wire
