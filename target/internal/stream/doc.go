// Package stream is a client's socket once its protocol's session runs: reads
// of whatever has arrived, vectored writes, and an end that another goroutine
// can bring about. Packages nbd and iscsi share it.
//
// On Linux a socket is taken out of the runtime's poller and blocks in the
// kernel (stream_linux.go says why); anything else is left as it is.
//
//	s, err := stream.Open(conn, 30*time.Second)
//	n, err := s.Read(p, false)
//
// # Invariants
//
//   - Open takes the connection over: nobody else uses it any more.
//   - Whoever owes bytes, or does not take bytes, holds a goroutine for the
//     progress timeout at most.
//   - After Close the descriptor is used by nobody, also by none that was about
//     to hang up.
package stream
