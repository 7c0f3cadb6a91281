package target

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Exports is the table of what is exported. The zero value is an empty table;
// all methods may be called concurrently.
type Exports struct {
	mu          sync.Mutex
	byName      map[string]*entry
	defaultName string
}

// entry is an export and the sessions on it. Its fields are guarded by the
// table's mutex.
type entry struct {
	Export
	opening  int // sessions in Device.Attach; they count against the limit
	sessions map[*Session]struct{}
	removed  bool
	idle     chan struct{} // closed once removed and nobody is attached
}

// Add puts an export into the table. It fails with ErrExists if the name is
// taken, or says what is wrong with e.
func (x *Exports) Add(e Export) error {
	if err := e.validate(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, taken := x.byName[e.Name]; taken {
		return fmt.Errorf("target: add export %q: %w", e.Name, ErrExists)
	}
	if x.byName == nil {
		x.byName = make(map[string]*entry)
	}
	x.byName[e.Name] = &entry{Export: e, sessions: make(map[*Session]struct{}), idle: make(chan struct{})}
	return nil
}

// SetDefault names the export that a client gets who asks for the empty name.
// It need not exist yet. The empty name, also the zero value, means that there
// is no default.
func (x *Exports) SetDefault(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.defaultName = name
}

// Lookup finds an export; the empty name is the default one. It fails with
// ErrUnknownExport.
func (x *Exports) Lookup(name string) (Export, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, err := x.find(name)
	if err != nil {
		return Export{}, err
	}
	return e.Export, nil
}

func (x *Exports) find(name string) (*entry, error) {
	asked := name
	if name == "" {
		name = x.defaultName
	}
	e, ok := x.byName[name]
	switch {
	case ok:
		return e, nil
	case asked == "":
		return nil, fmt.Errorf("target: the default export was asked for, and there is none: %w", ErrUnknownExport)
	default:
		return nil, fmt.Errorf("target: export %q: %w", name, ErrUnknownExport)
	}
}

// List is a copy of the table, sorted by name.
func (x *Exports) List() []Export {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := make([]Export, 0, len(x.byName))
	for e := range maps.Values(x.byName) {
		list = append(list, e.Export)
	}
	slices.SortFunc(list, func(a, b Export) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Sessions counts the connections attached to the export, 0 if there is none
// of that name.
func (x *Exports) Sessions(name string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.byName[name]; ok {
		return len(e.sessions)
	}
	return 0
}

// Remove takes an export away: nobody can open it any more, every session on
// it is revoked with ErrRemoved, and Remove waits until their connections have
// closed them. If ctx ends first its error is returned; the export is gone from
// the table all the same, and the sessions go on closing. It fails with
// ErrUnknownExport.
func (x *Exports) Remove(ctx context.Context, name string) error {
	x.mu.Lock()
	e, ok := x.byName[name]
	if !ok {
		x.mu.Unlock()
		return fmt.Errorf("target: remove export %q: %w", name, ErrUnknownExport)
	}
	delete(x.byName, name)
	e.removed = true
	left := slices.Collect(maps.Keys(e.sessions))
	e.checkIdle()
	x.mu.Unlock()

	for _, s := range left {
		go s.revoke(ErrRemoved)
	}
	select {
	case <-e.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("target: remove export %q: it still has connections: %w", name, ctx.Err())
	}
}

// checkIdle tells Remove once the last session is gone. The table's mutex is
// held; after removal no session is added, so it is closed once.
func (e *entry) checkIdle() {
	if e.removed && e.opening == 0 && len(e.sessions) == 0 {
		close(e.idle)
	}
}
