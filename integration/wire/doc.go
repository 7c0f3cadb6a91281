// Package wire puts a network between two daemons on one machine: a [Relay]
// that forwards TCP connections, late by a set time, that can be cut, or held in
// silence in one direction or both, and that can flip bits.
//
// A relay delays without narrowing: each piece is stamped when it arrives and
// goes out when its time has come, however many are on the way, and Nagle's
// algorithm is off on both sides. What it holds is bounded (64 MiB in each direction), so
// its bandwidth is at most that divided by the delay, some 64 GB/s at 1 ms.
package wire
