// Package scsi is a SCSI direct-access logical unit over a [block.Device]:
// SPC-4 and SBC-3 as far as docs/scsi.md lists them. It knows no transport:
// package iscsi carries commands to it.
//
// # The few types
//
//   - [Unit]: the logical unit of one volume. All its nexuses share its
//     reservations, mode pages and task set.
//   - [Nexus]: one initiator port's use of the unit through one target port,
//     opened with [Unit.Attach]. It is a session of the device, and has unit
//     attentions of its own.
//   - [Command]: a CDB and its data on the way through the unit. The transport
//     owns it, keeps it, and uses it again.
//   - [Transfer]: what a CDB asks to be transferred, from [Unit.Describe], before
//     anything is transferred.
//
// # A command's way
//
// A transport that receives a CDB asks [Unit.Describe] in which direction data
// goes, and how much. It collects exactly that much Data-Out, or, if the
// initiator announced less, as much as was announced, and hands the command to
// [Nexus.Execute], in batches: writes of one batch are one Submit. Whatever
// becomes of it, the command's Done is told exactly once. Then Status, Sense and
// In are the result; the transport compares len(In.Bytes()) and
// Transfer.Length with what the initiator expected, and reports the residual.
//
// A command for a logical unit number that there is not goes to [NoUnit], REPORT
// LUNS may be answered with [ReportLUNs].
//
// # Ownership
//
// Command.Out is one reference that the unit drops before Done is told.
// Command.In is one reference that belongs to Done's receiver. Between Execute
// and Done the command is the unit's.
//
// # Concurrency
//
// One goroutine at a time calls Execute on one nexus. Everything else may be
// called at any time, from any goroutine; also Manage and Close while Execute
// blocks, as it does while the device is out of credit. Done may be told on
// Execute's goroutine, on a worker's, or on the device's with its locks held: it
// must neither block nor call into this package.
package scsi
