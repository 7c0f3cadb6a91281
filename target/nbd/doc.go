// Package nbd is an NBD server: it offers the exports of a [target.Exports]
// table to NBD clients over TCP or unix sockets. The protocol's source is
// doc/proto.md of the NBD project, whose section names the comments cite;
// docs/nbd.md lists what is supported.
//
//	srv, err := nbd.NewServer(exports, nbd.Options{Log: log})
//	go srv.Serve(listener)
//	...
//	srv.Shutdown(ctx)
//
// # The path of a request
//
//  1. The connection's reader takes whatever has arrived in one read
//     (reader.go). That is its batch: at queue depth 1 one request, under load
//     many.
//  2. Each header is judged, in one place, before anything is allocated for it
//     (validate.go), and admitted within the connection's and the server's
//     bounds (admit.go). A full bound stops the reader, and so the client.
//  3. A write's payload lands in a pooled buffer: copied as far as it has
//     arrived, the rest read straight into it.
//  4. Reads that the device can serve without a disk are served at once, the
//     others by a bounded set of workers (reads.go). The batch's writes, trims
//     and flushes go to the device in one Submit.
//  5. What is done by the end of the batch is answered by the reader, in one
//     vectored write; while a client keeps sending, a few batches share it
//     (conn.gather). What completes later, on whatever goroutine, is queued
//     and wakes the connection's writer, which takes all that is there in one
//     vectored write (replies.go). Replies are laid out as the client negotiated
//     it, simple or in chunks (chunks.go); a read that waits for a disk leaves
//     holes out where it may (holes.go).
//
// # Goroutines
//
//	goroutine        owns                            others reach it by
//	reader           the socket's reading half,      -
//	                 the batch, session.Submit
//	writer           nothing; it writes replies      wake, after queueing a reply
//	                 when nobody else does
//	read workers     the read that each carries out  the queue of cold reads
//
// Whoever finds replies pending and nobody writing may write; conn.writing says
// so. The connection's serve waits for the end of all of them.
//
// # Invariants
//
//   - A backend's error never ends a connection; it becomes an errno in one
//     function (errno.go). The exception is a device that does not serve any
//     more: its requests are answered ESHUTDOWN and the connection ends.
//
//   - A payload's memory goes back to its pool only when its reply is written or
//     its connection is gone and the device has completed it.
//
//   - Complete, which the device calls, takes one lock, and neither blocks nor
//     writes.
//
//   - A stalled client costs what Options bounds, and not for longer than
//     Options.ProgressTimeout (architecture, P7: bad input from the network).
//
//   - When a client is gone its session is closed before anything else is waited
//     for (docs/replication.md section 11: no request outlives its connection).
//
//   - Nothing that came in plain text outlives NBD_OPT_STARTTLS: no byte is read
//     beyond it, and what was negotiated is forgotten (tls.go).
//
// # What it does not promise
//
// Without [Options.TLS] who reaches the port reads and writes every export. With
// it a connection is not taken out of the runtime's poller and costs a copy of
// each reply more. docs/nbd.md says what else of the protocol is not there yet.
package nbd
