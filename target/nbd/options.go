package nbd

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// Defaults of Options.
const (
	// DefaultMaxConnections is enough for a rack of clients with several
	// connections each.
	DefaultMaxConnections = 256
	// DefaultMaxRequests is what the Linux kernel's client keeps in flight on
	// one connection; nbdcopy keeps 64, qemu 16.
	DefaultMaxRequests = 128
	// DefaultMaxBytes lets two requests of the largest size be in flight.
	DefaultMaxBytes = 64 << 20
	// DefaultMaxMemory is eight connections at their limit.
	DefaultMaxMemory = 512 << 20
	// DefaultReadWorkers keeps a disk's queue busy.
	DefaultReadWorkers      = 16
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultProgressTimeout  = 30 * time.Second
)

// Options of a server. The zero value means the defaults.
type Options struct {
	// Log is told about connections and refused requests. nil discards.
	Log *slog.Logger

	// TLS says who proves what, and who may open which export. The zero value is
	// no TLS.
	TLS TLS

	// MaxConnections is how many clients may be connected at once; more are
	// hung up on. Each costs 256 KiB of read buffer.
	MaxConnections int
	// MaxRequests is how many requests of one connection may be in flight.
	// Fewer slow deep queues down.
	MaxRequests int
	// MaxBytes is how many bytes of payload of one connection may be in flight,
	// at least 32 MiB.
	MaxBytes int64
	// MaxMemory is how many bytes of payload all connections together may have
	// in flight, at least MaxBytes. Beyond, clients wait.
	MaxMemory int64
	// ReadWorkers is how many reads of one connection may wait for a disk at
	// once.
	ReadWorkers int

	// HandshakeTimeout is how long a client may take until transmission begins.
	HandshakeTimeout time.Duration
	// ProgressTimeout is how long a client may take for the next bytes of a
	// request that it began, or to take the next megabyte of replies. A client
	// that owes nothing may be idle for ever.
	ProgressTimeout time.Duration
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	def(&o.MaxConnections, DefaultMaxConnections)
	def(&o.MaxRequests, DefaultMaxRequests)
	def(&o.MaxBytes, DefaultMaxBytes)
	def(&o.MaxMemory, max(DefaultMaxMemory, o.MaxBytes))
	def(&o.ReadWorkers, DefaultReadWorkers)
	def(&o.HandshakeTimeout, DefaultHandshakeTimeout)
	def(&o.ProgressTimeout, DefaultProgressTimeout)
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate lists everything that is wrong with the options.
func (o *Options) Validate() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("nbd: "+format, args...))
		}
	}
	wrong(o.TLS.Mode < TLSOff || o.TLS.Mode > TLSRequired, "TLS.Mode is %d, which is none", o.TLS.Mode)
	wrong(o.TLS.Mode != TLSOff && o.TLS.Config == nil, "TLS has no Config")
	wrong(o.MaxConnections < 1, "MaxConnections is %d, at least 1 is needed", o.MaxConnections)
	wrong(o.MaxRequests < 1 || o.MaxRequests > 1<<16, "MaxRequests is %d, 1 to 65536 are possible", o.MaxRequests)
	wrong(o.MaxBytes < wire.MaxPayload, "MaxBytes is %d, one request may need %d", o.MaxBytes, wire.MaxPayload)
	wrong(o.MaxMemory < o.MaxBytes, "MaxMemory is %d, less than MaxBytes, %d", o.MaxMemory, o.MaxBytes)
	wrong(o.ReadWorkers < 1, "ReadWorkers is %d, at least 1 is needed", o.ReadWorkers)
	wrong(o.HandshakeTimeout < 0, "HandshakeTimeout is %v", o.HandshakeTimeout)
	wrong(o.ProgressTimeout < 0, "ProgressTimeout is %v", o.ProgressTimeout)
	return errors.Join(errs...)
}
