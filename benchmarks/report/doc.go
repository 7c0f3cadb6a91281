// Package report is the form that every benchmark of Lockstep's prints its
// outcome in: a table of medians with their spread, a line for each comparison,
// the targets, met or missed, and all of it as JSON.
package report
