// Guest is one run of the simulated world, as a program for a machine without threads,
// clock or chance of its own: see package sim.
package main

import (
	"flag"
	"os"
	"strconv"
	"strings"

	"github.com/lockstep-storage/lockstep/integration/sim/world"
)

func main() {
	var o world.Options
	flag.Uint64Var(&o.Seed, "seed", 1, "of the run")
	skip := flag.String("skip", "", "faults to leave out, by number")
	flag.BoolVar(&o.Canary, "canary", false, "judge one read wrongly")
	flag.Parse()
	o.Skip = map[int]bool{}
	for _, s := range strings.FieldsFunc(*skip, func(r rune) bool { return r == ',' }) {
		if i, err := strconv.Atoi(s); err == nil {
			o.Skip[i] = true
		}
	}
	if len(world.Run(o, os.Stdout)) > 0 {
		os.Exit(1)
	}
}
