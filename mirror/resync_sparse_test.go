package mirror

import (
	"bytes"
	"testing"
	"time"
)

// TestResyncOfASparseVolume: a new peer of a volume of 1 TiB gets what holds data,
// and the holes as lengths, with few syncs: neither bytes nor time are in
// proportion to the volume's size.
func TestResyncOfASparseVolume(t *testing.T) {
	const size, blocks = 1 << 40, 200
	r := newRigOf(t, size, false, nil, "a", "b")
	a, b, c := r.pair()
	at := func(i int64) int64 { return i * (size / blocks) &^ (rigBlock - 1) }
	for i := range int64(blocks) {
		c.write(at(i), fill(byte(i+1), rigBlock))
	}
	c.flush()
	b.kill()
	r.dropped(a, b)
	for i := range 160 { // more than the journal holds, in one place
		c.write(1<<20, fill(byte(i+1), 1<<20))
	}
	c.flush()
	began := time.Now()
	sent := r.gate("a", "b").sent.Load()
	b.replace()
	r.members()
	sent = r.gate("a", "b").sent.Load() - sent
	r.eventually("b has applied everything", func() bool { s := b.vol.Status(); return s.Applied == s.End })
	t.Logf("%d bytes crossed for %d bytes of data, in %v", sent, blocks*rigBlock+1<<20, time.Since(began).Round(time.Millisecond))
	// A frame for each hole of up to 64 MiB.
	if limit := int64(blocks*2*rigBlock + 2<<20 + (size/(64<<20)+2*blocks)*64); sent > limit {
		t.Errorf("%d bytes crossed, the limit is %d", sent, limit)
	}
	if p := a.peer("b"); p.Resyncs != 1 {
		t.Fatalf("%d resyncs", p.Resyncs)
	}
	got := make([]byte, 2*rigBlock)
	for i := range int64(blocks) {
		if _, err := b.store.ReadAt(got, at(i)); err != nil {
			t.Fatal(err)
		}
		want := append(fill(byte(i+1), rigBlock), fill(0, rigBlock)...)
		if !bytes.Equal(got, want) {
			t.Fatalf("the blocks at %d differ", at(i))
		}
	}
}
