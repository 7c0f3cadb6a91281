package bitmap

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// seed of every random test: LOCKSTEP_SEED, or a new one.
var seed uint64

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if seed, err = strconv.ParseUint(os.Getenv("LOCKSTEP_SEED"), 10, 64); err != nil {
		seed = rand.Uint64()
	}
	if err := flag.Set("rapid.seed", strconv.FormatUint(seed, 10)); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func newRand(t *testing.T) *rand.Rand {
	t.Logf("LOCKSTEP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
