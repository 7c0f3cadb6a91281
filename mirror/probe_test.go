package mirror

import (
	"testing"
	"time"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

func TestProbePromoteWindow(t *testing.T) {
	r := newFakeRig(t, nil, "a", "b")
	a, b, c := r.pair()
	c.write(0, fill(1, 4096))
	c.flush()
	r.inSync("a", "b")
	b.kill()
	a.restart()
	// b is absent
	s := a.stallAt(fakedisk.OpDatasync, superblockName, func() bool {
		a.vol.mu.Lock()
		defer a.vol.mu.Unlock()
		return a.vol.role == Primary
	})
	go a.vol.Promote(t.Context(), PromoteOptions{Force: true})
	s.wait(t)
	b.start()
	for range 50 {
		time.Sleep(10 * time.Millisecond)
		if a.vol.Status().Serving {
			t.Fatalf("serves before its generation is recorded\n%s", r.describe())
		}
	}
	s.letGo()
	r.eventually("x", func() bool { return a.vol.Status().Serving })
	_ = b
}
