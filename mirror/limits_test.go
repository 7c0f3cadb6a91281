package mirror

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
)

// A journal that a user can have takes the longest write, and the limits are the
// same for each; a small one takes less, and what it takes fits.
func TestLimitsFitTheJournal(t *testing.T) {
	for _, o := range []journal.Options{
		{Size: 64 << 20}, {Size: 256 << 20}, {Size: 1 << 30},
		{Size: 1 << 20, SegmentSize: 64 << 10, AnySize: true},
		{Size: 8 * 32 << 10, SegmentSize: 32 << 10, AnySize: true},
	} {
		dir := fakedisk.New(1)
		if err := journal.Create(dir, o); err != nil {
			t.Fatal(err)
		}
		j, _, err := journal.Open(dir, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		l := limitsOf(j)
		j.Close()
		if !o.AnySize && (l.record != journal.MaxPayload || l.round != roundBytes || l.write != atomicWrite) {
			t.Errorf("journal of %d bytes: limits %+v", o.Size, l)
		}
		if l.write <= 0 || l.room(l.write) > o.Size-l.segment {
			t.Errorf("journal of %d bytes: a write of %d takes %d", o.Size, l.write, l.room(l.write))
		}
		if l.round < l.record || l.record > l.segment/4 {
			t.Errorf("journal of %d bytes: limits %+v", o.Size, l)
		}
	}
}

// A write that the journal can never take is refused, and does not wait for room.
func TestWriteLongerThanTheJournalTakes(t *testing.T) {
	d := fakedisk.New(1)
	createFake(t, d, "a", rigSize)
	must(t, remakeJournal(d, journal.Options{Size: 1 << 20, SegmentSize: 64 << 10, AnySize: true}))
	v, err := Open(Options{Node: "a", Volume: rigVolume, FS: d, Store: openFake(t, d), BootID: "boot"})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), hangTime)
	defer cancel()
	defer v.Close(ctx)
	must(t, v.awaitPromoted(ctx))
	s, err := v.Attach(ctx, nil)
	must(t, err)
	defer s.Close()
	c := &client{t, s}
	most := int(v.Info().AtomicWrite)
	if err := <-c.async(0, fill(1, most+1)); !errors.Is(err, block.ErrOutOfRange) {
		t.Fatalf("a write of %d bytes: %v", most+1, err)
	}
	for i := range 8 { // more than the journal holds
		c.write(int64(i*most), fill(byte(i), most))
	}
	c.flush()
	for i := range 8 {
		if got := c.read(int64(i*most), most); !bytes.Equal(got, fill(byte(i), most)) {
			t.Fatalf("write %d is not there", i)
		}
	}
}
