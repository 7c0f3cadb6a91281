package nbd

import (
	"errors"
	"fmt"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

func TestErrno(t *testing.T) {
	for err, want := range map[error]uint32{
		nil:                      wire.OK,
		block.ErrReadOnly:        wire.EPERM,
		block.ErrNoSpace:         wire.ENOSPC,
		block.ErrOutOfRange:      wire.EINVAL,
		block.ErrNotServing:      wire.ESHUTDOWN,
		block.ErrSessionClosed:   wire.ESHUTDOWN,
		errors.New("bad sector"): wire.EIO,
		fmt.Errorf("write at 5: %w", block.ErrNoSpace): wire.ENOSPC,
	} {
		if got := errno(err); got != want {
			t.Errorf("%v: %s, want %s", err, wire.ErrnoName(got), wire.ErrnoName(want))
		}
	}
}

func TestBlockSizes(t *testing.T) {
	for _, tc := range []struct {
		info      block.Info
		min, pref uint32
	}{
		{block.Info{SectorSize: 512, PreferredSize: 4096}, 512, 4096},
		{block.Info{SectorSize: 4096, PreferredSize: 0}, 4096, 4096},
		{block.Info{SectorSize: 1}, 1, 512},
		{block.Info{SectorSize: 512, PreferredSize: 5000}, 512, 8192},
		{block.Info{SectorSize: 512, PreferredSize: 1 << 40}, 512, wire.MaxPayload},
	} {
		least, preferred, payload := blockSizes(tc.info)
		if least != tc.min || preferred != tc.pref || payload != wire.MaxPayload {
			t.Errorf("%+v: %d, %d, %d", tc.info, least, preferred, payload)
		}
	}
}

func TestOptions(t *testing.T) {
	bad := Options{MaxConnections: -1, MaxRequests: -1, MaxBytes: 1, MaxMemory: -5, ReadWorkers: -1}
	if _, err := NewServer(nil, bad); err == nil {
		t.Error("accepted")
	} else if joined := err.(interface{ Unwrap() []error }).Unwrap(); len(joined) != 5 {
		t.Errorf("%d problems listed of 5:\n%v", len(joined), err)
	}
}
