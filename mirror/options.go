package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/lockstep-storage/lockstep/disk"
)

// A Store is what a replica's bytes live on (package store has several). Its
// methods may be called concurrently.
type Store interface {
	ReadAt(p []byte, off int64) (int, error)
	// TryReadAt reads only what needs no wait for a disk; false means that
	// ReadAt is needed.
	TryReadAt(p []byte, off int64) (bool, error)
	WriteAt(p []byte, off int64) (int, error)
	WritevAt(bufs [][]byte, off int64) error
	// Zero makes a range read as zeroes; with punch its space may be given back.
	Zero(off, n int64, punch bool) error
	// WriteBack begins to make what was written to a range durable, so that a
	// later Sync has less to wait for; it may do nothing. Its failure is final.
	WriteBack(off, n int64) error
	// Sync makes every finished write durable. Its first failure is final.
	Sync() error
	Size() int64
	// Extents reports which parts of a range hold data and which are holes that
	// read as zeroes, in order.
	Extents(off, n int64, report func(off, n int64, data bool) error) error
	Close() error
}

// A Dialer opens a connection to a peer's node, and proves who is there and who we
// are if that matters: package mirror does neither. Whatever wraps the connection
// (crypto/tls, say) takes reads and writes at once, has deadlines, and is closed
// without waiting for the peer.
type Dialer interface {
	Dial(ctx context.Context, node string) (net.Conn, error)
}

// CreateOptions describe a new replica.
type CreateOptions struct {
	Node   string // this node's name
	Volume string // 1 to 64 of a-z A-Z 0-9 . _ -
	Size   int64  // bytes, a multiple of 4096
	// Protocol and NoWriteCache are the volume's, the same on every replica.
	Protocol     Protocol
	NoWriteCache bool
	// JournalSize in bytes; 0 is 256 MiB, the least is 64 MiB.
	JournalSize int64
	// Journal is a directory of the journal's own, which must be empty; nil is
	// the subdirectory "journal" of the replica's. See EraseJournal.
	Journal disk.FS
}

// Options open a replica. FS, Store, Node and Volume are required.
type Options struct {
	Node   string
	Volume string
	// FS is the directory of the replica's superblock, journal and bitmaps.
	FS disk.FS
	// Journal is the journal's directory, if Create was given one. A volume
	// holds a lock on it while it is open.
	Journal disk.FS
	// Store holds the volume's bytes; the volume closes it.
	Store Store
	// Peers are the other nodes that are configured to hold a replica.
	Peers []string
	// Dialer reaches the peers; nil if Peers is empty.
	Dialer Dialer
	// Logger, nil for none.
	Logger *slog.Logger

	// PendingLimit is the most payload bytes that wait in memory to be applied. What
	// a sync was asked for leaves memory at half of it, and waits in the journal;
	// above it writers wait. Default 64 MiB, at least 4 MiB.
	PendingLimit int64
	// PeerTimeout: a peer that is silent for so long, or owes an
	// acknowledgement and makes no progress, leaves the in-sync set. Default
	// 3 s, at least 200 ms.
	PeerTimeout time.Duration
	// PeerLatencyBudget is how long a write or a flush may wait for one peer alone,
	// what this replica takes for it not counted. A peer for which they wait longer,
	// for ten times the budget, leaves the in-sync set, if MinInSync lets it, goes on
	// receiving, and comes back once it keeps up. 0, the default, is off: redundancy is
	// not given up for latency. Else at least BudgetLeast.
	PeerLatencyBudget time.Duration
	// SyncInterval is how often a volume that no client flushes is synced in
	// the background, so that records can be applied. Default 1 s.
	SyncInterval time.Duration
	// RetryInterval is the pause between attempts to connect. Default 500 ms.
	RetryInterval time.Duration
	// ResyncRate is how fast the bitmap resyncs to all peers together go, bytes of the
	// volume per second, or ResyncUnlimited. Default ResyncAuto: between ResyncRateMin,
	// which it takes whatever clients do, default DefaultResyncRateMin, and
	// ResyncRateMax, 0 no limit, such that clients' writes do not take notably longer.
	ResyncRate                   int64
	ResyncRateMin, ResyncRateMax int64
	// NoResyncChecksums has a resync copy what may differ without comparing it first.
	NoResyncChecksums bool
	// ResyncUndo is the most bytes on disk that a bitmap resync may keep of what it
	// overwrites, so that it can be rolled back: 0 is no limit, UndoOff keeps nothing.
	ResyncUndo int64
	// SnapshotLimit is the most bytes on disk that one snapshot may take: 0 is no limit
	// but the volume's size and a 64th. One that would need more is lost.
	SnapshotLimit int64
	// SharedDisk: Store takes its space from the file system that FS is on. When that
	// is full snapshots are given up, the largest first, before writes are refused.
	SharedDisk bool
	// OnIOError is what a Primary does when its own disk fails. Default Detach.
	OnIOError IOErrorPolicy
	// Split has a split-brain settled in which both sides wrote. Default: not by
	// itself.
	Split SplitPolicies
	// MinInSync is how many in-sync replicas, this one included, a Primary needs
	// to acknowledge a write. Default 1, at most one more than there are Peers. It
	// should be the same on every node.
	MinInSync int
	// OnNoQuorum is what writes meet while there are fewer. Default SuspendIO.
	OnNoQuorum QuorumPolicy
	// Hooks are what the volume calls when something happens.
	Hooks Hooks
	// Coordinator keeps the agreement on who is in sync for all nodes. Default: the
	// one without a store; roles are set by hand then.
	Coordinator Coordinator
	// BootID is what tells a restart of the process from one of the host.
	// Default: the kernel's.
	BootID string
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.PendingLimit == 0 {
		o.PendingLimit = 64 << 20
	}
	if o.PeerTimeout == 0 {
		o.PeerTimeout = 3 * time.Second
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = time.Second
	}
	if o.MinInSync == 0 {
		o.MinInSync = 1
	}
	if o.ResyncRateMin == 0 {
		o.ResyncRateMin = DefaultResyncRateMin
	}
	if o.Coordinator == nil {
		o.Coordinator = superblocks{}
	}
	if o.RetryInterval == 0 {
		o.RetryInterval = 500 * time.Millisecond
	}
}

// Validate lists every problem at once.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if o.Node == "" {
		bad("Node is empty")
	}
	if o.Volume == "" {
		bad("Volume is empty")
	}
	if o.FS == nil {
		bad("FS is nil")
	}
	if o.Store == nil {
		bad("Store is nil")
	}
	if len(o.Peers) > 0 && o.Dialer == nil {
		bad("there are peers but no Dialer")
	}
	seen := map[string]bool{o.Node: true}
	for _, p := range o.Peers {
		if seen[p] {
			bad("node %q is listed twice", p)
		}
		seen[p] = true
	}
	if len(o.Peers) > 8 {
		bad("%d peers, the limit is 8", len(o.Peers))
	}
	if o.PendingLimit < 4<<20 {
		bad("PendingLimit is %d bytes, the least is 4 MiB", o.PendingLimit)
	}
	if o.PeerTimeout < 200*time.Millisecond {
		bad("PeerTimeout is %v, the least is 200ms", o.PeerTimeout)
	}
	if o.PeerLatencyBudget != 0 && o.PeerLatencyBudget < BudgetLeast {
		bad("PeerLatencyBudget is %v, the least is %v, and 0 is off", o.PeerLatencyBudget, BudgetLeast)
	}
	if o.ResyncRate < ResyncUnlimited || o.ResyncRateMin < 0 || o.ResyncRateMax < 0 {
		bad("ResyncRate is %d, ResyncRateMin %d and ResyncRateMax %d bytes per second", o.ResyncRate, o.ResyncRateMin, o.ResyncRateMax)
	}
	if o.ResyncUndo < UndoOff {
		bad("ResyncUndo is %d bytes", o.ResyncUndo)
	}
	if o.SnapshotLimit < 0 {
		bad("SnapshotLimit is %d bytes", o.SnapshotLimit)
	}
	if int(o.OnIOError) >= len(policyNames) {
		bad("OnIOError is %v", o.OnIOError)
	}
	if err := o.Split.validate(append([]string{o.Node}, o.Peers...)); err != nil {
		bad("Split: %w", err)
	}
	if o.MinInSync < 1 || o.MinInSync > 1+len(o.Peers) {
		bad("MinInSync is %d: with %d peers 1 to %d replicas can be in sync", o.MinInSync, len(o.Peers), 1+len(o.Peers))
	}
	if int(o.OnNoQuorum) >= len(quorumPolicyNames) {
		bad("OnNoQuorum is %v", o.OnNoQuorum)
	}
	if o.SyncInterval < time.Millisecond {
		bad("SyncInterval is %v, the least is 1ms", o.SyncInterval)
	}
	return errors.Join(errs...)
}
