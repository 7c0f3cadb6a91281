package node

import (
	"context"
	"net"
	"sync"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
)

// volume is what the daemon needs of a *mirror.Volume.
type volume interface {
	block.Device
	Close(ctx context.Context) error
	Promote(ctx context.Context, o mirror.PromoteOptions) error
	Demote(ctx context.Context) error
	Connect(peer string) error // "" is all of them
	Disconnect(peer string) error
	PauseResync()
	ResumeResync()
	HoldResync(after string)
	PlanRollback() (mirror.RollbackPlan, error)
	Rollback(ctx context.Context) (mirror.RollbackPlan, error)
	PlanRepair(r mirror.RepairOptions) (mirror.RepairPlan, error)
	OpenImage(ctx context.Context) (*mirror.Image, error)
	Snapshots() []mirror.SnapshotStatus
	CreateSnapshot(ctx context.Context, name string) (mirror.SnapshotStatus, error)
	DeleteSnapshot(name string) error
	OpenSnapshot(name string) (*mirror.Image, error)
	PlanSnapshotRollback(name string) (mirror.SnapshotRollbackPlan, error)
	RollbackToSnapshot(ctx context.Context, name string) (mirror.SnapshotRollbackPlan, error)
	GiveUpRollback() error
	PlanResolve(o mirror.ResolveOptions) (mirror.SplitPlan, error)
	ResolveSplit(ctx context.Context, o mirror.ResolveOptions) (mirror.SplitPlan, error)
	SplitBrains() ([]mirror.SplitReport, error)
	Status() mirror.Status
	Accept(conn net.Conn, pre mirror.Preamble, version uint16)
}

var _ volume = (*mirror.Volume)(nil)

// engine makes and opens replicas; tests put fakes in its place.
type engine struct {
	create func(fs disk.FS, o mirror.CreateOptions) error
	open   func(o mirror.Options) (volume, error)
	plan   func(o mirror.Options, r mirror.RepairOptions) (mirror.RepairPlan, error)
	repair func(o mirror.Options, r mirror.RepairOptions) (mirror.RepairPlan, error)
}

var mirrorEngine = engine{
	create: mirror.Create,
	plan:   mirror.PlanRepair,
	repair: mirror.Repair,
	open: func(o mirror.Options) (volume, error) {
		v, err := mirror.Open(o)
		if err != nil {
			return nil, err // a nil *Volume would make a volume that is not nil
		}
		return v, nil
	},
}

// hosted is one volume of this node, open or not.
type hosted struct {
	name string
	// change is held while the volume is promoted, demoted or deleted.
	change sync.Mutex

	volume  volume // nil while the volume is not open
	problem string // why, and what to do
}

func (h *hosted) status() VolumeStatus {
	s := VolumeStatus{Name: h.name, Problem: h.problem}
	if h.volume != nil {
		st := h.volume.Status()
		s.Status = &st
		if st.Image != nil {
			s.ReadOnlyExport = imageExport(h.name, st.Node)
		}
	}
	return s
}

// table holds a node's volumes by name. An entry does not change once it is in
// the table, it is replaced.
type table struct {
	mu     sync.Mutex
	byName map[string]*hosted
}

func (t *table) put(h *hosted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byName == nil {
		t.byName = map[string]*hosted{}
	}
	t.byName[h.name] = h
}

func (t *table) remove(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byName, name)
}

// get gives nil when there is no such volume.
func (t *table) get(name string) *hosted {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[name]
}

// list is sorted by name.
func (t *table) list() []*hosted {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*hosted, 0, len(t.byName))
	for _, name := range keysOf(t.byName) {
		all = append(all, t.byName[name])
	}
	return all
}
