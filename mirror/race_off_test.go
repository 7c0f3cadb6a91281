//go:build !race

package mirror

const underRace = false
