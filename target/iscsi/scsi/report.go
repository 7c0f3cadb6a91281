package scsi

import (
	"encoding/binary"
	"encoding/hex"
)

// Reporting options of REPORT SUPPORTED OPERATION CODES.
const (
	reportAll = iota
	reportCode
	reportAction
	reportEither
)

// timeouts is a command timeouts descriptor that says nothing.
var timeouts = []byte{0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func reportOpcodes(n *Nexus, c *Command) {
	withTimeouts, option := c.CDB[2]&0x80 != 0, c.CDB[2]&0x07
	var b []byte
	switch option {
	case reportAll:
		b = n.allOpcodes(withTimeouts)
	case reportCode, reportAction, reportEither:
		var ok bool
		if b, ok = n.oneOpcode(c, option, withTimeouts); !ok {
			return
		}
	default:
		c.badCDB(2, 2)
		return
	}
	c.answer(b, field(&c.CDB, 6, 4))
}

func (n *Nexus) offers(o *opcode) bool { return o.offered == nil || o.offered(n.unit, n.geo) }

func (n *Nexus) allOpcodes(withTimeouts bool) []byte {
	b := make([]byte, 4)
	for i := range table {
		o := &table[i]
		if !n.offers(o) {
			continue
		}
		d := []byte{o.code, 0, 0, 0, 0, 0, 0, o.length}
		if o.action != noAction {
			binary.BigEndian.PutUint16(d[2:], uint16(o.action))
			d[5] |= 0x01 // SERVACTV
		}
		if withTimeouts {
			d[5] |= 0x02 // CTDP
			d = append(d, timeouts...)
		}
		b = append(b, d...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func (n *Nexus) oneOpcode(c *Command, option byte, withTimeouts bool) (b []byte, ok bool) {
	code, action := c.CDB[3], int(binary.BigEndian.Uint16(c.CDB[4:]))
	var found *opcode
	for _, o := range byCode[code] {
		if n.offers(o) && (o.action == noAction || o.action == action) {
			found = o
		}
	}
	if list := byCode[code]; len(list) > 0 {
		hasActions := list[0].action != noAction
		if option == reportCode && hasActions || option == reportAction && !hasActions {
			c.badCDB(2, 2)
			return nil, false
		}
		if !hasActions && option == reportEither && action != 0 {
			found = nil
		}
	}
	if found == nil {
		return []byte{0, 0x01, 0, 0}, true // not supported
	}
	b = []byte{0, 0x03, 0, found.length}
	b = append(b, found.usageData()...)
	if withTimeouts {
		b[1] |= 0x80
		b = append(b, timeouts...)
	}
	return b, true
}

// usageData is a CDB with a bit set for each that the unit looks at.
func (o *opcode) usageData() []byte {
	b := []byte{o.code}
	middle, err := hex.DecodeString(o.usage)
	if err != nil || len(middle) != int(o.length)-2 {
		panic("scsi: the usage data of " + o.name + " is wrong")
	}
	b = append(b, middle...)
	if o.action != noAction {
		b[1] |= byte(o.action)
	}
	return append(b, 0x04) // NACA
}

func reportFunctions(_ *Nexus, c *Command) {
	// ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET.
	b := []byte{0x80 | 0x40 | 0x10 | 0x08, 0, 0, 0}
	if c.CDB[2]&0x80 != 0 { // REPD
		b[3] = 12
		b = append(b, make([]byte, 12)...)
	}
	c.answer(b, field(&c.CDB, 6, 4))
}
