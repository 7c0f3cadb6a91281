package gotgt_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gostor/gotgt/pkg/config"
	_ "github.com/gostor/gotgt/pkg/port/iscsit"
	"github.com/gostor/gotgt/pkg/scsi"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore"

	"github.com/lockstep-storage/lockstep/adapters/gotgt"
	"github.com/lockstep-storage/lockstep/adapters/internal/pair"
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// A program built on gotgt serves a device in place of a file; a mirror.Volume that is
// Primary is one.
func Example() {
	path, err := gotgt.Register("example", memory.Sized(1<<20), func(err error) {
		log.Fatalf("the volume failed, and gotgt would say that all is well: %v", err)
	})
	if err != nil {
		log.Fatal(err)
	}
	defer gotgt.Unregister("example")
	storage := config.BackendStorage{DeviceID: 7, Path: path, Online: true, BlockShift: 9}
	if err := scsi.AddBackendStorage(storage); err != nil {
		log.Fatal(err)
	}
	defer scsi.DelBackendStorage(7)
	fmt.Println(path)
	// Output: lockstep:example
}

const (
	target = "iqn.2026-11.io.lockstep:data"
	size   = 16 << 20
)

// TestVolumeOverGotgt: what qemu's client writes through gotgt is on both replicas, and
// is read back. gotgt listens everywhere, so this runs in a network of its own.
func TestVolumeOverGotgt(t *testing.T) {
	const inside = "LOCKSTEP_GOTGT_INSIDE"
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVolumeOverGotgt$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	pair.Run(t, "ip", "link", "set", "lo", "up")
	p := pair.New(t, size)
	var over atomic.Bool
	path, err := gotgt.Register("data", p.Primary, func(err error) {
		if !over.Load() { // when the role is given up, that is told too
			t.Errorf("the volume failed: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{
		Storages:     []config.BackendStorage{{DeviceID: 1000, Path: path, Online: true, BlockShift: 9}},
		ISCSIPortals: []config.ISCSIPortalInfo{{ID: 0, Portal: "127.0.0.1:3260"}},
		ISCSITargets: map[string]config.ISCSITarget{target: {TPGTs: map[string][]uint64{"1": {0}}, LUNs: map[string]uint64{"1": 1000}}},
	}
	if err := scsi.InitSCSILUMap(cfg); err != nil {
		t.Fatal(err)
	}
	driver, err := scsi.NewTargetDriver("iscsi", scsi.NewSCSITargetService())
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.NewTarget(target, cfg); err != nil {
		t.Fatal(err)
	}
	go driver.Run(3260)

	url := "iscsi://127.0.0.1:3260/" + target + "/1"
	for end := time.Now().Add(20 * time.Second); exec.Command("iscsi-inq", url).Run() != nil && time.Now().Before(end); { // until it listens
		time.Sleep(20 * time.Millisecond)
	}
	noise, want := pair.Noise(t, size)
	back := filepath.Join(t.TempDir(), "back")
	pair.Run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", noise, url)
	pair.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", noise, url)
	pair.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", url, back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is read back is something else, or: %v", err)
	}
	flush(t, p.Primary) // gotgt does not, at a client's end
	over.Store(true)
	if !bytes.Equal(p.Image(t), want) {
		t.Error("the other replica has something else")
	}
}

func flush(t *testing.T, d block.Device) {
	c, err := block.Open(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestFailureIsTold: what gotgt keeps to itself reaches the program, once.
func TestFailureIsTold(t *testing.T) {
	broken := errors.New("the disk is broken")
	dev := memory.New(memory.Options{Info: memory.Sized(8192).Info(), Fault: func(memory.Access) error { return broken }})
	var told []error
	path, err := gotgt.Register("broken", dev, func(err error) { told = append(told, err) })
	if err != nil {
		t.Fatal(err)
	}
	defer gotgt.Unregister("broken")
	lu, err := scsi.NewSCSILu(&config.BackendStorage{DeviceID: 8, Path: path, Online: true, BlockShift: 9})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lu.Storage.Read(0, 512); !errors.Is(err, broken) {
		t.Errorf("a read: %v", err)
	}
	if err := lu.Storage.DataSync(0, 0); !errors.Is(err, broken) {
		t.Errorf("a sync: %v", err)
	}
	if len(told) != 1 || !errors.Is(told[0], broken) {
		t.Errorf("the program was told %v, once is wanted", told)
	}
}

// TestRegisterRefuses: names that are taken, or unknown, and what is missing.
func TestRegisterRefuses(t *testing.T) {
	dev, failed := memory.Sized(8192), func(error) {}
	if _, err := gotgt.Register("twice", dev, failed); err != nil {
		t.Fatal(err)
	}
	defer gotgt.Unregister("twice")
	if _, err := gotgt.Register("twice", dev, failed); err == nil {
		t.Error("a name was registered twice")
	}
	if _, err := gotgt.Register("nobody is told", dev, nil); err == nil {
		t.Error("no function for the failure, and it was registered")
	}
	if _, err := scsi.NewSCSILu(&config.BackendStorage{DeviceID: 9, Path: "lockstep:unknown"}); err == nil {
		t.Error("a device that nobody registered was opened")
	}
}
