package scsi

// A Function is a task management function (SAM-5).
type Function uint8

const (
	// AbortTask ends the nexus's command with a tag.
	AbortTask Function = iota
	// AbortTaskSet ends all commands of the nexus.
	AbortTaskSet
	// ClearTaskSet ends all commands of the unit.
	ClearTaskSet
	// ResetUnit ends all commands of the unit (LOGICAL UNIT RESET), and its
	// RESERVE(6), and puts its mode pages back to their defaults. A target reset
	// is one for each unit.
	ResetUnit
)
