package target

import (
	"context"
	"fmt"
	"sync"

	"github.com/lockstep-storage/lockstep/block"
)

// A Session is one connection's use of an export: the device's session, and a
// place in the table.
type Session struct {
	block.Session
	Export Export
	Info   block.Info // as it was when the session began; it stays

	table *Exports
	entry *entry

	mu      sync.Mutex // held while onRevoke runs, so that Close waits for it
	over    bool
	revoked func(error)

	closeOnce sync.Once
}

// Open attaches to an export; the empty name is the default one. It fails with
// ErrUnknownExport, ErrTooManySessions, or what block.Device.Attach says.
//
// revoked is called at most once, from a goroutine of its own, when the session
// must end: the device serves no longer, or the export was removed. It must not
// block and must not call Close; it may be called before Open returns.
func (x *Exports) Open(ctx context.Context, name string, revoked func(reason error)) (*Session, error) {
	e, err := x.reserve(name)
	if err != nil {
		return nil, err
	}
	s := &Session{Export: e.Export, table: x, entry: e, revoked: revoked}
	s.Session, err = e.Device.Attach(ctx, s.revoke)

	x.mu.Lock()
	if err == nil && !e.removed {
		e.opening--
		e.sessions[s] = struct{}{}
		x.mu.Unlock()
		s.Info = e.Device.Info()
		return s, nil
	}
	x.mu.Unlock()

	if err == nil {
		s.Session.Close()
		err = ErrRemoved
	}
	s.silence()
	x.mu.Lock()
	e.opening--
	e.checkIdle()
	x.mu.Unlock()
	return nil, fmt.Errorf("target: attach to export %q: %w", e.Name, err)
}

func (x *Exports) reserve(name string) (*entry, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, err := x.find(name)
	if err != nil {
		return nil, err
	}
	if n := e.opening + len(e.sessions); e.MaxSessions > 0 && n >= e.MaxSessions {
		return nil, fmt.Errorf("target: export %q has %d: %w", e.Name, n, ErrTooManySessions)
	}
	e.opening++
	return e, nil
}

// revoke passes the first reason on, unless the session has been closed.
func (s *Session) revoke(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	s.revoked(reason)
}

func (s *Session) silence() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
}

// Close ends the device's session and gives up the place in the table. It is
// safe to call twice. See block.Session for what becomes of requests in flight.
func (s *Session) Close() {
	s.closeOnce.Do(func() {
		s.silence()
		s.Session.Close()
		s.table.mu.Lock()
		delete(s.entry.sessions, s)
		s.entry.checkIdle()
		s.table.mu.Unlock()
	})
}
