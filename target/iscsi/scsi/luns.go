package scsi

import "encoding/binary"

// ReportLUNs ends a REPORT LUNS command: luns are 8-byte logical unit numbers in
// SAM's format. It works for a target whether or not the unit that the command
// was sent to exists, and tells Done before it returns.
func ReportLUNs(c *Command, luns []uint64) {
	c.Status = Good
	c.reportLUNs(luns)
	c.end()
}

func (c *Command) reportLUNs(luns []uint64) {
	allocation := field(&c.CDB, 6, 4)
	switch c.CDB[2] {
	case 0, 2: // all that are not well known, and all
	case 1: // the well known ones
		luns = nil
	default:
		c.badCDB(2, wholeByte)
		return
	}
	if allocation < 16 {
		c.badCDB(6, wholeByte)
		return
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(8*len(luns)))
	b = append(b, 0, 0, 0, 0)
	for _, l := range luns {
		b = binary.BigEndian.AppendUint64(b, l)
	}
	c.answer(b, allocation)
}

// reportOwnLUN is for a transport that has one unit alone, LUN 0.
func reportOwnLUN(_ *Nexus, c *Command) { c.reportLUNs([]uint64{0}) }

// NoUnit ends a command that was sent to a logical unit number which does not
// exist: INQUIRY and REQUEST SENSE are answered as SPC-4 demands, everything else
// is refused with LOGICAL UNIT NOT SUPPORTED. Done is told before it returns.
func NoUnit(c *Command) {
	c.Status = Good
	switch c.CDB[0] {
	case 0x12:
		if c.CDB[1]&0x01 != 0 || c.CDB[2] != 0 {
			c.badCDB(2, wholeByte)
			break
		}
		b := make([]byte, 36)
		b[0], b[2], b[3], b[4] = 0x7f, 0x06, 0x02, byte(len(b)-5)
		c.answer(b, field(&c.CDB, 3, 2))
	case 0x03:
		s := sense{cause: noSuchUnit}
		s.encode(c.CDB[1]&0x01 != 0)
		c.answer(s.bytes(), field(&c.CDB, 4, 1))
	default:
		c.check(noSuchUnit)
	}
	c.end()
}

// DescribeNoUnit is Unit.Describe for NoUnit and ReportLUNs.
func DescribeNoUnit(cdb *[16]byte) Transfer {
	switch cdb[0] {
	case 0x03, 0x12, 0xa0:
		op, _ := lookup(cdb)
		return op.transfer(nil, cdb)
	}
	return Transfer{}
}
