// Package splitbrain parts two real nodes, has each of them written to, and does
// what an operator does then, with the command line: looks at both sides, reads
// both, and resolves it (promise P4). It consists of tests alone.
package splitbrain
