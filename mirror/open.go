package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/journal"
)

// Open recovers a replica and starts it as Secondary; a volume without peers
// becomes Primary by itself, for nobody else could. It takes over o.Store, also
// when it fails.
//
// A replica that failed (invariant 9) opens, for Status and Close only.
func Open(o Options) (_ *Volume, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	v := newVolume(o)
	defer func() {
		if err != nil {
			v.stop()
			v.wg.Wait()
			v.closeFiles()
		}
	}()
	if err := v.openFiles(); err != nil {
		return nil, fmt.Errorf("open volume %q: %w", o.Volume, err)
	}
	if err := v.recover(); err != nil {
		return nil, fmt.Errorf("recover volume %q: %w", o.Volume, err)
	}
	v.start()
	return v, nil
}

func newVolume(o Options) *Volume {
	v := &Volume{
		opts: o, log: o.Logger.With("volume", o.Volume), store: o.Store, pending: newPending(),
		syncKick: make(chan struct{}, 1), applyKick: make(chan struct{}, 1),
		checkpointKick: make(chan struct{}, 1), watchKick: make(chan struct{}, 1), events: make(chan Event, maxEvents),
	}
	v.ctx, v.stop = context.WithCancel(context.Background())
	v.queue = newQueue(1) // until recover knows better
	v.applier.work, v.applier.out.store = newExtents(), o.Store
	v.sessions = make(map[*session]struct{})
	v.peers = make(map[string]*peer)
	v.genNotes = make(map[ID]genNote)
	v.pace = newPacer(&o)
	v.core = newCore(rules{
		node: o.Node, volume: o.Volume, minInSync: o.MinInSync, onNoQuorum: o.OnNoQuorum, onIOError: o.OnIOError,
		peerTimeout: o.PeerTimeout, budget: o.PeerLatencyBudget, fences: o.Hooks.FencePeer != nil,
	}, o.Peers)
	for _, node := range o.Peers {
		v.peers[node] = newPeer(v, node)
	}
	return v
}

func (v *Volume) openFiles() error {
	if v.opts.BootID == "" {
		boot, err := bootID()
		if err != nil {
			return err
		}
		v.opts.BootID = boot
	}
	if err := v.openSuperblock(); err != nil {
		return err
	}
	var err error
	if v.intent, err = v.openIntent(); err != nil {
		return fmt.Errorf("open the write-intent bitmap: %w", err)
	}
	if err := v.openUndo(); err != nil {
		return err
	}
	if err := v.openSnapshots(); err != nil {
		return err
	}
	return v.openJournal()
}

// openSuperblock reads the superblock, which has to be that of this replica.
func (v *Volume) openSuperblock() (err error) {
	if v.superFile, v.super, err = OpenSuperblock(v.opts.FS); err != nil {
		return err
	}
	sb := &v.super
	switch {
	case sb.Name != v.opts.Volume:
		return fmt.Errorf("the directory %v holds volume %q", v.opts.FS, sb.Name)
	case sb.Node != v.opts.Node:
		return fmt.Errorf("the directory %v holds the replica of node %q, and this is node %q: a replica is not to be copied, create a new one", v.opts.FS, sb.Node, v.opts.Node)
	case sb.Size != v.store.Size():
		return fmt.Errorf("the backing store has %d bytes, the volume %d", v.store.Size(), sb.Size)
	}
	return nil
}

// openJournal opens the journal and sweeps it (replication.md 6): records
// outside the history are cut, only then are history entries past the journal's
// end dropped, and all that before the first handshake. In another order a dead
// suffix comes back to life.
func (v *Volume) openJournal() error {
	dir, lock, err := openJournalDir(v.opts.FS, v.opts.Journal)
	if err != nil {
		return err
	}
	v.journalLock = lock
	var st journal.State
	// Under a superblock that is not the newest, records of ours would be cut as
	// outside the history (14d).
	newest := func(st journal.State) error { return v.superFile.CheckNoted(st.Noted.SuperblockSeq) }
	o := journal.Options{Valid: v.super.History.Valid, Accept: newest, Found: v.found}
	if v.journal, st, err = journal.Open(dir, o); err != nil {
		return journalLost(fmt.Errorf("open the journal: %w", err))
	}
	v.limits = limitsOf(v.journal)
	if kept := v.super.History.CutTo(st.End); len(kept) < len(v.super.History) {
		if err := v.journal.Truncate(st.End); err != nil {
			return fmt.Errorf("cut the journal to its history at LSN %d: %w", st.End, err)
		}
		if err := v.commitSuper(func(sb *Superblock) { sb.History = kept }); err != nil {
			return err
		}
	}
	v.end, v.appended, v.chain = st.End, st.End, st.EndCRC
	// What was trimmed was checkpointed before, whether or not a batch came to
	// note it.
	v.stable = min(max(st.Noted.Stable, st.First-1), st.End)
	v.checkpoint = min(max(st.Noted.Checkpoint, st.First-1), v.stable)
	v.noted, v.applied = v.stable, v.checkpoint
	return v.takeFound()
}

// found puts a record that the journal's opening comes upon into the queue, its
// payload in the journal only, and lets go of what turns out to be in the store.
func (v *Volume) found(rec *journal.Record, noted journal.Notes) {
	if v.queue.n == 0 {
		v.queue.reset(rec.LSN)
	}
	v.queue.push(*rec, nil, rec.Kind == journal.KindWrite)
	v.queue.popTo(min(noted.Checkpoint, rec.LSN-1))
}

// takeFound makes what was found the queue: the records applied+1 … end.
func (v *Volume) takeFound() error {
	v.queue.popTo(v.applied)
	if v.queue.n == 0 {
		v.queue.reset(v.applied + 1)
	}
	if v.queue.first != v.applied+1 || v.queue.next() != v.end+1 {
		return fmt.Errorf("LSN %d to %d of the journal are to be applied, and LSN %d to %d were found: %w",
			v.applied+1, v.end, v.queue.first, v.queue.next()-1, journal.ErrDamaged)
	}
	for l := v.queue.first; l <= v.end; l++ {
		rec := &v.queue.at(l).rec
		v.intent.Mark(rec.Offset, rec.Length) // it may have reached the disk without
	}
	return nil
}

// recover makes the journal's end durable. What is noted as stable the applier
// replays to the store beside whatever comes next, as on any Secondary; the rest
// is pending: committed by a Primary or given up (replication.md 3).
func (v *Volume) recover() error {
	began := time.Now()
	lost, err := v.renewIncarnation()
	if err != nil {
		return err
	}
	if err := v.heedFailed(); err != nil {
		return err
	}
	if v.super.Disk == Failed {
		v.failure = fmt.Errorf("%w earlier: once its disk is sound again, repair this replica, and its peers resync it", ErrFailed)
	}
	if mark := v.super.Resync; mark != nil && mark.RollingBack && v.failure == nil {
		if err := v.finishRollback(); err != nil {
			return fmt.Errorf("finish rolling the replica back: %w", err)
		}
	}
	durable, err := v.journal.Sync()
	if err != nil {
		return fmt.Errorf("sync the journal: %w", err)
	}
	if err := v.intent.Flush(); err != nil {
		return err
	}
	v.durable, v.stableNote = durable, v.stable
	v.stable = v.queue.wholeTo(v.stable)
	v.stableNote = v.stable
	v.committed = v.applied
	if v.failure == nil {
		v.log.Info("replica recovered", "role", v.role, "disk", v.super.Disk, "end", v.end, "stable", v.stable,
			"toReplay", v.stable-v.applied, "took", time.Since(began).Round(time.Millisecond))
	}
	if err := v.openBitmaps(); err != nil {
		return err
	}
	if !lost || v.failure != nil || v.super.Resync != nil {
		return nil
	}
	// Its parts would count as writes that whoever drops them at a promotion lacks (10f).
	// One that kept its memory keeps them too: a Primary that lives may have its word for
	// them, and refuses it if it comes back with less.
	return v.dropCutWrite()
}

// heedFailed looks whether the replica failed without its superblock being able
// to say so (noteFailed).
func (v *Volume) heedFailed() error {
	f, err := v.opts.FS.Open(failedName)
	switch {
	case err == nil:
		v.super.Disk = Failed
		_ = f.Close() // nothing was written
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for a note that the replica failed: %w", err)
	}
	return nil
}

// renewIncarnation gives the replica a new incarnation if it may have lost what
// it acknowledged from memory (replication.md 2).
func (v *Volume) renewIncarnation() (lost bool, err error) {
	lost = v.super.BootID != v.opts.BootID || v.super.Protocol == ProtocolB
	cutOff := v.super.Disk == UpToDate // others may have gone on meanwhile
	if !lost && !cutOff {
		return false, nil
	}
	incarnation, err := NewIncarnation(nil)
	if err != nil {
		return false, err
	}
	return lost, v.commitSuper(func(sb *Superblock) {
		if lost {
			sb.Incarnation, sb.BootID = incarnation, v.opts.BootID
		}
		if cutOff {
			sb.Disk = Consistent
		}
	})
}

// pushEvictable puts a record into the queue and leaves its payload in the
// journal if memory holds enough already. v.mu is held, or nobody else is here.
func (v *Volume) pushEvictable(rec *journal.Record) {
	evict := rec.Kind == journal.KindWrite && (rec.Buf == nil || v.queue.held >= v.opts.PendingLimit/2)
	if evict && rec.Buf != nil {
		rec.Buf.Unref()
		rec.Buf, rec.Payload = nil, nil
	}
	v.queue.push(*rec, nil, evict)
}

// openBitmaps opens each peer's out-of-sync bitmap. One that is missing or
// unreadable is made anew, with every block set unless the journal reaches back
// to the volume's beginning: what is older is known to nobody.
func (v *Volume) openBitmaps() error {
	first := v.journal.First()
	for node, p := range v.peers {
		name := bitmapPrefix + node + bitmapSuffix
		base := v.position(first - 1)
		m, err := bitmap.Open(v.opts.FS, name, v.super.Size)
		if errors.Is(err, bitmap.ErrVersion) {
			return err // it is whole, and its writer will want it back
		}
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				v.log.Error("out-of-sync bitmap is unreadable; the next resync is full, should the journal not reach", "peer", node, "error", err)
				if err := v.opts.FS.Rename(name, name+brokenSuffix); err != nil {
					return fmt.Errorf("set the unreadable bitmap %s aside: %w", name, err)
				}
			}
			if m, err = bitmap.Create(v.opts.FS, name, v.super.Size, base); err != nil {
				return fmt.Errorf("create the out-of-sync bitmap of %q: %w", node, err)
			}
			if first > 1 {
				m.SetAll()
			}
			if err := m.Flush(); err != nil {
				return fmt.Errorf("write the out-of-sync bitmap of %q: %w", node, errors.Join(err, m.Close()))
			}
		}
		p.bits = m
		p.bitsThrough = max(first-1, LSN(m.Base().LSN))
		p.restoreSplit()
	}
	return nil
}

// position names the record at lsn, as a bitmap's base.
func (v *Volume) position(lsn LSN) bitmap.Base {
	p := v.super.History.Position(lsn)
	return bitmap.Base{Generation: p.Generation, LSN: uint64(p.LSN)}
}

// start sets the goroutines to work. doc.go lists them.
func (v *Volume) start() {
	if v.failure != nil {
		return
	}
	v.wg.Go(v.syncLoop)
	v.wg.Go(v.applyLoop)
	v.wg.Go(v.checkpointLoop)
	v.wg.Go(v.watchLoop)
	if v.opts.Hooks.Event != nil {
		v.wg.Go(v.eventLoop)
	}
	for _, p := range v.peers {
		v.wg.Go(p.dialLoop)
	}
	if len(v.peers) == 0 {
		v.wg.Go(func() {
			if err := v.Promote(v.ctx, PromoteOptions{}); err != nil {
				v.log.Error("a volume without peers could not become Primary by itself", "error", err)
			}
		})
	}
}

// Close ends the replica: a Primary is demoted first (its clients are dropped,
// everything is made durable and the peers are told), then the files are
// closed. When ctx ends it closes without waiting any longer; nothing
// acknowledged and flushed is lost by that. Close is for one caller.
func (v *Volume) Close(ctx context.Context) error {
	demoteErr := v.Demote(ctx)
	v.mu.Lock()
	v.closing = true
	for _, p := range v.peers {
		p.standAlone()
		p.closeLink(CodeShutdown, "the daemon is stopping")
	}
	v.broadcast()
	v.mu.Unlock()
	v.revokeSessions(errClosed)
	v.endImage(errClosed)
	v.endSnapshotImages(errClosed)
	if v.failure == nil {
		v.settle()
	}
	v.stop()
	v.wg.Wait()
	return errors.Join(demoteErr, v.closeFiles())
}

// settle brings everything that is stable into the store before the files are
// closed, so that the next start has nothing to replay.
func (v *Volume) settle() {
	v.note()
	if v.syncNow() != nil {
		return
	}
	for v.applyRound() {
	}
	if v.takeCheckpoint() != nil {
		return
	}
	v.seq.Lock()
	v.mu.Lock()
	notes := v.notes()
	v.mu.Unlock()
	v.appendNote(notes)
	v.seq.Unlock()
	_ = v.syncNow() // a failure is noted by fault, and closeFiles meets it again
}

func (v *Volume) closeFiles() error {
	var errs []error
	if v.journal != nil {
		errs = append(errs, v.journal.Close())
	}
	if v.journalLock != nil {
		errs = append(errs, v.journalLock.Close())
	}
	if v.intent != nil {
		errs = append(errs, v.intent.Close())
	}
	if k := v.keepers.Load(); k != nil {
		errs = append(errs, k.close())
	}
	for _, p := range v.peers {
		if p.bits != nil {
			errs = append(errs, p.bits.Close())
		}
	}
	if v.superFile != nil {
		errs = append(errs, v.superFile.Close())
	}
	return errors.Join(append(errs, v.store.Close())...)
}
