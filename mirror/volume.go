package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// A Volume is one node's replica of a replicated block device. Its methods may
// be called concurrently.
type Volume struct {
	opts    Options
	log     *slog.Logger
	store   Store
	journal *journal.Journal
	// journalLock is held while the journal has a directory of its own, else nil.
	journalLock io.Closer
	intent      *bitmap.Intent
	pending     *pending

	limits limits

	ctx  context.Context // ends with the volume
	stop context.CancelFunc
	wg   sync.WaitGroup

	// inbox is where sessions put requests; whoever finds nobody at work
	// becomes the sequencer until it is empty (sequencer.go).
	inbox inbox
	// crowd is above 0 if one of the last crowdTurns syncs that answered flushes
	// answered several. Written under mu.
	crowd atomic.Int32

	// change serialises changes of the role and the in-sync set: one in flight
	// per volume (replication.md 2). Taken before tail.
	change sync.Mutex
	// joining is the link whose peer is being made a member, and attempts are what the
	// Coordinator may have recorded of ours without our knowing. change guards them.
	joining  *link
	attempts []ID

	// tail is held while the store is synced and the journal trimmed, and while
	// the LSNs that these rest on go back. Taken before apply.
	tail sync.Mutex

	// apply is held while records go to the store. Taken before seq.
	apply   sync.Mutex
	applier applier

	// seq is the sequencer's lock: its holder alone gives LSNs and appends to
	// the journal. Taken before mu.
	seq       sync.Mutex
	lone      []*link // that the sequencer sends a round to by itself
	scratch   batch   // the sequencer's and the receiver's working memory
	intentEnd LSN     // the end when clearIntent last looked

	// imageEnd is held while an image is ended. Taken before apply.
	imageEnd sync.Mutex

	// super commits the superblock. Taken after seq, before mu.
	superMu   sync.Mutex
	superFile *SuperblockFile

	// readFrom says, to readers that hold no lock, where reads go (fault.go), and
	// refusal is their answer where they go nowhere.
	readFrom atomic.Uint32
	refusal  atomic.Pointer[error]

	// keepers keep what is overwritten in the store, nil if nothing does (keepers.go).
	// keepMu is held while they change. undoProblem is why a resync is paused: what it
	// overwrites cannot be kept. undoFile is held while the file of an undo is made or
	// removed, for all have one name. Taken before apply.
	undoFile    sync.Mutex
	keepers     atomic.Pointer[keepers]
	keepMu      sync.Mutex
	undoProblem atomic.Pointer[string]

	mu sync.Mutex
	state
	waiters chan struct{} // closed when something changed that somebody waits for

	syncKick       chan struct{}
	applyKick      chan struct{}
	checkpointKick chan struct{}
	watchKick      chan struct{}
	events         chan Event // for Hooks.Event
}

// state is what mu guards.
type state struct {
	core // what is decided, and by what
	// readFailed is when the last read failed that the log told of.
	readFailed time.Time
	noSpace    bool // the backing store refused a record for lack of space

	queue     *queue
	unsynced  int64 // bytes appended since the last sync began
	chain     uint32
	cuts      uint64 // truncations of the journal: what was learned before one says nothing after it
	commitCRC uint32 // of the record at crcAt, the newest that this Primary committed
	crcAt     LSN
	unheld    LSN // what a Primary that was promoted with too few members may commit (quorum.go)
	pace      pacer

	pausedByUser bool   // resyncs are held back, by PauseResync
	pausedAfter  string // by HoldResync, for that volume; "" they are not
	genNotes     map[ID]genNote

	noted      LSN // stable LSN that the last batch noted
	stableNote LSN // noted, durably: what may be applied
	applied    LSN
	applyCut   LSN // applied up to here although it is in the middle of a write
	// held: resync blocks wait to be written to the store, and nothing past heldAt is
	// applied before they are (resync_write.go).
	held       bool
	heldAt     LSN
	checkpoint LSN
	trimmed    LSN  // limit of the last trim
	starved    bool // somebody waits for room in the journal

	resting     bool   // the applier lets clients' flushes pass first
	restWatched bool   // and will look whether they are over
	applyWant   LSN    // up to here it has to be applied all the same
	rolling     bool   // a rollback to a snapshot writes (snapshot_rollback.go)
	image       *Image // nil unless this Secondary is read as it is (image.go)

	syncWant LSN // somebody waits for this to be durable
	flushes  []flushWait
	sessions map[*session]struct{}

	peers map[string]*peer
}

// errClosed is what a closed volume answers with.
var errClosed = errors.New("the volume is closed")

// Info implements block.Device.
func (v *Volume) Info() block.Info {
	v.mu.Lock()
	defer v.mu.Unlock()
	return block.Info{
		Size:          v.super.Size,
		SectorSize:    sectorSize,
		PreferredSize: bitmap.BlockSize,
		AtomicWrite:   v.limits.write,
		WriteCache:    v.super.WriteCache,
		FastZero:      true, // its records have no payload, here and on the way to the peers
		MultiConn:     true,
	}
}

// sectorSize: a record may begin and end at any byte, so a client may copy an
// image of any length.
const sectorSize = 1

// broadcast wakes whoever waits for a change. v.mu is held.
func (v *Volume) broadcast() {
	if v.waiters != nil {
		close(v.waiters)
		v.waiters = nil
	}
}

// changed is closed when something changes that somebody waits for. v.mu is held.
func (v *Volume) changed() <-chan struct{} {
	if v.waiters == nil {
		v.waiters = make(chan struct{})
	}
	return v.waiters
}

// await waits until cond is true or gives an error; cond runs with v.mu held,
// as the caller holds it before and after.
func (v *Volume) await(ctx context.Context, cond func() (bool, error)) error {
	for {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		ch := v.changed()
		v.mu.Unlock()
		var err error
		select {
		case <-ch:
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-v.ctx.Done():
			err = errClosed
		}
		v.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// commitSuper changes the superblock, durably (invariant 10). change runs on a
// copy.
func (v *Volume) commitSuper(change func(*Superblock)) error {
	return v.commitSuperBy(diskTransitions, change)
}

// commitSuperBy is commitSuper with the transitions that are legal.
func (v *Volume) commitSuperBy(legal transitions, change func(*Superblock)) error {
	v.superMu.Lock()
	defer v.superMu.Unlock()
	v.mu.Lock()
	sb, diskless := v.super, v.detached != nil
	v.mu.Unlock()
	old := sb
	change(&sb)
	if err := sb.mayFollow(&old, legal); err != nil {
		err = fmt.Errorf("commit the superblock: %w", err)
		v.fault(err)
		return err
	}
	if !diskless { // else the members' superblocks are what counts
		if err := v.superFile.Commit(&sb); err != nil {
			err = fmt.Errorf("commit the superblock: %w", err)
			v.fault(err)
			return err
		}
	}
	v.mu.Lock()
	v.super = sb
	v.broadcast()
	v.mu.Unlock()
	return nil
}

// notes is what the next batch header carries. v.mu is held.
func (v *Volume) notes() journal.Notes {
	return journal.Notes{
		Stable:        v.stable,
		Durable:       v.durable,
		Checkpoint:    v.checkpoint,
		SuperblockSeq: v.super.Seq,
	}
}

func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func isNoSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) }
