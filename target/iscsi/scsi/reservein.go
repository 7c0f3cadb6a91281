package scsi

import "encoding/binary"

func (c *Command) answerReserveIn(b []byte) { c.answer(b, field(&c.CDB, 7, 2)) }

// listed is parameter data of PERSISTENT RESERVE IN: the generation, and the
// length of what follows.
func (r *registrations) listed(b []byte) []byte {
	head := binary.BigEndian.AppendUint32(nil, r.generation)
	head = binary.BigEndian.AppendUint32(head, uint32(len(b)))
	return append(head, b...)
}

func readKeys(n *Nexus, c *Command) {
	r := &n.unit.reservations.persistent
	var b []byte
	for _, g := range r.list {
		b = binary.BigEndian.AppendUint64(b, g.key)
	}
	c.answerReserveIn(r.listed(b))
}

func readReservation(n *Nexus, c *Command) {
	r := &n.unit.reservations.persistent
	var b []byte
	if key, held := r.holderKey(); held {
		b = binary.BigEndian.AppendUint64(b, key)
		b = append(b, 0, 0, 0, 0, 0, r.kind, 0, 0)
	}
	c.answerReserveIn(r.listed(b))
}

func reportCapabilities(n *Nexus, c *Command) {
	b := []byte{0, 8, 0x08 /* SIP_C */, 0x80 /* TMV */, 0xea, 0x01, 0, 0}
	if n.unit.cfg.Keeper != nil {
		b[2] |= 0x01 // PTPL_C
	}
	if n.unit.reservations.persistent.aptpl {
		b[3] |= 0x01 // PTPL_A
	}
	c.answerReserveIn(b)
}

func readFullStatus(n *Nexus, c *Command) {
	r := &n.unit.reservations.persistent
	var b []byte
	for _, g := range r.list {
		d := make([]byte, 24)
		binary.BigEndian.PutUint64(d, g.key)
		if r.holds(g.nexusID) {
			d[12], d[13] = 0x01, r.kind
		}
		binary.BigEndian.PutUint16(d[18:], g.port)
		id := transportID(g.initiator)
		binary.BigEndian.PutUint32(d[20:], uint32(len(id)))
		b = append(append(b, d...), id...)
	}
	c.answerReserveIn(r.listed(b))
}
