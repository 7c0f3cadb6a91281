package mirror

import (
	"bytes"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// A replica comes back with more in its journal than it keeps in memory, beside
// a store that has none of it and is full. It serves, and reads what was written,
// from memory and from the journal; once the store has space, it gets it all.
func TestReplayDelaysNobody(t *testing.T) {
	limit := int64(64 << 20)
	r := newFakeRig(t, func(o *Options) { patient(o); o.PendingLimit = limit }, "a")
	a := r.node("a")
	r.eventually("a serves", func() bool { return a.vol.Status().Serving })
	c := a.attach()
	const blocks, size = 48, 128 << 10
	limit = 4 << 20 // of the next life; this is 6 MiB
	for i := range blocks {
		c.write(int64(i)*size, fill(byte(i+1), size))
		c.flush() // the next one notes that it is stable
	}
	a.kill()
	if _, err := openFake(t, a.fake).WriteAt(make([]byte, blocks*size), 0); err != nil {
		t.Fatal(err)
	}

	var full atomic.Bool
	full.Store(true)
	a.fake.OnOp(func(op fakedisk.Op, file string) error {
		if op == fakedisk.OpWrite && file == fakeData && full.Load() {
			return syscall.ENOSPC
		}
		return nil
	})
	a.start()
	r.eventually("a serves again", func() bool { return a.vol.Status().Serving })
	c = a.attach()
	check := func(when string) {
		t.Helper()
		for i := range blocks {
			if !bytes.Equal(c.read(int64(i)*size, size), fill(byte(i+1), size)) {
				t.Fatalf("%s, write %d of %d does not read as it was written", when, i+1, blocks)
			}
		}
	}
	check("before the store has it")
	if st := a.vol.Status(); st.Applied != 0 {
		t.Fatalf("the store has everything through LSN %d: the test shows nothing", st.Applied)
	}
	full.Store(false)
	r.eventually("the store has all but the newest", func() bool { return a.vol.Status().Applied >= LSN(blocks) })
	check("from the store")
	if !bytes.Equal(storeOf(t, a.fake)[:size], fill(1, size)) {
		t.Error("the store does not have the first write")
	}
}
