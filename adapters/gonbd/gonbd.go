package gonbd

import (
	"context"

	"github.com/pojntfx/go-nbd/pkg/backend"

	"github.com/lockstep-storage/lockstep/block"
)

// Options may be left zero.
type Options struct {
	// Durable has every write flushed before it is answered.
	Durable bool
	// Revoked is called once, from a goroutine of its own, when the device serves no
	// longer; it must not block. A server then closes its connections: go-nbd itself
	// goes on, and answers with errors.
	Revoked func(reason error)
}

// A Backend is go-nbd's view of a device. Its methods may be called concurrently.
// Offsets and lengths are multiples of the device's sectors, which is what
// server.Options.MinimumBlockSize is to be set to.
type Backend struct {
	*block.Client
	durable bool
}

var _ backend.Backend = (*Backend)(nil)

// Open attaches to a device, which waits and fails as block.Open does. Close ends that,
// after the last connection has gone.
func Open(ctx context.Context, d block.Device, o Options) (*Backend, error) {
	c, err := block.Open(ctx, d, o.Revoked)
	if err != nil {
		return nil, err
	}
	return &Backend{c, o.Durable}, nil
}

// WriteAt implements backend.Backend.
func (b *Backend) WriteAt(p []byte, off int64) (int, error) {
	n, err := b.Client.WriteAt(p, off)
	if err == nil && b.durable {
		err = b.Flush()
	}
	return n, err
}

// Size implements backend.Backend: bytes.
func (b *Backend) Size() (int64, error) { return b.Info().Size, nil }

// Sync implements backend.Backend.
func (b *Backend) Sync() error { return b.Flush() }
