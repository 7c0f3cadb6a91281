package scsi

import "github.com/lockstep-storage/lockstep/block"

// A Status is how a command ended (SAM-5, status codes).
type Status uint8

const (
	Good                Status = 0x00
	CheckCondition      Status = 0x02
	ConditionMet        Status = 0x04
	Busy                Status = 0x08
	ReservationConflict Status = 0x18
	TaskSetFull         Status = 0x28
	// TaskAborted: a task management function, or the end of the nexus, took the
	// command out of the task set. Nothing is sent to the initiator.
	TaskAborted Status = 0x40
)

// An Attribute is how a command is ordered among others (SAM-5, task
// attributes). HeadOfQueue and ACA are taken as Simple.
type Attribute uint8

const (
	Simple Attribute = iota
	// Ordered: it begins after every earlier command of the unit has ended, and
	// every later one begins after it has.
	Ordered
	HeadOfQueue
	ACA
)

// A Completer is told that a command has ended, exactly once for each. It must
// neither block nor call into this package; the command is its own again.
type Completer interface {
	CommandDone(c *Command)
}

// A Command is one command of a nexus. The transport fills the first part and
// does not touch it from Execute until Done is told. It may be used again then,
// after [Command.Reset].
type Command struct {
	// CDB is the command descriptor block; bytes beyond its length are zero.
	CDB [16]byte
	// Tag is the transport's name for the command, for AbortTask.
	Tag       uint64
	Attribute Attribute
	// Expected is the number of bytes that the initiator said it would transfer,
	// in either direction.
	Expected int64
	// Out is the data that came with the command: at most Transfer.Length bytes,
	// fewer only if Expected is less. nil if there is none. The unit drops the
	// reference.
	Out  *block.Buffer
	Done Completer

	// The result.

	Status Status
	// In is the data for the initiator, nil if there is none; its length is what
	// the command yields, whatever was expected. Done's receiver drops the
	// reference.
	In    *block.Buffer
	sense sense

	task task
}

// Sense is the sense data of a command that ended with CheckCondition, else
// empty. It is valid until the command is used again.
func (c *Command) Sense() []byte { return c.sense.bytes() }

// Reset empties a command that is done, for its next use; In must have been
// given back.
func (c *Command) Reset() { *c = Command{} }
