// Package adapters has nothing itself. Each package below it lets a server of somebody
// else serve a block.Device, a mirrored volume above all, in a program that is built
// on that server: gonbd for github.com/pojntfx/go-nbd, gotgt for
// github.com/gostor/gotgt.
//
// They are a module of their own, so that who uses the library, or the daemon, depends
// on neither server. Lockstep's own servers (package target/nbd) promise more: what is
// lost with the others is said in each package.
package adapters
