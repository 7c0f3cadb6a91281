package mirror

import (
	"bytes"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
)

func TestSingleCopySurvivesKill(t *testing.T) {
	r := newRig(t, nil, "a")
	a := r.node("a")
	r.eventually("a serves", func() bool { return a.vol.Status().Serving })
	c := a.attach()
	c.write(0, fill(1, 8192))
	c.write(4096, fill(2, 4096))
	c.write(1<<20, fill(3, 3<<20)) // several records
	c.must(c.submit(&block.Request{Op: block.OpTrim, Off: 1<<20 + 4096, Len: 4096}))
	check := func(c *client) {
		t.Helper()
		want := append(fill(1, 4096), fill(2, 4096)...)
		if got := c.read(0, 8192); !bytes.Equal(got, want) {
			t.Fatalf("first blocks read %d %d", got[0], got[4096])
		}
		if got := c.read(1<<20, 12288); got[0] != 3 || got[4096] != 0 || got[8191] != 0 || got[8192] != 3 {
			t.Fatalf("trimmed range reads %d %d %d", got[0], got[4096], got[8192])
		}
	}
	check(c)
	c.flush()
	a.restart()
	r.eventually("a serves again", func() bool { return a.vol.Status().Serving })
	check(a.attach())
	r.eventually("everything is applied", func() bool { s := a.vol.Status(); return s.Applied == s.End })
	check(a.attach())
}

func TestMirrorAndFailover(t *testing.T) {
	r := newRig(t, nil, "a", "b")
	a, b := r.node("a"), r.node("b")
	r.eventually("they meet", func() bool { return a.peer("b").Verdict != "" && b.peer("a").Verdict != "" })
	a.promote(false)
	r.eventually("b is a member", func() bool { return a.peer("b").Member && len(b.vol.Status().InSync) == 2 })
	c := a.attach()
	for i := range int64(64) {
		c.write(i*rigBlock, fill(byte(i+1), rigBlock))
	}
	c.flush()
	r.inSync("a", "b")

	c.write(0, fill(99, rigBlock))
	c.flush()
	a.kill()
	r.eventually("b notices", func() bool { return b.vol.Status().Disk == Consistent })
	if err := b.vol.Promote(t.Context(), PromoteOptions{}); err == nil {
		t.Fatal("b was promoted without force although a may have gone on alone")
	}
	b.promote(true)
	d := b.attach()
	if got := d.read(0, rigBlock); got[0] != 99 {
		t.Fatalf("flushed write lost: reads %d", got[0])
	}
	d.write(rigBlock, fill(77, rigBlock))
	d.flush()

	a.start()
	r.eventually("a is a member again", func() bool { return b.peer("a").Member })
	r.inSync("b", "a")
	if p := b.peer("a"); p.Resyncs != 0 || p.CatchUps != 1 {
		t.Fatalf("came back by %d catch-ups and %d resyncs", p.CatchUps, p.Resyncs)
	}
}
