package scsi

// A Direction is where a command's data goes.
type Direction uint8

const (
	NoData Direction = iota
	DataIn           // to the initiator
	DataOut
)

// A Transfer is what a CDB asks for.
type Transfer struct {
	Direction Direction
	// Length is the number of bytes: of Data-Out exactly what the command needs,
	// of Data-In the most that it yields. At most Limits.MaxTransfer. It is 0 for
	// a command that will be refused for its CDB alone: no data need be fetched,
	// Execute says what is wrong.
	Length int
}
