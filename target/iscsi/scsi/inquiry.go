package scsi

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/lockstep-storage/lockstep/block"
)

// answer gives parameter data to the initiator, as much as the allocation length
// allows.
func (c *Command) answer(b []byte, allocation uint32) {
	n := min(len(b), int(min(allocation, maxParameters)))
	if n == 0 {
		return
	}
	c.In = copyOf(b[:n])
}

// padded is s, left-aligned in n bytes of spaces.
func padded(b []byte, s string, n int) []byte {
	for i := range n {
		if i < len(s) {
			b = append(b, s[i])
		} else {
			b = append(b, ' ')
		}
	}
	return b
}

// Version descriptors: SAM-5, iSCSI, SPC-4 and SBC-3, without a revision.
var versions = []uint16{0x00a0, 0x0960, 0x0460, 0x04c0}

func inquiry(n *Nexus, c *Command) {
	page, length := c.CDB[2], uint32(binary.BigEndian.Uint16(c.CDB[3:]))
	if c.CDB[1]&0x01 == 0 { // EVPD
		if page != 0 {
			c.badCDB(2, wholeByte)
			return
		}
		c.answer(n.standardInquiry(), length)
		return
	}
	for _, p := range vitalPages {
		if p.code == page {
			b := p.build(n, []byte{0, page, 0, 0})
			binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
			c.answer(b, length)
			return
		}
	}
	c.badCDB(2, wholeByte)
}

func (n *Nexus) standardInquiry() []byte {
	u := n.unit
	tpgs := byte(0x10) // states change by themselves
	if canSetPortGroups(u, n.geo) {
		tpgs = 0x30
	}
	b := []byte{
		0x00,                                  // connected, direct access
		0x00,                                  // not removable
		0x06,                                  // SPC-4
		0x10 | 0x2,                            // HiSup, format of the data
		96 - 5, tpgs, 0x10 /* MultiP */, 0x02, /* CmdQue */
	}
	b = padded(b, u.cfg.Vendor, 8)
	b = padded(b, u.cfg.Product, 16)
	b = padded(b, u.cfg.Revision, 4)
	b = append(b, make([]byte, 96-len(b))...)
	for i, v := range versions {
		binary.BigEndian.PutUint16(b[58+2*i:], v)
	}
	return b
}

// vitalPages are the vital product data pages, in order of their codes. The
// header is there when build is called, its length is put in afterwards. They are
// set by init because the first of them lists all.
var vitalPages []vitalPage

type vitalPage struct {
	code  byte
	build func(n *Nexus, b []byte) []byte
}

func init() {
	vitalPages = []vitalPage{
		{0x00, supportedPages},
		{0x80, serialNumber},
		{0x83, identification},
		{0x86, extendedInquiry},
		{0xb0, blockLimits},
		{0xb1, characteristics},
		{0xb2, provisioning},
	}
}

func supportedPages(_ *Nexus, b []byte) []byte {
	for _, p := range vitalPages {
		b = append(b, p.code)
	}
	return b
}

func serialNumber(n *Nexus, b []byte) []byte { return append(b, n.unit.cfg.Serial...) }

// Code sets and designator types of VPD page 83h.
const (
	binaryCode = 1
	asciiCode  = 2
	utf8Code   = 3

	vendorDesignator = 1
	naaDesignator    = 3
	relativePort     = 4
	portGroup        = 5
	scsiName         = 8

	ofPort  = 0x10 // association
	iscsiID = 0x80 // PIV, with the protocol identifier of iSCSI in the first byte
)

func designator(b []byte, codeSet, kind byte, d []byte) []byte {
	if kind&ofPort != 0 {
		codeSet |= 0x50
		kind |= iscsiID
	}
	return append(append(b, codeSet, kind, 0, byte(len(d))), d...)
}

// naa is a locally assigned NAA identifier: 60 bits of a digest of the volume's
// id.
func naa(id [16]byte) []byte {
	sum := sha256.Sum256(id[:])
	d := sum[:8]
	d[0] = 0x30 | d[0]&0x0f
	return d
}

func identification(n *Nexus, b []byte) []byte {
	u := n.unit
	b = designator(b, binaryCode, naaDesignator, naa(u.cfg.VolumeID))
	b = designator(b, asciiCode, vendorDesignator, append(padded(nil, u.cfg.Vendor, 8), u.cfg.Serial...))
	b = designator(b, binaryCode, relativePort|ofPort, binary.BigEndian.AppendUint32(nil, uint32(n.port.RelativeID)))
	b = designator(b, binaryCode, portGroup|ofPort, binary.BigEndian.AppendUint32(nil, uint32(n.port.Group)))
	if name := n.port.Name; name != "" {
		// Ended by a zero, and by as many as make it a multiple of 4.
		name = name[:min(len(name), 251)]
		d := append([]byte(name), make([]byte, 4-len(name)%4)...)
		b = designator(b, utf8Code, scsiName|ofPort, d)
	}
	return b
}

func extendedInquiry(n *Nexus, b []byte) []byte {
	b = append(b, make([]byte, 60)...)
	b[5] = 0x03 // ORDSUP, SIMPSUP
	if n.geo.info.WriteCache {
		b[6] = 0x01 // V_SUP
	}
	return b
}

func blockLimits(n *Nexus, b []byte) []byte {
	g := n.geo
	b = append(b, make([]byte, 60)...)
	put := binary.BigEndian.PutUint32
	b[4] = 0x01 // WSNZ
	b[5] = byte(g.maxCompare())
	binary.BigEndian.PutUint16(b[6:], uint16(g.physical))
	put(b[8:], g.maxBlocks)
	put(b[12:], min(g.maxBlocks, uint32((1<<20)/g.blockSize))) // optimal
	put(b[16:], g.maxBlocks)                                   // of a PRE-FETCH
	put(b[20:], maxUnmapBlocks)
	put(b[24:], maxUnmapDescriptors)
	put(b[28:], g.physical)
	put(b[32:], 1<<31) // UGAVALID, alignment 0
	binary.BigEndian.PutUint64(b[36:], uint64(g.maxSame()))
	put(b[44:], g.maxAtomic)
	return b
}

func characteristics(n *Nexus, b []byte) []byte {
	b = append(b, make([]byte, 60)...)
	if !n.geo.info.Rotational {
		binary.BigEndian.PutUint16(b[4:], 1)
	}
	return b
}

func provisioning(n *Nexus, b []byte) []byte {
	kind := byte(1) // resource provisioned
	if _, ok := n.session.(block.Sparse); ok {
		kind = 2 // thin
	}
	// LBPU, LBPWS, LBPWS10, LBPRZ, ANC_SUP
	return append(b, 0, 0x80|0x40|0x20|0x04|0x02, kind, 0)
}

func readCapacity10(n *Nexus, c *Command) {
	last := min(n.lastBlock(), 0xffffffff)
	b := binary.BigEndian.AppendUint32(nil, uint32(last))
	b = binary.BigEndian.AppendUint32(b, uint32(n.geo.blockSize))
	c.answer(b, uint32(len(b)))
}

func readCapacity16(n *Nexus, c *Command) {
	b := binary.BigEndian.AppendUint64(nil, n.lastBlock())
	b = binary.BigEndian.AppendUint32(b, uint32(n.geo.blockSize))
	b = append(b, make([]byte, 20)...)
	for p := n.geo.physical; p > 1; p /= 2 {
		b[13]++
	}
	b[14] = 0xc0 // LBPME, LBPRZ
	c.answer(b, field(&c.CDB, 10, 4))
}

// lastBlock is the address of the last block; an empty device has none, and says
// 0.
func (n *Nexus) lastBlock() uint64 { return max(n.geo.blocks, 1) - 1 }

func requestSense(n *Nexus, c *Command) {
	s := sense{cause: noSense}
	if code, ok := n.attentions.take(); ok {
		s.cause = cause{keyUnitAttention, code}
	}
	s.encode(c.CDB[1]&0x01 != 0)
	c.answer(s.bytes(), field(&c.CDB, 4, 1))
}
