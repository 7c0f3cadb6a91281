package block

import (
	"context"
	"errors"
)

// Errors that a device answers a request with. An export translates each of
// them into its protocol's code in one place; any other error is an I/O error.
var (
	// ErrNoSpace: the backing store is full. The write did not take place.
	ErrNoSpace = errors.New("no space left on the backing store")
	// ErrReadOnly: the device, or this session of it, takes no writes.
	ErrReadOnly = errors.New("the device is read-only")
	// ErrNotServing: the device does not serve now (a Secondary, or shutting
	// down); the session is over.
	ErrNotServing = errors.New("the device does not serve requests now")
	// ErrOutOfRange: the range does not lie within the device.
	ErrOutOfRange = errors.New("the range lies outside the device")
	// ErrSessionClosed: the session was closed before the request was ordered.
	// The request did not and will not take place.
	ErrSessionClosed = errors.New("the session is closed")
)

// Info describes a device. It stays the same for as long as a session lasts.
type Info struct {
	Size int64 // bytes; a multiple of SectorSize
	// SectorSize is the smallest unit, in bytes: offsets and lengths of all
	// requests are multiples of it. A power of two, at least 1.
	SectorSize int64
	// PreferredSize is the size and alignment, in bytes, at which requests are
	// cheapest.
	PreferredSize int64
	ReadOnly      bool
	// WriteCache: a completed write may be lost by a power failure until a
	// flush completes. When false every completed write is durable.
	WriteCache bool
	// AtomicWrite is the largest write, in bytes, of which a crash of whatever
	// kind leaves all or nothing, wherever it lies: on every replica that is
	// complete, and until it is overwritten. A multiple of SectorSize, at most
	// MaxBuffer; it may exceed Size. 0: nothing is promised. A single request is
	// meant: two that are submitted together are two.
	AtomicWrite int64
	// FastZero: OpTrim and OpWriteZeroes take less time than to write as many
	// zeroes, wherever they lie.
	FastZero bool
	// MultiConn: a flush on one session covers what completed on every other.
	MultiConn  bool
	Rotational bool
}

// A Device is something that can be exported. Its methods may be called
// concurrently.
type Device interface {
	Info() Info

	// Attach begins a session. It returns once everything that was submitted
	// before it, by anybody, is settled (replication.md 11), or with
	// ErrNotServing, or with ctx's error.
	//
	// When the device stops serving (demotion, shutdown, a newer owner) it calls
	// revoked once, from a goroutine of its own, with a reason made for people;
	// the session's requests fail from then on and the export closes the
	// connection. revoked must not block.
	Attach(ctx context.Context, revoked func(reason error)) (Session, error)
}

// A Session is one client connection's use of a device.
type Session interface {
	// ReadAt fills p from the device at byte off. It may block on the disk.
	// Any number of calls may run at once.
	ReadAt(p []byte, off int64) error

	// TryReadAt does what ReadAt does if it can without waiting for a disk
	// (page cache or pending writes); otherwise it reports false and p's
	// content is undefined.
	TryReadAt(p []byte, off int64) (done bool, err error)

	// Submit hands a batch of requests over, in order. Each is completed
	// exactly once, in any order, perhaps before Submit returns and on its
	// goroutine. Submit blocks while the device is out of credit: that is how a
	// fast client is slowed. The caller keeps the slice, not the requests.
	//
	// Requests that are in flight together may take effect in any order; one
	// that is submitted after another completed takes effect after it.
	// One goroutine at a time calls Submit on one session.
	Submit(batch []*Request)

	// Close ends the session. When it returns, no request of this session that
	// had not been ordered will ever take effect (replication.md 11). Requests
	// that were ordered still complete. It is safe to call twice.
	Close()
}
