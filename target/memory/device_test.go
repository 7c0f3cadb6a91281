package memory_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/targettest"
)

func TestConformance(t *testing.T) {
	info := block.Info{Size: 8 << 20, SectorSize: 512, PreferredSize: 4096, WriteCache: true, AtomicWrite: block.MaxBuffer}
	for name, make := range map[string]func() *memory.Device{
		"plain": func() *memory.Device { return memory.New(memory.Options{Info: info}) },
		"4KiB": func() *memory.Device {
			i := info
			i.SectorSize = 4096
			return memory.New(memory.Options{Info: i})
		},
		"cold": func() *memory.Device { return memory.New(memory.Options{Info: info, ColdReads: true}) },
		"slow": func() *memory.Device {
			d := memory.New(memory.Options{Info: info})
			d.Delay(100 * time.Microsecond)
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			targettest.Run(t, func(*testing.T) block.Device { return make() })
		})
	}
}

// order notes in which order requests complete.
type order struct {
	mu   sync.Mutex
	tags []uint64
	errs []error
}

func (o *order) Complete(r *block.Request, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tags, o.errs = append(o.tags, r.Tag), append(o.errs, err)
}

func flushes(o *order, n int) []*block.Request {
	var rs []*block.Request
	for i := range n {
		rs = append(rs, &block.Request{Op: block.OpFlush, Tag: uint64(i), Done: o})
	}
	return rs
}

func TestReleaseInAnyOrder(t *testing.T) {
	d := memory.Sized(1 << 20)
	s, err := d.Attach(t.Context(), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	var o order
	d.Hold()
	s.Submit(flushes(&o, 3))
	if d.AwaitHeld(3); len(o.tags) != 0 {
		t.Fatalf("%v completed while held", o.tags)
	}
	d.Release(slices.Reverse)
	if !slices.Equal(o.tags, []uint64{2, 1, 0}) {
		t.Errorf("completed in the order %v", o.tags)
	}
}

func TestStopRevokesAndFails(t *testing.T) {
	d := memory.Sized(1 << 20)
	revoked := make(chan error, 1)
	s, err := d.Attach(t.Context(), func(reason error) { revoked <- reason })
	if err != nil {
		t.Fatal(err)
	}
	var o order
	d.Hold()
	s.Submit(flushes(&o, 1))
	d.Stop("for a test")
	if reason := <-revoked; !errors.Is(reason, block.ErrNotServing) {
		t.Errorf("revoked with %v", reason)
	}
	if len(o.errs) != 1 || !errors.Is(o.errs[0], block.ErrNotServing) {
		t.Errorf("the request in flight ended with %v", o.errs)
	}
	if _, err := d.Attach(t.Context(), func(error) {}); !errors.Is(err, block.ErrNotServing) {
		t.Errorf("attach to a stopped device: %v", err)
	}
	d.Start()
	if _, err := d.Attach(t.Context(), func(error) {}); err != nil {
		t.Errorf("attach after Start: %v", err)
	}
}

func TestFault(t *testing.T) {
	d := memory.New(memory.Options{
		Info: block.Info{Size: 1 << 20, SectorSize: 512},
		Fault: func(a memory.Access) error {
			if a.Read && a.Off == 512 {
				return errors.New("bad sector")
			}
			return nil
		},
	})
	s, err := d.Attach(t.Context(), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ReadAt(make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
	if err := s.ReadAt(make([]byte, 512), 512); err == nil {
		t.Error("no fault")
	}
}
