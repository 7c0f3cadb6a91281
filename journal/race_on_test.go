//go:build race

package journal

// underRace: everything takes ten times as long.
const underRace = true
