//go:build race

package mirror

// underRace: everything takes ten times as long.
const underRace = true
