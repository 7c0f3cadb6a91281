package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
)

// fakeVolume is a volume without a replica.
type fakeVolume struct {
	o mirror.Options

	mu       sync.Mutex
	st       mirror.Status
	promote  error // what Promote without force answers
	closeErr error
	closed   bool
	calls    []string
	accepted chan mirror.Preamble
	// enter, when not nil, makes Demote wait.
	enter, leave chan struct{}
}

func (v *fakeVolume) note(format string, a ...any) {
	v.calls = append(v.calls, fmt.Sprintf(format, a...))
}

func (v *fakeVolume) Info() block.Info { return block.Info{Size: v.st.Size, SectorSize: 512} }

func (v *fakeVolume) Attach(context.Context, func(error)) (block.Session, error) {
	return nil, block.ErrNotServing
}

func (v *fakeVolume) Close(context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return errors.New("closed twice")
	}
	v.closed = true
	return errors.Join(v.closeErr, v.o.Store.Close())
}

func (v *fakeVolume) Promote(_ context.Context, o mirror.PromoteOptions) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.promote != nil && !o.Force {
		return v.promote
	}
	v.st.Role = mirror.Primary
	return nil
}

func (v *fakeVolume) Demote(ctx context.Context) error {
	if v.enter != nil {
		v.enter <- struct{}{}
		select {
		case <-v.leave:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.st.Role = mirror.Secondary
	return nil
}

func (v *fakeVolume) Connect(peer string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note("connect %q", peer)
	return nil
}

func (v *fakeVolume) Disconnect(peer string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note("disconnect %q", peer)
	return nil
}

func (v *fakeVolume) PauseResync() { v.calledFor("pause") }

func (v *fakeVolume) ResumeResync() { v.calledFor("resume") }

func (v *fakeVolume) HoldResync(after string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.st.ResyncAfter = after
}

func (v *fakeVolume) calledFor(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note("%s", what)
}

func (v *fakeVolume) PlanRepair(mirror.RepairOptions) (mirror.RepairPlan, error) {
	plan := mirror.RepairPlan{Volume: v.o.Volume, Node: v.o.Node, Refused: "there is nothing to repair"}
	return plan, &mirror.RepairRefusedError{Plan: plan, Hopeless: true}
}

func (v *fakeVolume) PlanRollback() (mirror.RollbackPlan, error) {
	plan := mirror.RollbackPlan{Volume: v.o.Volume, Node: v.o.Node, Restores: 4096}
	if v.Status().Disk != mirror.Inconsistent {
		plan.Refused = "no resync is under way"
		return plan, &mirror.RollbackRefusedError{Plan: plan}
	}
	return plan, nil
}

func (v *fakeVolume) Rollback(context.Context) (mirror.RollbackPlan, error) {
	plan, err := v.PlanRollback()
	if err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.note("rollback")
		v.st.Disk = mirror.Outdated
	}
	return plan, err
}

func (v *fakeVolume) OpenImage(context.Context) (*mirror.Image, error) {
	return nil, errors.New("a fake has no image")
}

func (v *fakeVolume) Snapshots() []mirror.SnapshotStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.st.Snapshots)
}

func (v *fakeVolume) CreateSnapshot(_ context.Context, name string) (mirror.SnapshotStatus, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.st.Snapshots) > 0 {
		return mirror.SnapshotStatus{}, mirror.ErrSnapshotExists
	}
	s := mirror.SnapshotStatus{Name: name}
	v.st.Snapshots = append(v.st.Snapshots, s)
	return s, nil
}

func (v *fakeVolume) DeleteSnapshot(string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.st.Snapshots = nil
	return nil
}

func (v *fakeVolume) OpenSnapshot(string) (*mirror.Image, error) {
	return nil, errors.New("a fake has no image")
}

func (v *fakeVolume) PlanSnapshotRollback(string) (mirror.SnapshotRollbackPlan, error) {
	return mirror.SnapshotRollbackPlan{Volume: v.o.Volume, Restores: 4096}, nil
}

func (v *fakeVolume) RollbackToSnapshot(context.Context, string) (mirror.SnapshotRollbackPlan, error) {
	return mirror.SnapshotRollbackPlan{}, errors.New("2 clients are attached")
}

func (v *fakeVolume) GiveUpRollback() error { return errors.New("there is none") }

func (v *fakeVolume) PlanResolve(o mirror.ResolveOptions) (mirror.SplitPlan, error) {
	return mirror.SplitPlan{Volume: v.o.Volume, Keep: o.Keep, Next: []mirror.SplitStep{}}, nil
}

func (v *fakeVolume) ResolveSplit(_ context.Context, o mirror.ResolveOptions) (mirror.SplitPlan, error) {
	plan := mirror.SplitPlan{Volume: v.o.Volume, Keep: o.Keep}
	if o.Keep == "nobody" {
		return plan, &mirror.ResolveRefusedError{Volume: v.o.Volume, Reason: "nobody has no part in it"}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note("keep %q, discard %v", o.Keep, o.DiscardLosingWrites)
	return plan, nil
}

func (v *fakeVolume) SplitBrains() ([]mirror.SplitReport, error) { return []mirror.SplitReport{}, nil }

func (v *fakeVolume) Status() mirror.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.st
}

func (v *fakeVolume) Accept(conn net.Conn, pre mirror.Preamble, _ uint16) {
	conn.Close()
	v.accepted <- pre
}

// fakes is an engine of fakeVolumes. Its superblock is a file whose text is
// "good".
type fakes struct {
	createErr error

	mu   sync.Mutex
	open map[string]*fakeVolume
}

func (f *fakes) engine() engine {
	f.open = map[string]*fakeVolume{}
	return engine{create: f.create, open: f.openVolume, plan: f.repair, repair: f.repair}
}

// repair makes a bad superblock good.
func (f *fakes) repair(o mirror.Options, r mirror.RepairOptions) (mirror.RepairPlan, error) {
	plan := mirror.RepairPlan{Volume: o.Volume, Node: o.Node, Reason: "it is bad", Refused: "it is the only copy"}
	if err := o.Store.Close(); err != nil || !r.Force {
		return plan, errors.Join(err, &mirror.RepairRefusedError{Plan: plan})
	}
	return plan, errors.Join(o.FS.Remove("superblock"), f.create(o.FS, mirror.CreateOptions{}))
}

func (f *fakes) create(fs disk.FS, o mirror.CreateOptions) error {
	if f.createErr != nil {
		return f.createErr
	}
	file, err := fs.Create("superblock")
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte("good"), 0)
	return errors.Join(err, file.Close())
}

func (f *fakes) openVolume(o mirror.Options) (volume, error) {
	file, err := o.FS.Open("superblock")
	if err != nil {
		return nil, errors.Join(err, o.Store.Close())
	}
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 100))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if string(text) != "good" {
		return nil, errors.Join(fmt.Errorf("the superblock in %s is unreadable: both slots have a wrong CRC", o.FS), o.Store.Close())
	}
	v := &fakeVolume{o: o, accepted: make(chan mirror.Preamble, 10)}
	v.st = mirror.Status{Volume: o.Volume, Node: o.Node, Size: o.Store.Size(), Disk: mirror.Consistent}
	for _, p := range o.Peers {
		v.st.Peers = append(v.st.Peers, mirror.PeerStatus{Node: p, Connection: mirror.Connecting})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[o.Volume] = v
	return v, nil
}

// testConfig is a configuration that is nobody else's: its own directory (its
// path short enough for a socket) and free ports.
func testConfig(t testing.TB) Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockstep-node-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := DefaultConfig()
	c.Node, c.DataDir, c.Admin = "alpha", dir, adminSocket(dir)
	c.NBD.Listen = []Address{{"tcp", "127.0.0.1:0"}}
	c.Peer.Listen = Address{"tcp", "127.0.0.1:0"}
	c.Nodes = map[string]string{"beta": "127.0.0.1:1"}
	return c
}

// startFakes starts a daemon on fakes, which ends with the test.
func startFakes(t testing.TB, c Config) (*Node, *fakes, *Client) {
	t.Helper()
	f := &fakes{}
	n, err := start(Options{Config: c, Version: "test"}, f.engine())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopNode(t, n) })
	cl := NewClient(c.Admin)
	t.Cleanup(cl.Close)
	return n, f, cl
}

func stopNode(t testing.TB, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// made creates a small volume.
func made(t testing.TB, cl *Client, name string, peers ...Peer) VolumeStatus {
	t.Helper()
	st, err := cl.Create(t.Context(), CreateRequest{Name: name, Size: 1 << 20, Peers: peers})
	if err != nil {
		t.Fatal(err)
	}
	return st
}
