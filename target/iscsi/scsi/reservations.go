package scsi

// A nexusID names an I_T nexus: what reservations belong to, also while no
// session of it is open.
type nexusID struct {
	initiator string
	port      uint16 // relative target port identifier
}

// reservations are a unit's, of both kinds. Both are never in use at once.
type reservations struct {
	reserved   *nexusID // by RESERVE(6)
	persistent registrations
	// changing: a PERSISTENT RESERVE OUT has found no RESERVE(6), and is about to
	// make persistent another.
	changing bool
}

// conflict reports whether a command of a nexus meets a reservation that is
// another's.
func (r *reservations) conflict(id nexusID, op *opcode) bool {
	if r.reserved != nil && *r.reserved != id && !op.has(duringReserve) {
		return true
	}
	return r.persistent.conflict(id, op.has(reads), op.has(writes|alters))
}

func (r *reservations) nexusLost(id nexusID) {
	if r.reserved != nil && *r.reserved == id {
		r.reserved = nil
	}
}

// reserve6: who meets another's reservation does not come here.
func reserve6(n *Nexus, c *Command) {
	r := &n.unit.reservations
	if len(r.persistent.list) > 0 || r.changing {
		c.Status = ReservationConflict
		return
	}
	r.reserved = &n.id
}

// release6 of who holds nothing does nothing, well.
func release6(n *Nexus, c *Command) {
	r := &n.unit.reservations
	if len(r.persistent.list) > 0 {
		c.Status = ReservationConflict
		return
	}
	r.nexusLost(n.id)
}
