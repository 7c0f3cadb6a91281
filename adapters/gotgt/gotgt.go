package gotgt

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"github.com/lockstep-storage/lockstep/block"
)

// plugin is the name that gotgt knows these backing stores by.
const plugin = "lockstep"

// registered are the devices that a gotgt of this process may open, by name.
var (
	mu         sync.Mutex
	registered = map[string]*entry{}
)

type entry struct {
	device block.Device
	failed func(error)
}

func init() {
	scsi.RegisterBackingStore(plugin, func() (api.BackingStore, error) { return &store{}, nil })
}

// Register makes a device known under a name, and returns the path that stands for it
// in gotgt's configuration (BackendStorage.Path). gotgt attaches to it when that
// configuration is taken in, and does not give it up by itself.
//
// failed is called once, from any goroutine, with the first failure of the device, before
// gotgt has answered the client with GOOD all the same; it is to end the target, and
// the program if it has no other way. It is required.
func Register(name string, d block.Device, failed func(error)) (path string, err error) {
	if name == "" || d == nil || failed == nil {
		return "", errors.New("gotgt: a name, a device, and a function for its failure are required")
	}
	mu.Lock()
	defer mu.Unlock()
	if registered[name] != nil {
		return "", fmt.Errorf("gotgt: a device is registered as %q already", name)
	}
	registered[name] = &entry{d, failed}
	return plugin + ":" + name, nil
}

// Unregister makes the name free again. A gotgt that is attached stays so.
func Unregister(name string) {
	mu.Lock()
	defer mu.Unlock()
	delete(registered, name)
}

// A store is gotgt's view of a device.
type store struct {
	*block.Client
	fail func(error)
}

var _ api.BackingStore = (*store)(nil)

// Open implements api.BackingStore: path is the name that was registered.
func (s *store) Open(lu *api.SCSILu, path string) error {
	mu.Lock()
	e := registered[path]
	mu.Unlock()
	if e == nil {
		return fmt.Errorf("gotgt: no device is registered as %q", path)
	}
	var once sync.Once
	s.fail = func(err error) { once.Do(func() { e.failed(err) }) }
	c, err := block.Open(context.Background(), e.device, s.fail)
	if err != nil {
		return err
	}
	shift := lu.BlockShift
	if shift == 0 {
		shift = api.DefaultBlockShift
	}
	if int64(1)<<shift < c.Info().SectorSize {
		c.Close()
		return fmt.Errorf("gotgt: the device has sectors of %d bytes: set BlockShift to at least that, it is %d", c.Info().SectorSize, shift)
	}
	s.Client = c
	return nil
}

// Close implements api.BackingStore.
func (s *store) Close(*api.SCSILu) error { return s.Client.Close() }

// Init implements api.BackingStore.
func (s *store) Init(*api.SCSILu, string) error { return nil }

// Exit implements api.BackingStore.
func (s *store) Exit(*api.SCSILu) error { return nil }

// Size implements api.BackingStore: bytes.
func (s *store) Size(*api.SCSILu) uint64 { return uint64(s.Info().Size) }

// Read implements api.BackingStore.
func (s *store) Read(off, n int64) ([]byte, error) {
	if n < 0 || off < 0 || n > s.Info().Size-off { // before it is allocated
		return nil, s.failed(fmt.Errorf("read of %d bytes at %d: %w", n, off, block.ErrOutOfRange))
	}
	p := make([]byte, n)
	_, err := s.ReadAt(p, off)
	return p, s.failed(err)
}

// Write implements api.BackingStore.
func (s *store) Write(p []byte, off int64) error {
	_, err := s.WriteAt(p, off)
	return s.failed(err)
}

// DataSync implements api.BackingStore: all of the device is synced.
func (s *store) DataSync(int64, int64) error { return s.failed(s.Flush()) }

// DataAdvise implements api.BackingStore; a mirrored volume takes no advice.
func (s *store) DataAdvise(int64, int64, uint32) error { return nil }

// Unmap implements api.BackingStore.
func (s *store) Unmap(ranges []api.UnmapBlockDescriptor) error {
	for _, r := range ranges {
		if err := s.failed(s.Trim(int64(r.Offset), int64(r.TL))); err != nil {
			return err
		}
	}
	return nil
}

// failed tells the program of the first failure that gotgt keeps to itself.
func (s *store) failed(err error) error {
	if err != nil {
		s.fail(err)
	}
	return err
}
