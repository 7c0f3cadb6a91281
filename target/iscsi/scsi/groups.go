package scsi

import (
	"encoding/binary"
	"slices"
)

// An AccessState is the asymmetric access state of a target port group (SPC-4,
// 5.15.2).
type AccessState uint8

const (
	ActiveOptimized    AccessState = 0x0
	ActiveNonOptimized AccessState = 0x1
	Standby            AccessState = 0x2
	Unavailable        AccessState = 0x3
	Offline            AccessState = 0xe
	Transitioning      AccessState = 0xf
)

// A PortGroup is a target port group: ports that have the same state at any time.
type PortGroup struct {
	ID        uint16
	State     AccessState
	Preferred bool
	Ports     []uint16 // relative target port identifiers
}

// Groups tells the states of all target port groups of a volume. Its methods may
// be called concurrently and must not block.
type Groups interface {
	// PortGroups lists the groups, at most 256 with 256 ports in all. The caller
	// does not change what it gets.
	PortGroups() []PortGroup
}

// A GroupSetter is what Groups may implement beside: initiators may ask for
// another state (SET TARGET PORT GROUPS).
type GroupSetter interface {
	// SetPortGroups asks for the states of groups by id. It may block.
	SetPortGroups(states map[uint16]AccessState) error
}

// accessible reports whether commands may be carried out that come through a
// group, or why not.
func (u *Unit) accessible(group uint16) (why cause, ok bool) {
	if u.cfg.Groups == nil {
		return cause{}, true
	}
	for _, g := range u.cfg.Groups.PortGroups() {
		if g.ID != group {
			continue
		}
		switch g.State {
		case ActiveOptimized, ActiveNonOptimized:
			return cause{}, true
		case Standby:
			return portStandby, false
		case Transitioning:
			return portTransitioning, false
		}
	}
	return portUnavailable, false
}

// groups are all target port groups; without a Groups the ports that have a
// nexus, in one.
func (n *Nexus) groups() []PortGroup {
	u := n.unit
	if u.cfg.Groups != nil {
		return u.cfg.Groups.PortGroups()
	}
	g := PortGroup{ID: n.port.Group}
	for o := range u.nexuses {
		if !slices.Contains(g.Ports, o.port.RelativeID) {
			g.Ports = append(g.Ports, o.port.RelativeID)
		}
	}
	slices.Sort(g.Ports)
	return []PortGroup{g}
}

func reportPortGroups(n *Nexus, c *Command) {
	b := make([]byte, 4)
	switch c.CDB[1] >> 5 {
	case 0:
	case 1: // with a header: format, and the seconds that a transition may take
		b = append(b, 0x10, 0, 0, 0)
	default:
		c.badCDB(1, 7)
		return
	}
	for _, g := range n.groups() {
		state := byte(g.State)
		if g.Preferred {
			state |= 0x80
		}
		// Every state but the dependent one may occur.
		b = append(b, state, 0xcf)
		b = binary.BigEndian.AppendUint16(b, g.ID)
		b = append(b, 0, 0, 0, byte(len(g.Ports)))
		for _, p := range g.Ports {
			b = binary.BigEndian.AppendUint32(b, uint32(p))
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	c.answer(b, field(&c.CDB, 6, 4))
}

func canSetPortGroups(u *Unit, _ *geometry) bool {
	_, ok := u.cfg.Groups.(GroupSetter)
	return ok
}

func judgeSetPortGroups(_ *Nexus, c *Command) plan {
	b, ok := c.list(6, 4)
	switch {
	case !ok || len(b) == 0:
		return planEnded
	case len(b)%4 != 0:
		return c.check(listLengthError)
	}
	for at := 4; at < len(b); at += 4 {
		switch AccessState(b[at] & 0x0f) {
		case ActiveOptimized, ActiveNonOptimized, Standby, Unavailable, Offline:
		default:
			return c.badList(at, 3)
		}
	}
	return planWork
}

func setPortGroups(n *Nexus, c *Command) {
	b, _ := c.list(6, 4)
	states := make(map[uint16]AccessState)
	for at := 4; at < len(b); at += 4 {
		states[binary.BigEndian.Uint16(b[at+2:])] = AccessState(b[at] & 0x0f)
	}
	if err := n.unit.cfg.Groups.(GroupSetter).SetPortGroups(states); err != nil {
		c.check(setPortGroupsFailed)
	}
}
