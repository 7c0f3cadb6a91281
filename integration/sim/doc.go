// Sim runs the whole of package mirror in a simulated world, many times, each from a
// seed: the same seed gives the same run, to the byte. What happens in that world, and
// what judges it, is package world; this command is the machine under it.
//
// The world is a program (guest) for WebAssembly, where a Go program has one thread,
// and nobody interrupts a goroutine: it goes on until it waits. Chance and time come
// from the machine: the first from the seed, so that select and maps choose as it says,
// the second stands still while anybody works, and jumps to the next timer when all
// wait. So an hour of timeouts takes as long as the work in it, and nothing that the
// host does can be seen in the guest.
//
//	go run ./integration/sim -runs 1000
//	go run ./integration/sim -seed 42 -runs 1 -trace
package main
