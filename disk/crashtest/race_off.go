//go:build !race

package crashtest

// allStates is how many states all who use this package check together unless
// LOCKSTEP_CRASH_STATES says otherwise.
const allStates = 5000
