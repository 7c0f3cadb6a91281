//go:build !race

package nemesis

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

// length is how long TestNemesis goes on for: LOCKSTEP_NEMESIS, or short.
func length(t *testing.T) time.Duration {
	text := os.Getenv("LOCKSTEP_NEMESIS")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("LOCKSTEP_NEMESIS=%q is no length of time, such as 10m", text)
	}
	return d
}

// TestNemesis is what doc.go describes.
func TestNemesis(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons, which -short leaves out")
	}
	seed := harness.Seed(t)
	until := time.Now().Add(length(t))
	rng := rand.New(rand.NewPCG(seed, 5))
	minInSync := 1 + rng.IntN(2)
	c := newCluster(t, minInSync)
	t.Logf("min-in-sync %d", minInSync)
	s := newSeries(c)
	for n := 0; n == 0 || time.Now().Before(until); n++ {
		s.play(n, rand.New(rand.NewPCG(seed, 1000+uint64(n))))
	}
	s.report()
	if err := c.sound(); err != nil {
		t.Fatal(err)
	}
}
