package mirror

import (
	"bytes"
	"testing"
)

// While somebody flushes the applier rests, unless something will be full soon or
// somebody waits for it.
func TestApplierRests(t *testing.T) {
	r := newRig(t, nil, "a")
	v := r.node("a").vol
	r.node("a").promote(false)
	c := r.node("a").attach()
	v.apply.Lock() // no round, and no end of what this test sets
	v.stop()       // the goroutines alone: nobody else applies, or ends a rest
	v.wg.Wait()
	c.write(0, fill(1, rigBlock))
	c.flush()
	v.mu.Lock()
	if v.syncWant == 0 {
		t.Error("a flush asks for no sync")
	}
	asked := v.syncWant - 1
	v.mu.Unlock()
	due := func(want bool, when string) {
		t.Helper()
		if got := v.applyDue(); got != want {
			t.Errorf("%s: is it time to apply? %v", when, got)
		}
	}
	asked = v.stillResting(asked)
	due(false, "a flush came since the last look")
	v.mu.Lock()
	v.applyWant = v.applied + 1
	v.mu.Unlock()
	due(true, "somebody waits")
	v.mu.Lock()
	v.applyWant, v.starved = 0, true
	v.mu.Unlock()
	due(true, "a writer waits for room in the journal")
	v.mu.Lock()
	v.starved = false
	v.mu.Unlock()
	due(false, "and has it")
	v.stillResting(asked)
	due(true, "no flush came since the last look")
	c.write(0, fill(2, rigBlock))
	c.flush()
	due(false, "one came again")
}

// What is flushed does not fill the memory: its payloads are left to the journal,
// from where they are read, and applied.
func TestEviction(t *testing.T) {
	rng := seed(t)
	const limit = 4 << 20
	r := newRig(t, func(o *Options) { o.PendingLimit = limit }, "a")
	v := r.node("a").vol
	r.node("a").promote(false)
	c := r.node("a").attach()
	want := make([]byte, rigSize)
	v.apply.Lock()
	written := int64(0)
	for i := 0; written < 2*limit; i++ {
		n := 1 + rng.IntN(100<<10)
		off := rng.IntN(rigSize - n)
		p := fill(byte(i+1), n)
		c.write(int64(off), p)
		copy(want[off:], p)
		written += int64(n)
		c.flush()
		v.mu.Lock()
		held, evicted := v.queue.held, v.queue.evicted
		v.mu.Unlock()
		// What became stable before its flush came stays in memory.
		if held > limit || held+evicted != written {
			t.Errorf("of %d bytes %d are in memory, the limit is %d, and %d in the journal only", written, held, limit, evicted)
		}
	}
	check := func(when string) {
		t.Helper()
		got := make([]byte, rigSize)
		if err := c.s.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s the volume has other bytes than were written", when)
		}
	}
	check("before anything is applied")
	if done, err := c.s.TryReadAt(make([]byte, rigSize), 0); done || err != nil {
		t.Errorf("a read of what is in the journal only waited for it: %v, %v", done, err)
	}
	v.apply.Unlock()
	r.eventually("all is applied", func() bool { s := v.Status(); return s.Applied == s.End })
	check("once all is applied")
	v.apply.Lock() // the round that applied the last of it is over
	v.mu.Lock()
	held, evicted := v.queue.held, v.queue.evicted
	v.mu.Unlock()
	v.apply.Unlock()
	if held != 0 || evicted != 0 {
		t.Errorf("an empty queue holds %d bytes, and %d are evicted", held, evicted)
	}
}
