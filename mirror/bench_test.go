package mirror

import (
	"sync/atomic"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
)

// counted completes requests back into a pool of their submitter's.
type counted struct {
	free chan *block.Request
	errs atomic.Int64
}

func (c *counted) Complete(r *block.Request, err error) {
	if err != nil {
		c.errs.Add(1)
	}
	c.free <- r
}

func benchmarkWrites(b *testing.B, depth int, flush bool, nodes ...string) {
	r := newRig(b, nil, nodes...)
	a := r.node("a")
	if len(nodes) > 1 {
		r.eventually("they meet", func() bool { return a.peer("b").Verdict != "" && r.node("b").peer("a").Verdict != "" })
		a.promote(false)
		r.eventually("b is a member", func() bool { return a.peer("b").Member })
	}
	r.eventually("a serves", func() bool { return a.vol.Status().Serving })
	c := a.attach()
	done := &counted{free: make(chan *block.Request, depth)}
	for range depth {
		done.free <- &block.Request{}
	}
	b.SetBytes(rigBlock)
	b.ReportAllocs()
	b.ResetTimer()
	one := make([]*block.Request, 1)
	for i := range b.N {
		q := <-done.free
		*q = block.Request{Op: block.OpWrite, Off: int64(i*7919%4096) * rigBlock, Len: rigBlock, Buf: block.Get(rigBlock), Done: done}
		if flush && i%2 == 1 {
			q.Buf.Unref()
			*q = block.Request{Op: block.OpFlush, Done: done}
		}
		one[0] = q
		c.s.Submit(one)
	}
	for range depth {
		<-done.free
	}
	if n := done.errs.Load(); n > 0 {
		b.Fatalf("%d requests failed", n)
	}
}

func BenchmarkWriteQD1(b *testing.B)        { benchmarkWrites(b, 1, false, "a") }
func BenchmarkWriteFlushQD1(b *testing.B)   { benchmarkWrites(b, 1, true, "a") }
func BenchmarkWriteQD32(b *testing.B)       { benchmarkWrites(b, 32, false, "a") }
func BenchmarkMirrorWriteQD1(b *testing.B)  { benchmarkWrites(b, 1, false, "a", "b") }
func BenchmarkMirrorWriteQD32(b *testing.B) { benchmarkWrites(b, 32, false, "a", "b") }
