// Package iscsi is an iSCSI target: RFC 7143 at error recovery level 0, with one
// connection a session, over the logical units of package scsi.
//
// # The few types
//
//   - [Server]: made by [NewServer] over a table of exports, serves portals
//     ([Server.Serve]). Its methods may be called concurrently.
//   - [Target]: an export as LUN 0 of a target of its own, with the initiators that
//     may log in, and what they prove themselves with ([Server.AddTarget]).
//   - [Options]: what connections may cost, and how long they may take.
//
// # A command's way
//
// The reader of a connection takes whatever has arrived in one read as a batch
// (reader.go). A command is described by its unit before anything is allocated;
// a write's data is read straight into the buffer that the unit gets, its first part
// with the command, the rest as R2Ts ask for it (dataout.go). The whole batch is handed
// to the unit at once; whoever finishes a command queues its reply, and whoever is free
// writes all that is queued with one system call (replies.go). No command has a
// goroutine of its own.
//
// # What is bounded
//
// Commands by the window (MaxCommands), which is the flow control; their memory by
// MaxBytes a session and MaxMemory for all: a command beyond it waits, none is refused
// (memory.go). Text, data segments and bursts by constants. Whoever owes bytes, or an
// answer to a NOP, and sends nothing for ProgressTimeout is hung up on.
//
// # Invariants
//
//   - CmdSN: what is outside the window is ignored, and a command within it that is
//     not the next ends the connection: it can be had again only in a new session.
//   - A task management function is answered after what it names has ended
//     (control.go), and no command's data reaches the device once it is aborted.
//   - Nothing outlives the connection: when it has ended, no command that the device
//     had not ordered takes effect (docs/replication.md, section 11).
//
// docs/iscsi.md has the keys, and what is not supported.
package iscsi
