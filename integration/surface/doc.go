// Package surface keeps what the library exports in a list, so that it changes only
// on purpose: who embeds package mirror can read there what a release added, and that
// it took nothing away. It consists of tests alone.
package surface
