package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/lockstep-storage/lockstep/mirror"
)

// maxAnswer is the most that a Client reads of one answer, in bytes.
const maxAnswer = 16 << 20

// Client speaks the admin API of the daemon that listens on a socket. Its
// methods may be called concurrently. Their errors are an *Error when the
// daemon said no, and otherwise a sentence about reaching it.
type Client struct {
	socket string
	http   http.Client
}

// NewClient gives a client for the daemon that listens on socket. It does not
// connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version asks what the daemon is.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return call[Version](ctx, c, http.MethodGet, "/v1/version", nil)
}

// Status asks for the state of the daemon and of all its volumes.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Volume asks for the state of one volume.
func (c *Client) Volume(ctx context.Context, name string) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodGet, volumePath(name, ""), nil)
}

// Create makes a new replica.
func (c *Client) Create(ctx context.Context, r CreateRequest) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, "/v1/volumes", r)
}

// Delete removes the node's replica of a volume, and its data.
func (c *Client) Delete(ctx context.Context, name string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, volumePath(name, ""), nil)
	return err
}

// Promote makes the node the volume's Primary.
func (c *Client) Promote(ctx context.Context, name string, r PromoteRequest) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/promote"), r)
}

// Demote makes the node a Secondary of the volume.
func (c *Client) Demote(ctx context.Context, name string) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/demote"), nil)
}

// PlanRepair asks what Repair would do; it changes nothing.
func (c *Client) PlanRepair(ctx context.Context, name string) (mirror.RepairPlan, error) {
	return call[mirror.RepairPlan](ctx, c, http.MethodGet, volumePath(name, "/repair"), nil)
}

// PlanRollback asks what Rollback would do; it changes nothing.
func (c *Client) PlanRollback(ctx context.Context, name string) (mirror.RollbackPlan, error) {
	return call[mirror.RollbackPlan](ctx, c, http.MethodGet, volumePath(name, "/rollback"), nil)
}

// Rollback takes a replica in the middle of a bitmap resync back to what it was.
func (c *Client) Rollback(ctx context.Context, name string) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/rollback"), nil)
}

// Repair gives up the journal of a replica that lost it, or failed.
func (c *Client) Repair(ctx context.Context, name string, r RepairRequest) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/repair"), r)
}

// Export exports the node's replica, which is not Primary, read-only.
func (c *Client) Export(ctx context.Context, name string, r ExportRequest) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/export"), r)
}

// Unexport ends what Export began.
func (c *Client) Unexport(ctx context.Context, name string) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/unexport"), nil)
}

// Snapshots lists the snapshots of the node's replica, oldest first.
func (c *Client) Snapshots(ctx context.Context, name string) ([]Snapshot, error) {
	return call[[]Snapshot](ctx, c, http.MethodGet, volumePath(name, "/snapshots"), nil)
}

// CreateSnapshot makes one.
func (c *Client) CreateSnapshot(ctx context.Context, name string, r SnapshotRequest) (Snapshot, error) {
	return call[Snapshot](ctx, c, http.MethodPost, volumePath(name, "/snapshots"), r)
}

// DeleteSnapshot ends one.
func (c *Client) DeleteSnapshot(ctx context.Context, name, snapshot string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, snapshotPath(name, snapshot, ""), nil)
	return err
}

// ExportSnapshot exports one read-only.
func (c *Client) ExportSnapshot(ctx context.Context, name, snapshot string, r ExportRequest) (Snapshot, error) {
	return call[Snapshot](ctx, c, http.MethodPost, snapshotPath(name, snapshot, "/export"), r)
}

// UnexportSnapshot ends what ExportSnapshot began.
func (c *Client) UnexportSnapshot(ctx context.Context, name, snapshot string) (Snapshot, error) {
	return call[Snapshot](ctx, c, http.MethodPost, snapshotPath(name, snapshot, "/unexport"), nil)
}

// PlanSnapshotRollback asks what RollbackToSnapshot would do; it changes nothing.
func (c *Client) PlanSnapshotRollback(ctx context.Context, name, snapshot string) (mirror.SnapshotRollbackPlan, error) {
	return call[mirror.SnapshotRollbackPlan](ctx, c, http.MethodGet, snapshotPath(name, snapshot, "/rollback"), nil)
}

// RollbackToSnapshot has the volume be what it was when the snapshot was created. It
// goes on if ctx ends.
func (c *Client) RollbackToSnapshot(ctx context.Context, name, snapshot string) (Snapshot, error) {
	return call[Snapshot](ctx, c, http.MethodPost, snapshotPath(name, snapshot, "/rollback"), nil)
}

// GiveUpRollback takes a volume that is half rolled back to a snapshot as it is.
func (c *Client) GiveUpRollback(ctx context.Context, name string) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/rollback/give-up"), nil)
}

// SplitBrains asks what is known of the split-brains that the volume is in.
func (c *Client) SplitBrains(ctx context.Context, name string) ([]mirror.SplitReport, error) {
	return call[[]mirror.SplitReport](ctx, c, http.MethodGet, volumePath(name, "/split"), nil)
}

// Resolve ends a split-brain in favour of one side, or says what that would do.
func (c *Client) Resolve(ctx context.Context, name string, r ResolveRequest) (mirror.SplitPlan, error) {
	return call[mirror.SplitPlan](ctx, c, http.MethodPost, volumePath(name, "/split/resolve"), r)
}

// Connect lets the volume seek its peer, or all of them.
func (c *Client) Connect(ctx context.Context, name string, r PeerRequest) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/connect"), r)
}

// Disconnect parts the volume from its peer, or from all of them.
func (c *Client) Disconnect(ctx context.Context, name string, r PeerRequest) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/disconnect"), r)
}

// PauseResync holds back the volume's bitmap resyncs, until ResumeResync or the
// daemon's end.
func (c *Client) PauseResync(ctx context.Context, name string) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/resync/pause"), nil)
}

// ResumeResync ends what PauseResync began.
func (c *Client) ResumeResync(ctx context.Context, name string) (VolumeStatus, error) {
	return call[VolumeStatus](ctx, c, http.MethodPost, volumePath(name, "/resync/resume"), nil)
}

func volumePath(name, action string) string { return "/v1/volumes/" + url.PathEscape(name) + action }

func snapshotPath(name, snapshot, action string) string {
	return volumePath(name, "/snapshots/") + url.PathEscape(snapshot) + action
}

func call[A any](ctx context.Context, c *Client, method, path string, body any) (answer A, err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return answer, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://lockstep"+path, bytes.NewReader(text))
	if err != nil {
		return answer, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer, c.unreachable(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer, fmt.Errorf("the daemon at %s broke off its answer: %w", c.socket, err)
	}
	if resp.StatusCode >= 300 {
		var e Error
		if json.Unmarshal(got, &e) != nil || e.Text == "" {
			return answer, fmt.Errorf("the daemon at %s answered %s", c.socket, resp.Status)
		}
		return answer, &e
	}
	if err := json.Unmarshal(got, &answer); err != nil {
		return answer, fmt.Errorf("the daemon at %s gave an answer that this program can't read (is it of another version?): %w", c.socket, err)
	}
	return answer, nil
}

func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no daemon answers at %s: start one with `lockstep serve`, or name its socket with --socket or LOCKSTEP_SOCKET", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not use the daemon's socket %s: run as the daemon's user, or as root", c.socket)
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	return fmt.Errorf("the daemon at %s can't be reached: %w", c.socket, err)
}
