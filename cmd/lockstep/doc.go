// Command lockstep is the whole of Lockstep in one binary: `lockstep serve` is
// the daemon, every other subcommand asks the daemon on this host through its
// admin socket. docs/cli.md shows each of them.
//
// A subcommand is one file here: its flags, its examples, and an action that
// calls package node's Client and prints. Flags may stand anywhere on the line
// (arguments.go). The exit status is 0, or 1 when something failed or was
// refused, or 2 when the command line makes no sense.
package main
