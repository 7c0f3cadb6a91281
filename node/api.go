package node

import (
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// Version is the answer to GET /v1/version.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	API     int    `json:"api"` // 1
	Node    string `json:"node"`
}

// Status is the answer to GET /v1/status.
type Status struct {
	Node    string         `json:"node"`
	Version string         `json:"version"`
	DataDir string         `json:"dataDir"`
	Started time.Time      `json:"started"`
	NBD     []Address      `json:"nbd"`  // as bound
	Peer    Address        `json:"peer"` // as bound
	Volumes []VolumeStatus `json:"volumes"`
}

// VolumeStatus is one volume of a node.
type VolumeStatus struct {
	Name string `json:"name"`
	// Problem is a sentence that says why the volume is not open and what to
	// do. The fields of mirror.Status are then absent.
	Problem string `json:"problem,omitempty"`
	// ReadOnlyExport is the export under which this replica, which is not Primary,
	// is read as it is; "" if it is not.
	ReadOnlyExport string `json:"readOnlyExport,omitempty"`
	*mirror.Status
}

// CreateRequest is the body of POST /v1/volumes. What is left out, except Name
// and Size, is the configuration's or the default.
type CreateRequest struct {
	Name         string          `json:"name"`
	Size         int64           `json:"size"`                  // bytes, a multiple of 4096
	JournalSize  int64           `json:"journalSize,omitempty"` // bytes, at least 64 MiB
	Protocol     mirror.Protocol `json:"protocol,omitempty"`
	NoWriteCache bool            `json:"noWriteCache,omitempty"`
	Peers        []Peer          `json:"peers,omitempty"`
	PendingLimit int64           `json:"pendingLimit,omitempty"` // bytes
	PeerTimeout  Duration        `json:"peerTimeout,omitzero"`
	// PeerLatencyBudget: a peer for which writes wait longer leaves the in-sync set; off unless set.
	PeerLatencyBudget Duration `json:"peerLatencyBudget,omitzero"`
	SyncInterval      Duration `json:"syncInterval,omitzero"`
	RetryInterval     Duration `json:"retryInterval,omitzero"`
	ResyncRate        int64    `json:"resyncRate,omitempty"` // bytes per second; -1 is unlimited
	// ResyncUndo: bytes; -1 is off.
	ResyncUndo int64 `json:"resyncUndo,omitempty"`
	// SnapshotLimit: bytes on disk of one snapshot; 0 is no limit.
	SnapshotLimit int64 `json:"snapshotLimit,omitempty"`
	// OnIOError is "detach", the default, or "pass-on".
	OnIOError mirror.IOErrorPolicy `json:"onIOError,omitempty"`
	// MinInSync is how many in-sync replicas a write needs, 1 unless set, and
	// OnNoQuorum is "suspend-io", the default, or "io-error".
	MinInSync  int                 `json:"minInSync,omitempty"`
	OnNoQuorum mirror.QuorumPolicy `json:"onNoQuorum,omitempty"`
	Store      string              `json:"store,omitempty"` // absolute path
	// Wipe lets Store be a block device that exists; all on it is erased.
	Wipe bool `json:"wipe,omitempty"`
	// Preallocate takes the store's space at once, until a trim gives it back.
	Preallocate bool `json:"preallocate,omitempty"`
	// Direct keeps the store's bytes out of the page cache (O_DIRECT).
	Direct  bool   `json:"direct,omitempty"`
	Journal string `json:"journal,omitempty"` // absolute path of an empty directory
}

// PromoteRequest is the body of POST /v1/volumes/{name}/promote.
type PromoteRequest struct {
	Force bool `json:"force"`
}

// ExportRequest is the body of POST /v1/volumes/{name}/export, and of
// /v1/volumes/{name}/snapshots/{snapshot}/export.
type ExportRequest struct {
	ReadOnly bool `json:"readOnly"` // must be true
}

// SnapshotRequest is the body of POST /v1/volumes/{name}/snapshots.
type SnapshotRequest struct {
	Name string `json:"name"`
}

// ResolveRequest is the body of POST /v1/volumes/{name}/split/resolve.
type ResolveRequest struct {
	Keep string `json:"keep"` // the node whose writes are kept
	// DryRun says what would be done, and does nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// DiscardLosingWrites: the other side's writes are kept nowhere, not in a snapshot
	// on its node either.
	DiscardLosingWrites bool `json:"discardLosingWrites,omitempty"`
}

// RepairRequest is the body of POST /v1/volumes/{name}/repair.
type RepairRequest struct {
	Force       bool  `json:"force"`
	JournalSize int64 `json:"journalSize,omitempty"` // bytes, of the new journal; 0 is the old one's
}

// PeerRequest is the body of POST /v1/volumes/{name}/connect and /disconnect.
type PeerRequest struct {
	Peer string `json:"peer,omitempty"` // "" is every peer of the volume
}
