package scsi

import (
	"context"

	"github.com/lockstep-storage/lockstep/block"
)

// Config says what a logical unit is. Device and VolumeID are required.
type Config struct {
	Device block.Device
	// VolumeID names the volume: the same on every node that has a replica,
	// different for every other volume. The designators of VPD page 83h are made
	// of it.
	VolumeID [16]byte
	// Vendor (8 characters), Product (16) and Revision (4) are what INQUIRY
	// shows; longer ones are cut. Empty: "LOCKSTEP", "VOLUME", "1".
	Vendor, Product, Revision string
	// Serial is the unit serial number of VPD page 80h, ASCII. Empty: VolumeID in
	// hexadecimal.
	Serial string
	// Keeper keeps persistent reservations through a loss of power (APTPL); nil:
	// that is not offered.
	Keeper Keeper
	// Groups tells the state of the target port groups (ALUA); nil: there is one,
	// active and optimized.
	Groups Groups
	Limits Limits
}

// Limits bounds what a unit spends. Zero fields get their defaults.
type Limits struct {
	// MaxTransfer is the most that one command transfers, bytes: 64 KiB to
	// block.MaxBuffer, default 8 MiB.
	MaxTransfer int
	// Workers is how many commands of one nexus wait for a disk at once, default
	// 8.
	Workers int
	// Registrants is how many I_T nexuses may be registered for persistent
	// reservations, default 256.
	Registrants int
}

// A Keeper keeps a unit's persistent reservations through a loss of power. What
// is saved on one node must be what is loaded on the next that serves the
// volume. Its methods may block; they are called one at a time.
type Keeper interface {
	// Load returns what was saved last, nil if nothing was.
	Load() ([]byte, error)
	// Save replaces it, durably; at most 1 MiB.
	Save(state []byte) error
}

// A Unit is a logical unit. Its methods may be called concurrently.
type Unit struct{ cfg Config }

// NewUnit makes the logical unit of a device. It fails if cfg makes no sense or
// the Keeper cannot load.
func NewUnit(cfg Config) (*Unit, error) { return &Unit{cfg: cfg}, nil }

// Describe says what a CDB asks to be transferred. It may be called at any time
// and allocates nothing.
func (u *Unit) Describe(cdb *[16]byte) Transfer { return Transfer{} }

// A Port is the target port that a nexus goes through.
type Port struct {
	// Name is its SCSI name: for iSCSI, the target's name, ",t,0x" and the portal
	// group tag in hexadecimal.
	Name string
	// RelativeID is its relative target port identifier, from 1.
	RelativeID uint16
	// Group is the target port group that it belongs to.
	Group uint16
}

// Events are what a nexus tells its transport. Each is called from a goroutine
// of its own and must not block.
type Events struct {
	// Revoked: the device serves no longer; the transport closes the nexus. It is
	// called at most once.
	Revoked func(reason error)
	// Cleared: another nexus has cleared the task set or reset the unit. Commands
	// of this nexus that the transport has not yet handed to Execute, because
	// their data is incomplete, are to be dropped. nil: not told.
	Cleared func()
}

// Attach opens a nexus between an initiator port, whose name for iSCSI is the
// initiator's name, ",i,0x" and the ISID in 12 hexadecimal digits, and a port.
// It fails as block.Device.Attach does.
func (u *Unit) Attach(ctx context.Context, initiator string, port Port, events Events) (*Nexus, error) {
	s, err := u.cfg.Device.Attach(ctx, events.Revoked)
	if err != nil {
		return nil, err
	}
	return &Nexus{unit: u, session: s}, nil
}
