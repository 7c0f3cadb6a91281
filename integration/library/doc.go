// Package library uses package mirror as a stranger does: from a module of his own that
// names Lockstep in its go.mod. It consists of tests alone.
package library
