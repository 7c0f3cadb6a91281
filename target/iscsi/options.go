package iscsi

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lockstep-storage/lockstep/block"
)

// Defaults of Options.
const (
	DefaultMaxConnections = 128
	// DefaultMaxCommands covers the queue depth of 32 that initiators use unless
	// told otherwise.
	DefaultMaxCommands = 64
	// DefaultMaxBytes lets two commands of the largest size be in flight.
	DefaultMaxBytes = 64 << 20
	// DefaultMaxMemory is what DefaultMaxConnections sessions reserve, if none has
	// a large command in flight.
	DefaultMaxMemory       = 2 << 30
	DefaultLoginTimeout    = 10 * time.Second
	DefaultProgressTimeout = 30 * time.Second
	DefaultLogoutTimeout   = 3 * time.Second
)

const (
	// slotBytes is the memory that every command may take without asking: its
	// unsolicited data, or a small read.
	slotBytes = 64 << 10
	// maxImmediate is how many immediate commands may be in flight beside those
	// of the command window.
	maxImmediate = 8
	// recvSegment is the longest data segment that is taken, bytes
	// (MaxRecvDataSegmentLength).
	recvSegment = 256 << 10
	// sendSegment is the longest that is sent, whatever the initiator would take.
	sendSegment    = 256 << 10
	maxBurst       = 1 << 20
	maxFirstBurst  = slotBytes
	maxOutstanding = 8
)

// Options of a server. The zero value means the defaults.
type Options struct {
	// Log is told about connections and protocol errors. nil discards.
	Log *slog.Logger

	// MaxConnections is how many initiators may be connected at once, discovery
	// included; more are hung up on. Each costs 256 KiB of read buffer.
	MaxConnections int
	// MaxCommands is the command window of a session: 2 to 1024. Each costs
	// 128 KiB of MaxMemory, reserved at login.
	MaxCommands int
	// MaxBytes is how many bytes the large commands (over 64 KiB) of one session
	// may have in memory, at least 32 MiB. Others wait; nothing is refused.
	MaxBytes int64
	// MaxMemory is how many bytes all sessions together may have in memory, what
	// is reserved included: at least one session's. A login that cannot reserve
	// its share is refused.
	MaxMemory int64

	// LoginTimeout is how long a login may take.
	LoginTimeout time.Duration
	// ProgressTimeout is how long an initiator may take for the next bytes that it
	// owes (a PDU that began, an R2T), or to take the next megabyte of replies. An
	// initiator that is silent for as long is sent a NOP-In, and owes its answer.
	ProgressTimeout time.Duration
	// LogoutTimeout is how long an initiator may take to log out when its volume
	// is no longer served here.
	LogoutTimeout time.Duration
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	def(&o.MaxConnections, DefaultMaxConnections)
	def(&o.MaxCommands, DefaultMaxCommands)
	def(&o.MaxBytes, DefaultMaxBytes)
	def(&o.MaxMemory, max(DefaultMaxMemory, o.MaxBytes+o.reserved()))
	def(&o.LoginTimeout, DefaultLoginTimeout)
	def(&o.ProgressTimeout, DefaultProgressTimeout)
	def(&o.LogoutTimeout, DefaultLogoutTimeout)
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// reserved is what a session takes at login: a slot for each command of the
// window, and one for each whose reply is on its way while the window has gone
// on.
func (o *Options) reserved() int64 { return 2 * int64(o.MaxCommands+maxImmediate) * slotBytes }

// Validate lists everything that is wrong with the options.
func (o *Options) Validate() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("iscsi: "+format, args...))
		}
	}
	wrong(o.MaxConnections < 1, "MaxConnections is %d, at least 1 is needed", o.MaxConnections)
	wrong(o.MaxCommands < 2 || o.MaxCommands > 1024, "MaxCommands is %d, 2 to 1024 are possible", o.MaxCommands)
	wrong(o.MaxBytes < block.MaxBuffer, "MaxBytes is %d, one command may need %d", o.MaxBytes, block.MaxBuffer)
	wrong(o.MaxMemory < o.MaxBytes+o.reserved(), "MaxMemory is %d, one session may need %d", o.MaxMemory, o.MaxBytes+o.reserved())
	wrong(o.LoginTimeout < 0, "LoginTimeout is %v", o.LoginTimeout)
	wrong(o.ProgressTimeout < 0, "ProgressTimeout is %v", o.ProgressTimeout)
	wrong(o.LogoutTimeout < 0, "LogoutTimeout is %v", o.LogoutTimeout)
	return errors.Join(errs...)
}
