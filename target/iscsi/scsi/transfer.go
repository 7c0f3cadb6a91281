package scsi

import "encoding/binary"

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

// maxParameters is the most parameter data that a command yields or takes,
// bytes.
const maxParameters = 64 << 10

// Describe says what a CDB asks to be transferred. It may be called at any time
// and allocates nothing.
func (u *Unit) Describe(cdb *[16]byte) Transfer {
	op, _ := lookup(cdb)
	if op == nil || op.transfer == nil {
		return Transfer{}
	}
	return op.transfer(u.geo.Load(), cdb)
}

func field(cdb *[16]byte, at, width int) uint32 {
	switch width {
	case 1:
		return uint32(cdb[at])
	case 2:
		return uint32(binary.BigEndian.Uint16(cdb[at:]))
	}
	return binary.BigEndian.Uint32(cdb[at:])
}

// allocation is the transfer of a command that yields parameter data, as much as
// an allocation length allows.
func allocation(at, width int) func(*geometry, *[16]byte) Transfer {
	return func(_ *geometry, cdb *[16]byte) Transfer {
		return Transfer{DataIn, int(min(field(cdb, at, width), maxParameters))}
	}
}

// parameterOut is the transfer of a command with a parameter list. One that is
// too long is not fetched; its command says so.
func parameterOut(at, width int) func(*geometry, *[16]byte) Transfer {
	return func(_ *geometry, cdb *[16]byte) Transfer {
		n := field(cdb, at, width)
		if n > maxParameters {
			n = 0
		}
		return Transfer{DataOut, int(n)}
	}
}

func fixedIn(n int) func(*geometry, *[16]byte) Transfer {
	return func(*geometry, *[16]byte) Transfer { return Transfer{DataIn, n} }
}

// bytesOf is the length of an extent, 0 if it is refused.
func (g *geometry) bytesOf(cdb *[16]byte) int {
	lba, blocks := extent(cdb)
	if !g.holds(lba, blocks) || blocks > g.maxBlocks {
		return 0
	}
	return int(int64(blocks) * g.blockSize)
}

func blocksIn(g *geometry, cdb *[16]byte) Transfer  { return Transfer{DataIn, g.bytesOf(cdb)} }
func blocksOut(g *geometry, cdb *[16]byte) Transfer { return Transfer{DataOut, g.bytesOf(cdb)} }

// compareOut: the blocks to compare with, then those to write.
func compareOut(g *geometry, cdb *[16]byte) Transfer {
	n := 2 * g.bytesOf(cdb)
	if n > int(g.maxCompare())*2*int(g.blockSize) {
		n = 0
	}
	return Transfer{DataOut, n}
}

func verifyOut(g *geometry, cdb *[16]byte) Transfer {
	n := g.bytesOf(cdb)
	switch byteCheck(cdb) {
	case compareAll:
		return Transfer{DataOut, n}
	case compareOne:
		return Transfer{DataOut, min(n, int(g.blockSize))}
	}
	return Transfer{}
}

func writeSameOut(g *geometry, cdb *[16]byte) Transfer {
	lba, blocks := extent(cdb)
	if hasNoData(cdb) {
		return Transfer{}
	}
	if !g.holds(lba, blocks) || blocks == 0 || blocks > g.maxSame() {
		return Transfer{Direction: DataOut}
	}
	return Transfer{DataOut, int(g.blockSize)}
}

// list is the parameter list that came with a command; ok is false, and the
// command ended, if it is shorter than the CDB says. A longer one was not
// fetched.
func (c *Command) list(at, width int) (b []byte, ok bool) {
	n := field(&c.CDB, at, width)
	if n > maxParameters {
		c.check(listLengthError)
		return nil, false
	}
	return c.data(int(n))
}

// data is the first n bytes of Data-Out, or the command is ended.
func (c *Command) data(n int) (b []byte, ok bool) {
	if c.Out != nil {
		b = c.Out.Bytes()
	}
	if len(b) < n {
		c.check(invalidUnitField)
		return nil, false
	}
	return b[:n], true
}
