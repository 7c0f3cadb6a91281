package memory

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/block"
)

// An Access is a request as the fault hook sees it.
type Access struct {
	Read bool // Op is then 0
	block.Request
}

// Options says what a device is and how it misbehaves. Only Info is required.
type Options struct {
	Info block.Info
	// ColdReads: TryReadAt never succeeds, as if nothing were in the page cache.
	ColdReads bool
	// Fault is asked about every access before it takes effect; an error is the
	// access's outcome, and it does not take effect. It is called concurrently
	// and must not keep the request. nil never fails.
	Fault func(Access) error
}

// Device is a block.Device in memory. Its methods may be called concurrently.
type Device struct {
	opt    Options
	serves atomic.Pointer[string] // nil: yes; else why not

	data  sync.RWMutex
	bytes []byte
	units []block.Allocation // of each unit of bytes

	gate gate

	mu       sync.Mutex
	sessions map[*session]func(error)
}

// New makes a device full of zeroes. It panics if info makes no sense.
func New(opt Options) *Device {
	i := opt.Info
	if i.SectorSize < 1 || i.SectorSize&(i.SectorSize-1) != 0 || i.Size < 0 || i.Size%i.SectorSize != 0 {
		panic(fmt.Sprintf("memory: %d bytes in sectors of %d", i.Size, i.SectorSize))
	}
	d := &Device{opt: opt, bytes: make([]byte, i.Size), sessions: make(map[*session]func(error))}
	d.units = make([]block.Allocation, (i.Size+unit-1)/unit)
	d.allocate(0, i.Size, block.Hole|block.Zero)
	d.gate.init(d)
	return d
}

// Sized makes a device of size bytes with 512-byte sectors, a write cache and
// nothing wrong with it.
func Sized(size int64) *Device {
	return New(Options{Info: block.Info{
		Size: size, SectorSize: 512, PreferredSize: 4096, WriteCache: true, MultiConn: true, FastZero: true,
		AtomicWrite: block.MaxBuffer, // requests take effect one after the other, and no crash leaves anything
	}})
}

// Info implements block.Device.
func (d *Device) Info() block.Info { return d.opt.Info }

// Attach implements block.Device: it waits for every request that is held back
// or delayed.
func (d *Device) Attach(ctx context.Context, revoked func(error)) (block.Session, error) {
	if err := d.gate.settled(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.notServing(); err != nil {
		return nil, err
	}
	s := &session{d: d}
	d.sessions[s] = revoked
	return s, nil
}

// Stop makes the device serve no longer: every session is revoked, requests
// fail with block.ErrNotServing.
func (d *Device) Stop(reason string) {
	d.mu.Lock()
	d.serves.Store(&reason)
	for s, revoked := range d.sessions {
		delete(d.sessions, s)
		go revoked(fmt.Errorf("memory: %s: %w", reason, block.ErrNotServing))
	}
	d.mu.Unlock()
	d.gate.Release(nil)
}

// Start makes it serve again. Sessions that were revoked stay so.
func (d *Device) Start() { d.serves.Store(nil) }

// Sessions counts the sessions that are open.
func (d *Device) Sessions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sessions)
}

// Snapshot is a copy of n bytes at off, past all faults.
func (d *Device) Snapshot(off, n int64) []byte {
	d.data.RLock()
	defer d.data.RUnlock()
	return append([]byte(nil), d.bytes[off:off+n]...)
}

func (d *Device) notServing() error {
	if why := d.serves.Load(); why != nil {
		return fmt.Errorf("memory: %s: %w", *why, block.ErrNotServing)
	}
	return nil
}

func (d *Device) inRange(off, n int64) error {
	if size := int64(len(d.bytes)); off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("memory: %d bytes at %d of a device of %d: %w", n, off, size, block.ErrOutOfRange)
	}
	return nil
}

// apply carries a change of session s out and says how it went.
func (d *Device) apply(s *session, r *block.Request) error {
	if err := d.inRange(r.Off, r.Len); err != nil {
		return err
	}
	if r.Op != block.OpFlush && d.opt.Info.ReadOnly {
		return block.ErrReadOnly
	}
	if d.opt.Fault != nil {
		if err := d.opt.Fault(Access{Request: *r}); err != nil {
			return err
		}
	}
	d.data.Lock()
	defer d.data.Unlock()
	// Asked under the lock that Close takes: nothing takes effect after it.
	if err := s.usable(); err != nil {
		return err
	}
	switch r.Op {
	case block.OpWrite:
		copy(d.bytes[r.Off:r.Off+r.Len], r.Buf.Bytes())
		d.allocate(r.Off, r.Len, 0)
	case block.OpTrim, block.OpWriteZeroes:
		clear(d.bytes[r.Off : r.Off+r.Len])
		a := block.Hole | block.Zero
		if r.NoHole {
			a = block.Zero
		}
		d.allocate(r.Off, r.Len, a)
	}
	return nil
}
