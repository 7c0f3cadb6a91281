package mirror

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/lockstep-storage/lockstep/journal"
)

// LSN is a write's sequence number in the volume's one total order.
type LSN = journal.LSN

// ID is 128 random bits that name a volume or a generation. The zero ID is none.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return fmt.Errorf("%q is no id: %d hexadecimal digits are wanted", b, 2*len(id))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// Role is what a replica's node does with the volume.
type Role uint8

const (
	Secondary Role = iota
	Primary        // exports the volume, orders the writes
)

// DiskState is what a replica's data is worth.
type DiskState uint8

const (
	Diskless DiskState = iota // a Primary whose own disk failed: it goes on through its peers
	Attaching
	Failed       // a write or a sync failed: nothing unsynced may be believed
	Inconsistent // in the middle of a resync, or new
	Outdated     // complete, but others are known to have gone on
	Consistent   // complete, but cut off: others may have gone on
	UpToDate
)

// ConnState is the state of the connection to one peer.
type ConnState uint8

const (
	StandAlone ConnState = iota // not connected, and not trying to
	Connecting
	Connected
)

// ReplState is what is going on over a connection.
type ReplState uint8

const (
	ReplOff     ReplState = iota
	Established           // live stream, or nothing to send
	CatchUp               // missing records are sent from the journal
	SyncSource            // blocks are sent by bitmap
	SyncTarget            // blocks are received by bitmap
	PausedSyncS           // the same, while either side holds it back
	PausedSyncT
)

// A Member is one replica as the in-sync set counts it: a node, in one
// incarnation (replication.md 2).
type Member struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
}

// A Generation is a span of LSNs written by one run of one Primary with one
// in-sync set (replication.md 1).
type Generation struct {
	ID         ID       `json:"id"`
	Parent     ID       `json:"parent"`
	Epoch      uint64   `json:"epoch"`
	First      LSN      `json:"first"` // of its generation record
	SetVersion uint64   `json:"setVersion"`
	Set        []Member `json:"set"` // sorted by node
	// RollingBack is set while the volume is being rolled back to a snapshot: what a
	// record of this generation leaves is half old, half new (snapshot_rollback.go).
	RollingBack RollbackTarget `json:"rollingBack,omitzero"`
}

// A RollbackTarget names the snapshot that a volume is being rolled back to. The zero
// RollbackTarget is none.
type RollbackTarget struct {
	Node     string `json:"node"`     // on which the snapshot is
	Snapshot string `json:"snapshot"` // its name, at most 64 bytes
}

// IsZero reports whether t is none.
func (t RollbackTarget) IsZero() bool { return t == RollbackTarget{} }

// Tag is what the generation's records carry.
func (g *Generation) Tag() uint64 {
	var t uint64
	for i := range 8 {
		t |= uint64(g.ID[i]) << (8 * i)
	}
	return t
}

// A History is a replica's generations, oldest first, First strictly rising.
type History []Generation

// A Position names a record.
type Position struct {
	Generation ID  `json:"generation"`
	LSN        LSN `json:"lsn"`
}

// A Superblock is a replica's own small state, which commits before every other
// file (invariant 10).
type Superblock struct {
	Seq uint64 // raised by every commit

	Volume     ID // zero until the first promotion or the first peer
	Name       string
	Node       string
	Size       int64 // bytes
	WriteCache bool
	Protocol   Protocol

	History    History
	Epoch      uint64 // the newest seen
	SetVersion uint64 // the newest seen
	Set        []Member
	// Excluded: a newer set without this replica was heard of (10c).
	Excluded bool

	Incarnation uint64
	BootID      string // under which the incarnation was last written
	Disk        DiskState
	LossCounter uint64

	// Resync is set while the replica is the target of a bitmap resync.
	Resync *ResyncMark

	// Snapshots are what snapshots.go keeps, oldest first. The list is a value, as
	// an in-sync set is: it is never changed in place.
	Snapshots []SnapshotEntry
}

// A SnapshotEntry is what the superblock says of a snapshot: a file that it does
// not name is of no use.
type SnapshotEntry struct {
	Name    string
	ID      ID        // of its file
	At      Position  // the newest record in the image
	Created time.Time // by this node's clock
	// Peer is with whom the replica was in a split-brain, if the image is its side,
	// which it gave up; "" if a user asked for the snapshot.
	Peer string
	// Settling: the resync that overwrites that side is not through.
	Settling bool
	// Before: it is what the replica held before the rollback that is under way, and
	// goes when that is through.
	Before bool
	// Lost is why nothing can be read from it any more; "" if it is whole.
	Lost string
}

// A ResyncMark says what an Inconsistent replica's store is made of.
type ResyncMark struct {
	Base   Position // the consistent image that it began from; LSN 0 is all zeroes
	Source string   // the node that it copies from; "" if none was met yet
	// JournalLost: the replica was whole when its journal was lost, and has more
	// than Base, who knows how much (replication.md 14). A source has to have
	// Base; what may differ is what the source holds to be out of sync, and what
	// the write-intent bitmap marks.
	JournalLost bool
	// Undo is the id of the snapshot that keeps what the store was before (undo.go);
	// zero: there is none. It stays on this node.
	Undo ID
	// RollingBack: an operator had the replica rolled back, and it is not through.
	RollingBack bool
}

func (m *ResyncMark) String() string {
	switch {
	case m.JournalLost && m.Source == "":
		return "its journal was lost, and no source has come to resync it"
	case m.JournalLost:
		return "its journal was lost; it is in the middle of a resync from " + m.Source
	}
	if m.RollingBack {
		return "in the middle of being rolled back"
	}
	return "in the middle of a resync from " + m.Source
}

// Protocol is when a write is acknowledged.
type Protocol uint8

const (
	// ProtocolC acknowledges once every in-sync replica has the write in its
	// journal. The default.
	ProtocolC Protocol = iota
	// ProtocolB acknowledges once every in-sync replica has received it.
	ProtocolB
)

// A Description is what a replica tells a peer of itself when they meet.
type Description struct {
	Node        string
	Volume      ID
	Name        string
	Size        int64
	Protocol    Protocol
	WriteCache  bool
	Role        Role
	Disk        DiskState
	Epoch       uint64
	SetVersion  uint64
	Set         []Member
	Excluded    bool
	Incarnation uint64
	History     History
	End         LSN // of the history: the journal's newest record
	Durable     LSN
	Stable      LSN // noted
	Resync      *ResyncMark
}
