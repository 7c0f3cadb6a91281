// Package gonbd lets a program that serves NBD by github.com/pojntfx/go-nbd serve a
// mirrored volume, or any other block.Device, in place of a file.
//
// # What go-nbd does not do
//
// Its server (v0.3.2) has no flush: a client can make nothing durable, and is told that
// a write with FUA is durable before it is. It syncs once, when a client goes. Where
// that is not enough, use this module's package target/nbd, or [Options.Durable], which makes
// every write durable before it is answered.
package gonbd
