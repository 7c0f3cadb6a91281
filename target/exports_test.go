package target_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
)

func TestAddValidates(t *testing.T) {
	dev := memory.Sized(1 << 20)
	for name, e := range map[string]target.Export{
		"no name":          {Device: dev},
		"no device":        {Name: "a"},
		"long name":        {Name: strings.Repeat("x", target.MaxNameLen+1), Device: dev},
		"NUL":              {Name: "a\x00b", Device: dev},
		"bad UTF-8":        {Name: "\xff", Device: dev},
		"long description": {Name: "a", Description: strings.Repeat("x", target.MaxNameLen+1), Device: dev},
		"negative limit":   {Name: "a", Device: dev, MaxSessions: -1},
	} {
		var x target.Exports
		if err := x.Add(e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLookupAndList(t *testing.T) {
	var x target.Exports
	if _, err := x.Lookup(""); !errors.Is(err, target.ErrUnknownExport) {
		t.Errorf("default of an empty table: %v", err)
	}
	for _, name := range []string{"b", "a"} {
		if err := x.Add(target.Export{Name: name, Device: memory.Sized(1 << 20)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Add(target.Export{Name: "a", Device: memory.Sized(1 << 20)}); !errors.Is(err, target.ErrExists) {
		t.Errorf("a second %q: %v", "a", err)
	}
	if l := x.List(); len(l) != 2 || l[0].Name != "a" || l[1].Name != "b" {
		t.Errorf("List() = %v", l)
	}
	if _, err := x.Lookup("c"); !errors.Is(err, target.ErrUnknownExport) {
		t.Errorf("unknown: %v", err)
	}
	x.SetDefault("b")
	if e, err := x.Lookup(""); err != nil || e.Name != "b" {
		t.Errorf("default: %v, %v", e.Name, err)
	}
}

func TestSessionLimit(t *testing.T) {
	var x target.Exports
	if err := x.Add(target.Export{Name: "a", Device: memory.Sized(1 << 20), MaxSessions: 1}); err != nil {
		t.Fatal(err)
	}
	s, err := x.Open(t.Context(), "a", func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Open(t.Context(), "a", func(error) {}); !errors.Is(err, target.ErrTooManySessions) {
		t.Errorf("second session: %v", err)
	}
	s.Close()
	s.Close()
	if s, err = x.Open(t.Context(), "a", func(error) {}); err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	s.Close()
}

func TestRemoveRevokesAndWaits(t *testing.T) {
	var x target.Exports
	dev := memory.Sized(1 << 20)
	if err := x.Add(target.Export{Name: "a", Device: dev}); err != nil {
		t.Fatal(err)
	}
	revoked := make(chan error, 2)
	s, err := x.Open(t.Context(), "a", func(reason error) { revoked <- reason })
	if err != nil {
		t.Fatal(err)
	}

	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.Remove(over, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove that may not wait: %v", err)
	}
	if reason := <-revoked; !errors.Is(reason, target.ErrRemoved) {
		t.Errorf("revoked with %v", reason)
	}
	if _, err := x.Open(t.Context(), "a", func(error) {}); !errors.Is(err, target.ErrUnknownExport) {
		t.Errorf("open a removed export: %v", err)
	}
	if err := x.Remove(t.Context(), "a"); !errors.Is(err, target.ErrUnknownExport) {
		t.Errorf("remove twice: %v", err)
	}

	// The name is free for another device while the old session lives on.
	if err := x.Add(target.Export{Name: "a", Device: memory.Sized(2 << 20)}); err != nil {
		t.Fatal(err)
	}
	dev.Stop("the second reason")
	s.Close()
	if dev.Sessions() != 0 {
		t.Error("the device still has a session")
	}
	if len(revoked) != 0 {
		t.Error("revoked twice")
	}
	if err := x.Remove(t.Context(), "a"); err != nil {
		t.Errorf("remove without sessions: %v", err)
	}
}

// slowDevice lets a test decide when Attach goes on.
type slowDevice struct {
	block.Device
	entered, proceed chan struct{}
}

func (d slowDevice) Attach(ctx context.Context, revoked func(error)) (block.Session, error) {
	d.entered <- struct{}{}
	<-d.proceed
	return d.Device.Attach(ctx, revoked)
}

func TestRemoveDuringAttach(t *testing.T) {
	var x target.Exports
	mem := memory.Sized(1 << 20)
	dev := slowDevice{mem, make(chan struct{}), make(chan struct{})}
	if err := x.Add(target.Export{Name: "a", Device: dev}); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := x.Open(t.Context(), "a", func(error) { t.Error("revoked a session that was never opened") })
		opened <- err
	}()
	<-dev.entered
	removed := make(chan error, 1)
	go func() { removed <- x.Remove(t.Context(), "a") }()
	for _, err := x.Lookup("a"); err == nil; _, err = x.Lookup("a") { // until Remove has begun
	}
	close(dev.proceed)
	if err := <-opened; !errors.Is(err, target.ErrRemoved) {
		t.Errorf("open: %v", err)
	}
	if err := <-removed; err != nil {
		t.Errorf("remove: %v", err)
	}
	if mem.Sessions() != 0 {
		t.Error("the device still has a session")
	}
}
