package mirror

import "time"

// Status is a snapshot of a volume for people and programs. Nothing in it is
// kept up to date after it was taken.
type Status struct {
	Volume      string    `json:"volume"`
	ID          ID        `json:"id"`
	Node        string    `json:"node"`
	Size        int64     `json:"size"` // bytes
	Role        Role      `json:"role"`
	Disk        DiskState `json:"disk"`
	Protocol    Protocol  `json:"protocol"`
	WriteCache  bool      `json:"writeCache"`
	AtomicWrite int64     `json:"atomicWrite"` // bytes: block.Info
	Epoch       uint64    `json:"epoch"`
	SetVersion  uint64    `json:"setVersion"`
	InSync      []Member  `json:"inSync"`
	Generation  ID        `json:"generation"`
	Incarnation uint64    `json:"incarnation"`

	End        LSN `json:"end"` // the newest record in the journal
	Committed  LSN `json:"committed"`
	Stable     LSN `json:"stable"`
	Durable    LSN `json:"durable"`
	Applied    LSN `json:"applied"`    // in the backing store
	Checkpoint LSN `json:"checkpoint"` // in the backing store, durably

	PendingBytes int64         `json:"pendingBytes"` // payload in memory, not yet applied
	InDoubt      int64         `json:"inDoubt"`      // bytes that a lost journal would leave in doubt
	Journal      JournalStatus `json:"journal"`
	MinInSync    int           `json:"minInSync"` // of this node's settings
	OnNoQuorum   QuorumPolicy  `json:"onNoQuorum"`
	Sessions     int           `json:"sessions"` // clients attached
	Serving      bool          `json:"serving"`  // a Primary that answers clients
	// Image is what is read of a Secondary, nil if nothing is.
	Image *ImageStatus `json:"image,omitempty"`

	// Suspended: a Primary with fewer than MinInSync replicas in sync acknowledges no
	// write; OnNoQuorum says what becomes of it.
	Suspended bool `json:"suspended"`
	// Waiting says, for people, what writes wait for; "" when they do not wait.
	Waiting string `json:"waiting,omitempty"`
	// ResyncPaused: PauseResync was called, whether or not there is a resync; and
	// ResyncAfter is the volume whose resync goes first, "" if none is under way.
	ResyncPaused bool   `json:"resyncPaused,omitempty"`
	ResyncAfter  string `json:"resyncAfter,omitempty"`
	// Undo is what a bitmap resync, of which this replica is the target, can be
	// rolled back by; nil if there is none.
	Undo *UndoStatus `json:"undo,omitempty"`
	// RollingBack is the snapshot that the volume is in the middle of being rolled back
	// to, and Unfinished says for people what that means and what to run; nil and ""
	// while it is not.
	RollingBack *RollbackTarget `json:"rollingBack,omitempty"`
	Unfinished  string          `json:"unfinished,omitempty"`
	// Snapshots of this replica, oldest first.
	Snapshots []SnapshotStatus `json:"snapshots"`
	// Failure says why the disk state is Failed or Diskless.
	Failure string       `json:"failure,omitempty"`
	Peers   []PeerStatus `json:"peers"`
}

// UndoStatus is the way back from a bitmap resync.
type UndoStatus struct {
	// Base is the record that Rollback goes back to, and Began when the resync did.
	Base  Position  `json:"base"`
	Began time.Time `json:"began"`
	// Preserved is how many bytes of the volume were overwritten since, and are
	// kept; Used what that takes on disk, and Limit how much it may (0: no limit).
	Preserved int64 `json:"preserved"`
	Used      int64 `json:"used"`
	Limit     int64 `json:"limit,omitempty"`
	// RollingBack: a rollback has begun and is not through.
	RollingBack bool `json:"rollingBack,omitempty"`
	// Problem says why the resync is paused; "" if it is not.
	Problem string `json:"problem,omitempty"`
}

// JournalStatus is how full a journal is.
type JournalStatus struct {
	First LSN   `json:"first"` // the oldest record held
	Used  int64 `json:"used"`  // bytes
	Size  int64 `json:"size"`  // bytes
}

// PeerStatus is what a volume knows of one peer.
type PeerStatus struct {
	Node        string     `json:"node"`
	Connection  ConnState  `json:"connection"`
	Replication ReplState  `json:"replication"`
	Role        *Role      `json:"role,omitempty"` // nil while unknown
	Disk        *DiskState `json:"disk,omitempty"`
	Member      bool       `json:"member"` // of the in-sync set
	Received    LSN        `json:"received"`
	Durable     LSN        `json:"durable"`
	OutOfSync   int64      `json:"outOfSync"` // bytes set in its bitmap
	// Behind is about how many bytes it lacks, in its bitmap and in the journal,
	// as a Primary knows; -1 while unknown.
	Behind  int64  `json:"behind"`
	Verdict string `json:"verdict,omitempty"`
	// Reason is the verdict as a sentence, of two connected Secondaries that are
	// not level: nothing goes across until one is promoted.
	Reason     string            `json:"reason,omitempty"`
	Progress   *Progress         `json:"progress,omitempty"`
	SplitBrain *SplitBrainStatus `json:"splitBrain,omitempty"`
	// Paused says, for people, why the resync is held back; "" if it is not.
	Paused string `json:"paused,omitempty"`
	// Slow says why it is no member, if it left the in-sync set for being slow
	// (Options.PeerLatencyBudget); nil else.
	Slow *SlowStatus `json:"slow,omitempty"`
	// Problem is the last refusal or connection error, as a sentence.
	Problem string `json:"problem,omitempty"`

	CatchUps int `json:"catchUps"` // finished since the volume was opened
	Resyncs  int `json:"resyncs"`
	// LastResync is what the last finished one came to, nil if there was none.
	LastResync *Progress `json:"lastResync,omitempty"`
}

// Progress of a catch-up or a resync.
type Progress struct {
	Done    int64 `json:"done"`    // bytes
	Total   int64 `json:"total"`   // bytes; may grow while clients write
	Records int64 `json:"records"` // sent so far (catch-up), or blocks (resync)
	// Of a resync: how many bytes were compared by checksum, how many of those were
	// equal and did not cross, and how many were copied. Done is Equal and Copied.
	Compared int64         `json:"compared,omitempty"`
	Equal    int64         `json:"equal,omitempty"`
	Copied   int64         `json:"copied,omitempty"`
	Speed    int64         `json:"speed"` // bytes per second
	Elapsed  time.Duration `json:"elapsedNanoseconds"`
	Left     time.Duration `json:"leftNanoseconds"` // estimated; -1 while unknown
}

// SlowStatus is of a peer that left the in-sync set for being slow.
type SlowStatus struct {
	Since  time.Time     `json:"since"` // it left
	Budget time.Duration `json:"budgetNanoseconds"`
	Worst  time.Duration `json:"worstNanoseconds"` // the longest that it was waited for
	// MayReturn is when it may join again, at the earliest: while it does not keep up,
	// that moves on.
	MayReturn time.Time `json:"mayReturn"`
	Reason    string    `json:"reason"` // all of it, for people
}

// SplitBrainStatus says where two histories parted and what each side has since.
type SplitBrainStatus struct {
	Common LSN    `json:"common"`
	Ours   uint64 `json:"ours"`   // writes
	Theirs uint64 `json:"theirs"` // writes
	Reason string `json:"reason"`
}
