//go:build race

package crashtest

// allStates is fewer here: everything takes ten times as long.
const allStates = 500
