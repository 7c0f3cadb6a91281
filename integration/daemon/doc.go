// Package daemon starts, drives and kills real `lockstep serve` processes, for
// the tests, the demo and the benchmarks. It uses the product from outside only:
// a config file, the command line, signals, and what status --json prints.
//
// A [Node] may be used by several goroutines, but starting and ending it is one
// goroutine's business.
package daemon
