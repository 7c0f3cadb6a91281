package scsi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unicode/utf8"

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
	// block.MaxBuffer, which is the default.
	MaxTransfer int
	// Workers is how many commands of one nexus wait for a disk at once, default
	// 8.
	Workers int
	// Registrants is how many I_T nexuses may be registered for persistent
	// reservations, 1 to 512, default 256.
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
type Unit struct {
	cfg Config
	geo atomic.Pointer[geometry] // of the last session; a nexus keeps its own
	// descriptorSense is D_SENSE of the control mode page.
	descriptorSense atomic.Bool

	// persisting is held by a PERSISTENT RESERVE OUT as a whole. It comes before
	// mu.
	persisting sync.Mutex

	// mu guards what follows. The device is never called with it held.
	mu           sync.Mutex
	tasks        taskSet
	nexuses      map[*Nexus]struct{}
	reservations reservations
	mode         mode
}

// geometry is what the device is, in blocks.
type geometry struct {
	info      block.Info
	blockSize int64  // bytes
	blocks    uint64 // whole ones
	// physical is the number of blocks in what is cheapest to access, a power of
	// two.
	physical uint32
	// maxBlocks is the most that one command transfers.
	maxBlocks uint32
	// maxAtomic is the most that WRITE ATOMIC writes; 0: it is not offered.
	maxAtomic uint32
}

const smallestBlock = 512

func geometryOf(info block.Info, limits Limits) *geometry {
	g := &geometry{info: info, blockSize: max(smallestBlock, info.SectorSize), physical: 1}
	g.blocks = uint64(info.Size / g.blockSize)
	g.maxBlocks = uint32(int64(limits.MaxTransfer) / g.blockSize)
	g.maxAtomic = uint32(min(info.AtomicWrite/g.blockSize, int64(g.maxBlocks)))
	if n := info.PreferredSize / g.blockSize; n > 1 && n <= 128 {
		g.physical = uint32(1) << (bits.Len64(uint64(n)) - 1)
	}
	return g
}

// NewUnit makes the logical unit of a device. It fails if cfg makes no sense or
// the Keeper cannot load.
func NewUnit(cfg Config) (*Unit, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	u := &Unit{cfg: cfg, nexuses: make(map[*Nexus]struct{}), mode: defaultMode}
	u.geo.Store(geometryOf(cfg.Device.Info(), cfg.Limits))
	if cfg.Keeper != nil {
		b, err := cfg.Keeper.Load()
		if err != nil {
			return nil, fmt.Errorf("scsi: load the persistent reservations: %w", err)
		}
		if u.reservations.persistent, err = decodeRegistrations(b, cfg.Limits.Registrants); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (cfg *Config) complete() error {
	if cfg.Device == nil {
		return errors.New("scsi: a logical unit needs a device")
	}
	if s := cfg.Device.Info().SectorSize; s > 1<<16 {
		return fmt.Errorf("scsi: sectors of %d bytes are larger than initiators know, at most 65536", s)
	}
	for _, f := range []struct {
		name string
		s    *string
		def  string
		max  int
	}{
		{"vendor", &cfg.Vendor, "LOCKSTEP", 8},
		{"product", &cfg.Product, "VOLUME", 16},
		{"revision", &cfg.Revision, "1", 4},
		{"serial number", &cfg.Serial, hex.EncodeToString(cfg.VolumeID[:]), 64},
	} {
		if *f.s == "" {
			*f.s = f.def
		}
		*f.s = (*f.s)[:min(len(*f.s), f.max)]
		for _, r := range []byte(*f.s) {
			if r < 0x20 || r > 0x7e {
				return fmt.Errorf("scsi: the %s of a logical unit, %q, has a character that is not printable ASCII", f.name, *f.s)
			}
		}
	}
	l := &cfg.Limits
	for _, f := range []struct {
		name          string
		v             *int
		def, min, max int
	}{
		{"MaxTransfer", &l.MaxTransfer, block.MaxBuffer, 64 << 10, block.MaxBuffer},
		{"Workers", &l.Workers, 8, 1, 1024},
		{"Registrants", &l.Registrants, 256, 1, 512},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < f.min || *f.v > f.max {
			return fmt.Errorf("scsi: %s is %d, it may be %d to %d", f.name, *f.v, f.min, f.max)
		}
	}
	return nil
}

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
// It fails as block.Device.Attach does. A second nexus of the same two ports may
// be open while the first is not yet closed: both are the same to reservations.
func (u *Unit) Attach(ctx context.Context, initiator string, port Port, events Events) (*Nexus, error) {
	initiator = portName(initiator)
	if initiator == "" || len(initiator) > maxPortName || !utf8.ValidString(initiator) {
		return nil, fmt.Errorf("scsi: %.300q is no initiator port's name: that is 1 to %d bytes of UTF-8", initiator, maxPortName)
	}
	revoked := events.Revoked
	if revoked == nil {
		revoked = func(error) {}
	}
	s, err := u.cfg.Device.Attach(ctx, revoked)
	if err != nil {
		return nil, fmt.Errorf("scsi: attach to the device: %w", err)
	}
	n := &Nexus{
		unit: u, session: s, id: nexusID{initiator, port.RelativeID}, port: port, events: events,
		geo: geometryOf(u.cfg.Device.Info(), u.cfg.Limits),
	}
	n.idle.L = &u.mu
	n.workers.init(n, u.cfg.Limits.Workers)
	n.attentions.add(powerOn)

	u.mu.Lock()
	defer u.mu.Unlock()
	if old := u.geo.Swap(n.geo); old.blocks != n.geo.blocks {
		for o := range u.nexuses {
			o.attentions.add(capacityChanged)
		}
	}
	u.nexuses[n] = struct{}{}
	return n, nil
}

// maxPortName is the longest name of an initiator port, bytes: an iSCSI name has
// 223, the ISID 17 more.
const maxPortName = 256

// GroupsChanged tells all initiators that the state of a target port group is
// another.
func (u *Unit) GroupsChanged() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n := range u.nexuses {
		n.attentions.add(accessStateChanged)
	}
}
