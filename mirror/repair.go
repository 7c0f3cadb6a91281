package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/journal"
)

// ErrJournalLost: a replica cannot be opened because its journal is missing,
// damaged or unreadable. Errors that wrap it say how. Nothing was changed, and
// nothing is by itself: see Repair.
var ErrJournalLost = errors.New("the replica's journal is lost")

// journalLost makes an error of opening the journal one of losing it. A journal
// of an unknown version is no lost one, nor is one that a superblock does not fit
// that is not the newest.
func journalLost(err error) error {
	if errors.Is(err, journal.ErrVersion) || errors.Is(err, ErrSuperblock) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrJournalLost, err)
}

// RepairOptions say how far Repair may go.
type RepairOptions struct {
	// Force makes what the store holds the volume's data, although its newest
	// writes may be missing from it, and whether or not others have them.
	Force bool
	// JournalSize of the new journal, bytes; 0 is the old one's size if that can
	// be read, else 256 MiB.
	JournalSize int64
}

// A RepairPlan is what Repair finds, and would do.
type RepairPlan struct {
	Volume string    `json:"volume"`
	Node   string    `json:"node"`
	Size   int64     `json:"size"` // of the volume, bytes
	Disk   DiskState `json:"disk"` // as recorded
	Reason string    `json:"reason"`
	// InDoubt is how many bytes of the volume have to be resynced besides what
	// the peers know to be out of sync. With Force they may lack writes instead.
	InDoubt int64 `json:"inDoubt"`
	// Sources are the configured peers that hold everything that this replica
	// acknowledged, as far as it knows.
	Sources []string `json:"sources"`
	// Refused says why only Force would go on; "" if it is not needed.
	Refused string `json:"refused,omitempty"`
	// Loses says, with Force, what may be lost.
	Loses []string `json:"loses,omitempty"`
}

// A RepairRefusedError is why a replica is not repaired without force, or not at
// all.
type RepairRefusedError struct {
	Plan RepairPlan
	// Hopeless: force would not help either.
	Hopeless bool
}

func (e *RepairRefusedError) Error() string {
	return fmt.Sprintf("volume %q on node %q is not repaired: %s", e.Plan.Volume, e.Plan.Node, e.Plan.Refused)
}

// PlanRepair says what Repair would do to a closed replica, and does nothing of
// it. It takes over o.Store. Its error is a *RepairRefusedError if there is
// nothing to repair.
func PlanRepair(o Options, r RepairOptions) (RepairPlan, error) {
	p, err := newRepair(o, r)
	return p.plan, errors.Join(err, p.close())
}

// Repair gives up the journal of a closed replica, which cannot be opened or
// failed, and makes a new one (replication.md 14). It takes over o.Store.
//
// The replica is Inconsistent then, under a new incarnation, until a peer has
// resynced what is in doubt. With r.Force it becomes the volume's only copy as
// its store is, under a history of its own: the peers' replicas are refused, and
// have to be created anew. It returns a *RepairRefusedError, and has changed
// nothing, if nothing is to be repaired, or if only Force would go on.
//
// A crash leaves the replica as it was, or such that Repair goes on where it was.
func Repair(o Options, r RepairOptions) (RepairPlan, error) {
	p, err := newRepair(o, r)
	if err == nil {
		err = p.run()
	}
	return p.plan, errors.Join(err, p.close())
}

// A repair is a replica of which only the superblock is open.
type repair struct {
	v     *Volume
	opts  RepairOptions
	dir   disk.FS // the journal's; nil if there is none
	plan  RepairPlan
	found journal.Report
}

func newRepair(o Options, r RepairOptions) (*repair, error) {
	o.EnsureDefaults()
	p := &repair{v: newVolume(o), opts: r}
	fail := func(err error) (*repair, error) { return p, fmt.Errorf("repair volume %q: %w", o.Volume, err) }
	if err := o.Validate(); err != nil {
		return fail(err)
	}
	if err := p.v.openSuperblock(); err != nil {
		return fail(err)
	}
	if err := p.v.heedFailed(); err != nil {
		return fail(err)
	}
	lost, err := p.checkJournal()
	if err != nil {
		return fail(err)
	}
	inDoubt, err := p.inDoubt()
	if err != nil {
		return fail(err)
	}
	p.plan = planRepair(&p.v.super, o.Peers, lost)
	p.plan.InDoubt = inDoubt
	return p, p.plan.judge(r.Force)
}

// checkJournal says why the journal is lost, if it is; it changes nothing.
func (p *repair) checkJournal() (lost, err error) {
	o := &p.v.opts
	p.dir, p.v.journalLock, err = openJournalDir(o.FS, o.Journal)
	if errors.Is(err, ErrJournalLost) {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	p.found, lost = journal.Check(p.dir, journal.Options{Valid: p.v.super.History.Valid})
	if errors.Is(lost, journal.ErrVersion) {
		return nil, lost
	}
	if lost == nil {
		err = p.v.superFile.CheckNoted(p.found.Noted.SuperblockSeq)
	}
	return lost, err
}

// inDoubt is how much is marked. A bitmap that is lost marks all.
func (p *repair) inDoubt() (int64, error) {
	sb := &p.v.super
	if len(sb.History) == 0 {
		return 0, nil
	}
	in, err := bitmap.OpenIntent(p.v.opts.FS, intentName, sb.Size, 0)
	switch {
	case errors.Is(err, bitmap.ErrDamaged) || errors.Is(err, fs.ErrNotExist):
		return sb.Size, nil
	case err != nil:
		return 0, err
	}
	n := in.Count()
	if allInDoubt(sb) {
		n = sb.Size
	}
	return n, in.Close()
}

// allInDoubt reports whether every block may differ, whatever is marked. A
// replica that was a member since it was created had whatever its peers hold it
// to have had; of one that never was they may speak of another, before it. A
// replica in the middle of a resync has been judged already, or has a base.
func allInDoubt(sb *Superblock) bool {
	return len(sb.History) > 0 && sb.Resync == nil && !setHasNode(sb.Set, sb.Node)
}

// planRepair judges a replica by its superblock and by what is wrong with its
// journal, nil if nothing is.
func planRepair(sb *Superblock, peers []string, lost error) RepairPlan {
	p := RepairPlan{Volume: sb.Name, Node: sb.Node, Size: sb.Size, Disk: sb.Disk, Sources: []string{}}
	for _, node := range peers {
		if sb.Excluded || sb.Resync != nil || allInDoubt(sb) || setHasNode(sb.Set, node) {
			p.Sources = append(p.Sources, node)
		}
	}
	again := sb.Resync != nil && sb.Resync.JournalLost
	switch {
	case lost != nil:
		p.Reason = lost.Error()
	case sb.Disk == Failed:
		p.Reason = "the replica has failed: a write or a sync of its disk did"
	case again:
		p.Reason = "its journal was lost before, and no peer has resynced it"
		p.Refused = "its journal was given up already; it is resynced as soon as it meets a Primary that has the data"
	default:
		p.Refused = "there is nothing to repair: its journal is whole, and it has not failed"
		return p
	}
	if len(p.Sources) == 0 && len(sb.History) > 0 {
		p.Refused = "it is the only copy of what its clients wrote last: no peer was in the in-sync set"
	}
	if len(sb.History) > 0 {
		p.Loses = []string{"acknowledged and flushed writes that were in its journal and not yet in its store, in any order"}
		if len(p.Sources) > 0 {
			p.Loses = append(p.Loses, fmt.Sprintf("what %s has and this store has not", strings.Join(p.Sources, ", ")))
		}
		if sb.Disk == Inconsistent || sb.Resync != nil {
			p.Loses = append(p.Loses, "the order of writes: its store is half old, half new")
		}
	}
	return p
}

// judge returns a *RepairRefusedError, or nil.
func (p *RepairPlan) judge(force bool) error {
	if p.Refused == "" || force && p.Reason != "" {
		return nil
	}
	return &RepairRefusedError{Plan: *p, Hopeless: p.Reason == ""}
}

// PlanRepair says what Repair would do to this replica once it is closed. Its
// error is a *RepairRefusedError if there is nothing to repair.
func (v *Volume) PlanRepair(r RepairOptions) (RepairPlan, error) {
	v.mu.Lock()
	sb := v.super
	if v.failure != nil {
		sb.Disk = Failed
	}
	v.mu.Unlock()
	p := planRepair(&sb, v.opts.Peers, nil)
	if p.InDoubt = v.intent.Count(); allInDoubt(&sb) {
		p.InDoubt = sb.Size
	}
	return p, p.judge(r.Force)
}

// run does it, in this order: what is in doubt is durably marked; the old journal
// loses its name, so that the replica cannot be opened any more; the superblock
// says what it is from now on; and only then the new journal is made, which the
// superblock's history vouches for (invariant 10).
func (p *repair) run() error {
	v := p.v
	err := p.mark()
	if err == nil {
		err = p.setJournalAside()
	}
	first := LSN(0)
	if err == nil {
		first, err = p.commit()
	}
	if err == nil {
		err = p.createJournal(first)
	}
	if err != nil {
		return fmt.Errorf("repair volume %q: %w: repair it again once that is mended", v.opts.Volume, err)
	}
	v.log.Warn("the replica's journal was given up, and a new one made", "because", p.plan.Reason,
		"disk", v.super.Disk, "force", p.opts.Force, "inDoubtBytes", p.plan.InDoubt)
	return nil
}

// commit commits the superblock. It returns the first LSN of the new journal.
func (p *repair) commit() (first LSN, err error) {
	v := p.v
	incarnation, err := NewIncarnation(nil)
	if err != nil {
		return 0, err
	}
	boot := v.opts.BootID
	if boot == "" {
		if boot, err = bootID(); err != nil {
			return 0, err
		}
	}
	next := v.super
	next.Incarnation, next.BootID = incarnation, boot
	switch {
	case len(next.History) == 0: // it never had a record
		next.Disk, next.Resync = Consistent, nil
		first = 1
	case p.opts.Force:
		if err := p.setAllBits(); err != nil {
			return 0, err
		}
		if first, err = next.beginAnew(); err != nil {
			return 0, err
		}
	default:
		next.Disk = Inconsistent
		if next.Resync == nil {
			next.Resync = &ResyncMark{Base: leastBase(&next, v.opts.Peers), JournalLost: true}
		}
		first = next.Resync.Base.LSN + 1
	}
	return first, v.commitSuperBy(repairTransitions, func(sb *Superblock) { *sb = next })
}

// leastBase is a record that every source must have: the one that began the
// newest generation in which something may have been acknowledged without one of
// the peers. Whoever was a member in all generations since has what was
// acknowledged in them.
func leastBase(sb *Superblock, peers []string) Position {
	for i := len(sb.History) - 1; i > 0; i-- {
		g := &sb.History[i]
		if slices.ContainsFunc(peers, func(node string) bool { return !setHasNode(g.Set, node) }) {
			return Position{Generation: g.ID, LSN: g.First}
		}
	}
	return Position{Generation: sb.History[0].ID, LSN: sb.History[0].First}
}

// beginAnew gives the superblock a history of one generation, which has this
// replica for its only member and no record in the journal: no other replica
// shares it, so that none is taken for a copy of what the store holds, and none
// can be caught up from the journal.
func (s *Superblock) beginAnew() (first LSN, err error) {
	id, err := NewID(nil)
	if err != nil {
		return 0, err
	}
	last := s.History.Last()
	s.SetVersion++
	s.LossCounter++
	s.Set = []Member{{Node: s.Node, Incarnation: s.Incarnation}}
	s.Disk, s.Resync, s.Excluded = Consistent, nil, false
	s.History = History{{
		ID: id, Parent: last.ID, Epoch: s.Epoch, First: last.First + 1, SetVersion: s.SetVersion, Set: s.Set,
		RollingBack: last.RollingBack,
	}}
	return last.First + 2, nil
}

// setAllBits: in what the peers differ from the store is not known.
func (p *repair) setAllBits() error {
	v := p.v
	names, err := v.opts.FS.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, bitmapPrefix) || !strings.HasSuffix(name, bitmapSuffix) {
			continue
		}
		m, err := bitmap.Open(v.opts.FS, name, v.super.Size)
		if errors.Is(err, bitmap.ErrDamaged) {
			continue // it is made anew, with every bit set
		}
		if err != nil {
			return err
		}
		m.SetAll()
		if err := errors.Join(m.Flush(), m.Close()); err != nil {
			return err
		}
	}
	return nil
}

// mark makes what is in doubt durable in the write-intent bitmap.
func (p *repair) mark() error {
	v := p.v
	var err error
	if v.intent, err = v.openIntent(); err != nil {
		return fmt.Errorf("open the write-intent bitmap: %w", err)
	}
	if allInDoubt(&v.super) {
		v.intent.Mark(0, v.super.Size)
	}
	return v.intent.Flush()
}

// replaceIntent makes a write-intent bitmap with every region marked, in the
// place of one that is gone or unreadable, which is set aside.
func replaceIntent(dir disk.FS, size int64) (*bitmap.Intent, error) {
	err := dir.Rename(intentName, intentName+brokenSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("set the unreadable bitmap aside: %w", err)
	}
	return bitmap.CreateMarkedIntent(dir, intentName, size, 0)
}

func (p *repair) setJournalAside() error {
	v := p.v
	if p.dir == nil {
		var err error
		if p.dir, v.journalLock, err = claimJournalDir(v.opts.FS, v.opts.Journal); err != nil {
			return err
		}
	}
	kept, err := journal.SetAside(p.dir, fmt.Sprintf("%s.%d", brokenSuffix, v.super.Seq))
	if err == nil && kept > 0 {
		v.log.Warn("the old journal is set aside: delete its files when nobody needs them", "in", p.dir.String(), "segments", kept)
	}
	return err
}

// createJournal makes the new journal, and takes the note away that the replica
// failed.
func (p *repair) createJournal(first LSN) error {
	dir := p.v.opts.FS
	size := p.opts.JournalSize
	if size == 0 {
		size = p.found.Size
	}
	if err := journal.Create(p.dir, journal.Options{Size: size, First: first}); err != nil {
		return fmt.Errorf("create the journal: %w", err)
	}
	if err := dir.Remove(failedName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the note that the replica failed: %w", err)
	}
	return dir.SyncDir()
}

func (p *repair) close() error {
	p.v.stop()
	p.v.wg.Wait()
	return p.v.closeFiles()
}
