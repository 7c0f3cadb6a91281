package mirror

import (
	"fmt"
	"slices"
)

// What a replica's state may become is this table, in one place, and not spread over
// whoever changes it. A commit of the superblock that the table does not have is a
// defect of this package: it is refused, and the replica fails before it records
// what is not true.

// transitions are the disk states that one recorded in the superblock may be
// followed by. Diskless and Attaching are never recorded.
type transitions map[DiskState][]DiskState

// diskTransitions are those of a replica that runs.
var diskTransitions = transitions{
	UpToDate: {
		Consistent,   // the last connection is lost, or the node starts again (10a)
		Outdated,     // others went on: a newer in-sync set without it (10c)
		Inconsistent, // the target of a resync, or its journal was lost
		Failed,
	},
	Consistent: {
		UpToDate, // promoted, or a member of the Primary's set
		Outdated, Inconsistent, Failed,
	},
	Outdated: {
		UpToDate, // caught up and a member again, or promoted by force
		Inconsistent, Failed,
	},
	Inconsistent: {
		UpToDate, // the resync is through, and the Primary recorded it as a member
		Outdated, // rolled back to what it was before the resync
		Failed,
	},
	Failed: {}, // for good: what its disk holds may not be believed
}

// repairTransitions are those of Repair: an operator gave the journal up, and, to
// come to Consistent, whatever the peers may have beyond this store, or there is
// nothing that could be lost.
var repairTransitions = transitions{
	UpToDate:     {Consistent, Inconsistent, Failed},
	Consistent:   {Inconsistent, Failed},
	Outdated:     {Consistent, Inconsistent, Failed},
	Inconsistent: {Consistent, Failed},
	Failed:       {Consistent, Inconsistent},
}

// mayFollow reports, with an error that says what is wrong, whether a replica whose
// superblock is old may record s.
func (s *Superblock) mayFollow(old *Superblock, legal transitions) error {
	switch {
	case s.Disk != old.Disk && !slices.Contains(legal[old.Disk], s.Disk):
		return fmt.Errorf("a replica that is %v does not become %v", old.Disk, s.Disk)
	case s.Resync != nil && s.Disk != Inconsistent && s.Disk != Failed:
		return fmt.Errorf("a replica is %v %v", s.Disk, s.Resync)
	case s.Epoch < old.Epoch:
		return fmt.Errorf("the epoch goes back from %d to %d", old.Epoch, s.Epoch)
	case s.SetVersion < old.SetVersion:
		return fmt.Errorf("the in-sync set's version goes back from %d to %d", old.SetVersion, s.SetVersion)
	case s.LossCounter < old.LossCounter:
		return fmt.Errorf("the loss counter goes back from %d to %d", old.LossCounter, s.LossCounter)
	case !old.Volume.IsZero() && s.Volume != old.Volume:
		return fmt.Errorf("volume %v becomes volume %v", old.Volume, s.Volume)
	case s.Node != old.Node || s.Name != old.Name:
		return fmt.Errorf("the replica of %q on node %q becomes that of %q on %q", old.Name, old.Node, s.Name, s.Node)
	}
	return nil
}
