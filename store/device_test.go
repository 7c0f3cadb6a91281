package store

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/store/storetest"
)

// loopDevice attaches a new file of testSize bytes to a loop device.
func loopDevice(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := CreateFile(path, testSize, FileOptions{}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", path).Output()
	if err != nil {
		t.Skipf("no loop device can be had, so block devices are not tested: losetup: %v", err)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "--detach", dev).Run(); err != nil {
			t.Errorf("detach %s: %v", dev, err)
		}
	})
	return dev
}

func TestBlockDevice(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		s, err := OpenFile(loopDevice(t), FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if s.Size() != testSize {
			t.Fatalf("%d bytes, the device has %d", s.Size(), testSize)
		}
		return s
	})
}

func TestBlockDeviceIsTakenExclusively(t *testing.T) {
	dev := loopDevice(t)
	s, err := OpenFile(dev, FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := OpenFile(dev, FileOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	if f, err := os.OpenFile(dev, os.O_RDWR|os.O_EXCL, 0); err == nil {
		f.Close()
		t.Error("others may take it too")
	}
}

func TestBlockDeviceMayBeLarger(t *testing.T) {
	dev := loopDevice(t)
	s, err := OpenFile(dev, FileOptions{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := s.WriteAt([]byte{1}, 1<<20); err == nil || s.Size() != 1<<20 {
		t.Errorf("a store of %d bytes takes one more: %v", s.Size(), err)
	}
	s.Close()
	if _, err := OpenFile(dev, FileOptions{Size: testSize + 1}); err == nil {
		t.Error("a device that is too small was opened")
	}
}

// A device's node lies on a file system in memory, and its bytes do not: a
// TryReadAt that waited for the disk would hold its caller up.
func TestTryReadOnADevice(t *testing.T) {
	s, err := OpenFile(loopDevice(t), FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if s.memory {
		t.Error("a device is taken for memory")
	}
	p := make([]byte, 4096)
	if _, err := s.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if done, err := s.TryReadAt(p, 0); !done && !s.cold.Load() || err != nil {
		t.Errorf("what was just read is not answered: %v, %v", done, err)
	}
}

func TestCreateLeavesDevicesAlone(t *testing.T) {
	if err := CreateFile(loopDevice(t), testSize, FileOptions{}); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
}
