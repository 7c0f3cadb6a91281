package scsi

import (
	"bytes"
	"encoding/binary"
)

// mode is what MODE SELECT changes. It is not saved: a unit that starts, or is
// reset, has the defaults.
type mode struct {
	descriptorSense bool // D_SENSE
	writeProtect    bool // SWP
}

var defaultMode mode

func (u *Unit) setMode(m mode) {
	u.mode = m
	u.descriptorSense.Store(m.descriptorSense)
}

// Page control of MODE SENSE.
const (
	currentValues = iota
	changeableValues
	defaultValues
	savedValues
)

// A modePage is one mode page. values has its bytes behind code and length.
type modePage struct {
	code   byte
	values func(n *Nexus, m mode) []byte
	// changeable are the bits that MODE SELECT may change.
	changeable []byte
	// set takes over what was selected.
	set func(m *mode, values []byte)
}

var modePages = []modePage{
	{
		code: 0x08, // caching
		// WCE is the volume's, the same on every node: an initiator that had
		// switched the cache off would lose writes where another node goes on
		// with it.
		values: func(n *Nexus, _ mode) []byte {
			b := make([]byte, 18)
			if n.geo.info.WriteCache {
				b[0] = 0x04
			}
			return b
		},
		changeable: make([]byte, 18),
		set:        func(*mode, []byte) {},
	},
	{
		code: 0x0a, // control
		values: func(_ *Nexus, m mode) []byte {
			b := make([]byte, 10)
			b[1] = 0x10 // unrestricted reordering
			if m.descriptorSense {
				b[0] |= 0x04
			}
			if m.writeProtect {
				b[2] |= 0x08
			}
			b[6], b[7] = 0xff, 0xff // busy for as long as it takes
			return b
		},
		changeable: []byte{0x04, 0, 0x08, 0, 0, 0, 0, 0, 0, 0},
		set: func(m *mode, b []byte) {
			m.descriptorSense = b[0]&0x04 != 0
			m.writeProtect = b[2]&0x08 != 0
		},
	},
}

func (p *modePage) bytes(n *Nexus, control byte) []byte {
	b := []byte{p.code, byte(len(p.changeable))}
	switch control {
	case changeableValues:
		return append(b, p.changeable...)
	case defaultValues:
		return append(b, p.values(n, defaultMode)...)
	}
	return append(b, p.values(n, n.unit.mode)...)
}

const (
	allPages    = 0x3f
	allSubpages = 0xff
)

func modeSense(n *Nexus, c *Command) {
	long := c.CDB[0] == 0x5a
	control, page, subpage := c.CDB[2]>>6, c.CDB[2]&0x3f, c.CDB[3]
	if control == savedValues {
		c.check(savingNotSupported)
		return
	}
	if subpage != 0 && !(page == allPages && subpage == allSubpages) {
		c.badCDB(3, wholeByte)
		return
	}
	var pages []byte
	for i := range modePages {
		if p := &modePages[i]; page == p.code || page == allPages {
			pages = append(pages, p.bytes(n, control)...)
		}
	}
	if pages == nil {
		c.badCDB(2, 5)
		return
	}
	var descriptor []byte
	longBlocks := long && c.CDB[1]&0x10 != 0 // LLBAA
	if c.CDB[1]&0x08 == 0 {                  // DBD
		descriptor = n.blockDescriptor(longBlocks)
	}
	specific := byte(0x10) // DPOFUA
	if n.geo.info.ReadOnly || n.unit.mode.writeProtect {
		specific |= 0x80
	}
	var b []byte
	if long {
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b, uint16(6+len(descriptor)+len(pages)))
		b[3] = specific
		if longBlocks {
			b[4] = 0x01
		}
		b[7] = byte(len(descriptor))
	} else {
		b = []byte{byte(3 + len(descriptor) + len(pages)), 0, specific, byte(len(descriptor))}
	}
	b = append(append(b, descriptor...), pages...)
	if long {
		c.answer(b, field(&c.CDB, 7, 2))
	} else {
		c.answer(b, field(&c.CDB, 4, 1))
	}
}

func (n *Nexus) blockDescriptor(long bool) []byte {
	if long {
		b := binary.BigEndian.AppendUint64(nil, n.geo.blocks)
		return binary.BigEndian.AppendUint64(b, uint64(n.geo.blockSize))
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(min(n.geo.blocks, 0xffffffff)))
	return binary.BigEndian.AppendUint32(b, uint32(n.geo.blockSize))
}

func judgeModeSelect(n *Nexus, c *Command) plan {
	if c.CDB[1]&0x10 == 0 { // PF: pages of the vendor's own format
		return c.badCDB(1, 4)
	}
	if c.CDB[1]&0x01 != 0 { // SP
		return c.badCDB(1, 0)
	}
	at, width := 4, 1
	if c.CDB[0] == 0x55 {
		at, width = 7, 2
	}
	if b, ok := c.list(at, width); !ok || len(b) == 0 {
		return planEnded
	}
	return planNow
}

// modeSelect takes all of a parameter list over, or nothing.
func modeSelect(n *Nexus, c *Command) {
	u := n.unit
	b := c.Out.Bytes()
	head, size := 4, field(&c.CDB, 4, 1)
	if c.CDB[0] == 0x55 {
		head, size = 8, field(&c.CDB, 7, 2)
	}
	b = b[:size]
	if len(b) < head {
		c.check(listLengthError)
		return
	}
	at := head
	descriptor, long := int(b[head-1]), false
	if head == 8 {
		descriptor, long = int(binary.BigEndian.Uint16(b[6:])), b[4]&0x01 != 0
	}
	if at+descriptor > len(b) {
		c.check(listLengthError)
		return
	}
	if descriptor > 0 && !bytes.Equal(b[at:at+descriptor], n.blockDescriptor(long)) {
		// All blocks may also be asked for as 0.
		whole := n.blockDescriptor(long)
		clear(whole[:len(whole)/2])
		if !bytes.Equal(b[at:at+descriptor], whole) {
			c.badList(at, wholeByte)
			return
		}
	}
	at += descriptor

	m := u.mode
	for at < len(b) {
		if len(b)-at < 2 {
			c.check(listLengthError)
			return
		}
		p := findPage(b[at])
		if p == nil {
			c.badList(at, wholeByte)
			return
		}
		if int(b[at+1]) != len(p.changeable) {
			c.badList(at+1, wholeByte)
			return
		}
		values := b[at+2:]
		if len(values) < len(p.changeable) {
			c.check(listLengthError)
			return
		}
		for i, now := range p.values(n, u.mode) {
			if (values[i]^now)&^p.changeable[i] != 0 {
				c.badList(at+2+i, wholeByte)
				return
			}
		}
		p.set(&m, values)
		at += 2 + len(p.changeable)
	}
	if m == u.mode {
		return
	}
	u.setMode(m)
	for o := range u.nexuses {
		if o != n {
			o.attentions.add(modeChanged)
		}
	}
}

// findPage finds the page that a first byte announces; one in the format of
// subpages is none.
func findPage(first byte) *modePage {
	for i := range modePages {
		if modePages[i].code == first&0x7f {
			return &modePages[i]
		}
	}
	return nil
}
