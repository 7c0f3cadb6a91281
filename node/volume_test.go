package node

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/store"
	"github.com/lockstep-storage/lockstep/target/targettest"
)

// TestVolumeIsADevice: what the daemon exports passes the exports' own suite,
// with the smallest journal.
func TestVolumeIsADevice(t *testing.T) {
	targettest.Run(t, func(t *testing.T) block.Device {
		const size = 40 << 20
		dir := t.TempDir()
		fsys, err := disk.OS(dir)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "data")
		if err := store.CreateFile(path, size, store.FileOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := mirror.Create(fsys, mirror.CreateOptions{Node: "alpha", Volume: "data", Size: size, JournalSize: 64 << 20}); err != nil {
			t.Fatal(err)
		}
		s, err := store.OpenFile(path, store.FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		v, err := mirror.Open(mirror.Options{Node: "alpha", Volume: "data", FS: fsys, Store: s})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := v.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		if err := v.Promote(t.Context(), mirror.PromoteOptions{}); err != nil {
			t.Fatal(err)
		}
		return v
	})
}
