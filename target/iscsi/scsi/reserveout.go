package scsi

import (
	"encoding/binary"
	"slices"
)

const reserveListSize = 24

// judgeReserveOut checks the CDB; reserveOut decodes the list, for which it has
// to know who asks.
func judgeReserveOut(n *Nexus, c *Command) plan {
	scope, kind := c.CDB[2]>>4, c.CDB[2]&0x0f
	switch c.CDB[1] & 0x1f {
	case actionReserve, actionRelease, actionPreempt, actionPreemptAbort:
		if scope != 0 { // not the unit as a whole
			return c.badCDB(2, 7)
		}
		if !validKind(kind) {
			return c.badCDB(2, 3)
		}
	}
	if _, ok := c.list(5, 4); !ok {
		return planEnded
	}
	return planWork
}

// parseReserve decodes a parameter list; ok is false, and the command ended, if
// it makes no sense.
func (n *Nexus) parseReserve(c *Command) (q reserveRequest, ok bool) {
	b, _ := c.list(5, 4)
	q.action, q.kind = c.CDB[1]&0x1f, c.CDB[2]&0x0f
	if len(b) < reserveListSize {
		c.check(listLengthError)
		return q, false
	}
	q.key, q.newKey = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if q.action == actionRegisterMove {
		return n.parseMove(c, q, b)
	}
	registers := q.action == actionRegister || q.action == actionRegisterIgnore
	if !registers {
		if len(b) != reserveListSize {
			c.check(listLengthError)
			return q, false
		}
		return q, true
	}
	q.aptpl = b[20]&0x01 != 0
	switch {
	case q.aptpl && n.unit.cfg.Keeper == nil:
		c.badList(20, 0)
		return q, false
	case b[20]&0x04 != 0: // ALL_TG_PT
		c.badList(20, 2)
		return q, false
	case b[20]&0x08 == 0: // no SPEC_I_PT
		if len(b) != reserveListSize {
			c.check(listLengthError)
			return q, false
		}
		return q, true
	case q.action == actionRegisterIgnore:
		c.badList(20, 3)
		return q, false
	}
	return n.parsePorts(c, q, b[reserveListSize:])
}

// parsePorts decodes the initiator ports of SPEC_I_PT.
func (n *Nexus) parsePorts(c *Command, q reserveRequest, b []byte) (reserveRequest, bool) {
	if len(b) < 4 || int64(binary.BigEndian.Uint32(b)) != int64(len(b)-4) {
		c.check(listLengthError)
		return q, false
	}
	for b = b[4:]; len(b) > 0; {
		initiator, rest, ok := parseTransportID(b)
		if !ok {
			c.badList(reserveListSize, wholeByte)
			return q, false
		}
		if id := (nexusID{initiator, n.port.RelativeID}); id != n.id && !slices.Contains(q.others, id) {
			q.others = append(q.others, id)
		}
		b = rest
	}
	return q, true
}

// parseMove decodes the list of REGISTER AND MOVE.
func (n *Nexus) parseMove(c *Command, q reserveRequest, b []byte) (reserveRequest, bool) {
	q.unreg, q.aptpl = b[17]&0x02 != 0, b[17]&0x01 != 0
	if q.aptpl && n.unit.cfg.Keeper == nil {
		c.badList(17, 0)
		return q, false
	}
	if int64(binary.BigEndian.Uint32(b[20:])) != int64(len(b)-reserveListSize) {
		c.check(listLengthError)
		return q, false
	}
	initiator, rest, ok := parseTransportID(b[reserveListSize:])
	if !ok || len(rest) > 0 {
		c.badList(reserveListSize, wholeByte)
		return q, false
	}
	q.others = []nexusID{{initiator, binary.BigEndian.Uint16(b[18:])}}
	return q, true
}

// reserveOut carries one request out at a time: what it changes is kept, if it
// is to be, before anybody sees it.
func reserveOut(n *Nexus, c *Command) {
	q, ok := n.parseReserve(c)
	if !ok {
		return
	}
	u := n.unit
	u.persisting.Lock()
	defer u.persisting.Unlock()
	if c.task.aborted.Load() {
		return
	}
	u.mu.Lock()
	old, reserved := u.reservations.persistent, u.reservations.reserved != nil
	u.reservations.changing = !reserved
	u.mu.Unlock()
	if reserved {
		c.Status = ReservationConflict
		return
	}
	defer func() {
		u.mu.Lock()
		u.reservations.changing = false
		u.mu.Unlock()
	}()
	next, out := old.apply(n.id, q, u.cfg.Limits.Registrants)
	switch out.status {
	case ReservationConflict:
		c.Status = ReservationConflict
		return
	case CheckCondition:
		c.check(out.why)
		return
	}
	if u.cfg.Keeper != nil && (old.aptpl || next.aptpl) {
		b, err := next.encode()
		if err == nil {
			err = u.cfg.Keeper.Save(b)
		}
		if err != nil {
			c.check(internalFailure)
			return
		}
	}
	n.install(c, q, next, out)
}

// install makes new registrations valid. PREEMPT AND ABORT waits for the
// commands that it ends; not for another PERSISTENT RESERVE OUT, which waits for
// this one.
func (n *Nexus) install(c *Command, q reserveRequest, next registrations, out outcome) {
	u := n.unit
	ended := make(chan struct{})
	m := &management{done: func() { close(ended) }}
	m.left.Add(1)
	var cancelled []*task

	u.mu.Lock()
	u.reservations.persistent = next
	for o := range u.nexuses {
		if code, told := out.told[o.id]; told {
			o.attentions.add(code)
		}
	}
	if q.action == actionPreemptAbort {
		cancelled = u.abort(func(t *task) bool {
			return t != &c.task && t.op.code != c.CDB[0] && slices.Contains(out.ended, t.n.id)
		}, m)
	}
	u.mu.Unlock()
	finishAll(cancelled)
	m.ended()
	<-ended
}
