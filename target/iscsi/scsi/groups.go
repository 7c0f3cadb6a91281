package scsi

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
