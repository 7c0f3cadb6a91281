package mirror

import (
	"context"
	"errors"
)

// An Agreement is what the replicas of a volume agree on: who leads, in which epoch,
// and who has every write that was acknowledged. Each replica has it in its
// superblock, as of when it last heard; a Coordinator has the one that is in force.
type Agreement struct {
	Epoch      uint64 // raised by every promotion
	SetVersion uint64 // raised by every change
	Primary    string // node; it leads, or led last
	Set        []Member
	// Attempt is drawn at random for every attempt to record it, so that whoever
	// made one and was not told of the outcome knows it again.
	Attempt ID
}

// A Revision is a version of the record that a Coordinator keeps of a volume: the
// store's own number, which every change of the record raises, and which has nothing
// to do with Agreement.SetVersion. 0: there is no record.
type Revision uint64

// A Coordinator keeps one record for each volume, its Agreement, for all the nodes
// that hold it, and changes it by compare-and-swap on its exact revision, so that of
// two nodes that would change it at once one does (replication.md 2). It is asked
// before the change counts anywhere:
//
//	shrink     the leaver's session is closed, the Primary's journal is synced
//	           → Swap → the Primary's superblock → a generation record, durable on
//	           every remaining member → writes are acknowledged without it
//	growth     a generation record that names the newcomer, durable on it and on
//	           every member, and waited for from then on → Swap → superblocks
//	promotion  Read → Swap → the superblock → a generation record, durable on every
//	           member → the volume serves
//
// While the outcome of a Swap is unknown the union of the old set and the new one is
// waited for. It is settled by reading a record that is newer than the base, or by
// another Swap on that base that succeeds. Reading the base again settles nothing: the
// first request may yet arrive. A set that stays as it is needs no Coordinator, which
// may be away for as long as nothing changes.
//
// Options.Coordinator nil is the one without a store (replication.md 10): the record
// is the superblock of whoever leads, and nobody compares it before it changes. Two
// nodes may be forced to lead then, which is found out when they meet.
//
// There are no leases yet: a Coordinator keeps two nodes from changing the set against
// each other, but a Primary that was replaced by force answers reads, and writes that
// its own set has, until it is fenced or wants to change that set.
//
// Its methods may be called concurrently, and return when ctx ends. volume is
// Options.Volume. What they are given and what they return is never changed in place.
type Coordinator interface {
	// Read returns the record, and its revision: one that was in force at some moment
	// since it was called. The zero Agreement and revision 0: there is none.
	Read(ctx context.Context, volume string) (Agreement, Revision, error)
	// Swap puts next in the place of the record if that is still of revision base (0: if
	// there is none), durably, and returns the new revision.
	//
	// With an error that wraps ErrSuperseded the record was of another revision, and
	// nothing was changed. With any other it is unknown whether it was, or will be: a
	// request that is under way may arrive later.
	Swap(ctx context.Context, volume string, base Revision, next Agreement) (Revision, error)
}

// ErrSuperseded: the record is of another revision than the one that a change of it
// was based on.
var ErrSuperseded = errors.New("the record of the in-sync set was changed meanwhile")

// superblocks is the Coordinator without a store. The change that is granted is
// recorded by what follows it anyway: the Primary's superblock, in the very commit in
// which its history names the generation, then the members'.
type superblocks struct{}

func (superblocks) Read(context.Context, string) (Agreement, Revision, error) {
	return Agreement{}, 0, nil
}

func (superblocks) Swap(_ context.Context, _ string, base Revision, _ Agreement) (Revision, error) {
	return base + 1, nil
}
