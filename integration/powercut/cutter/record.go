package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/load"
)

const (
	volume = "data"
	// logged is the device that dm-log-writes makes of the disks.
	logged = "logged"

	markFlushed = "flushed-" // the number of the newest write follows
	markControl = "control"
	markEnd     = "end"

	unsyncedFile, syncedFile = "unsynced", "synced"
	controlSize              = 1 << 20
)

// record runs the daemon on a file system on a disk whose writes are logged, and
// returns what was written to its volume.
func record(ctx context.Context, rng *rand.Rand) (*writes, error) {
	sectors, err := os.ReadFile("/sys/class/block/" + kernelName(dataDisk) + "/size")
	if err != nil {
		return nil, err
	}
	table := fmt.Sprintf("0 %s log-writes %s %s", strings.TrimSpace(string(sectors)), dataDisk, logDisk)
	if err := sh("dmsetup", "create", logged, "--table", table); err != nil {
		return nil, err
	}
	dev := "/dev/mapper/" + logged
	mkfs := map[string][]string{
		"ext4": {"mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", dev},
		"xfs":  {"mkfs.xfs", "-q", "-f", "-K", dev},
	}[*fsType]
	if mkfs == nil {
		return nil, fmt.Errorf("no file system %q", *fsType)
	}
	if err := errors.Join(sh(mkfs...), sh("mount", "-t", *fsType, dev, mountPoint)); err != nil {
		return nil, err
	}
	n, err := node()
	if err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	if _, err := n.CLI(ctx, "create", volume, "--size", strconv.Itoa(volumeSize), "--journal-size", "64MiB"); err != nil {
		return nil, err
	}
	w, err := write(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := control(rng); err != nil {
		return nil, err
	}
	// What comes now is no part of the test, and the log is read at rest.
	if err := errors.Join(mark(markEnd), n.Kill()); err != nil {
		return nil, err
	}
	return w, errors.Join(sh("umount", mountPoint), sh("dmsetup", "remove", logged))
}

// kernelName is what the kernel calls a device.
func kernelName(dev string) string {
	if target, err := os.Readlink(dev); err == nil {
		return filepath.Base(target)
	}
	return filepath.Base(dev)
}

// node is the daemon with its directory on the file system under test.
func node() (*daemon.Node, error) {
	return daemon.New(daemon.Config{Bin: *bin, Dir: mountPoint + "/node", Name: "alpha", Peer: "127.0.0.1:7790"})
}

// attach connects to the volume once the daemon serves it.
func attach(ctx context.Context, n *daemon.Node) (*load.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return load.DialServing(ctx, "unix:"+n.NBDSocket(), volume)
}

// write writes and flushes; each flush that was acknowledged is marked.
func write(ctx context.Context, n *daemon.Node) (*writes, error) {
	c, err := attach(ctx, n)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	w := newWrites(*seed)
	if err := mark(markFlushed + "0"); err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Duration(*seconds) * time.Second); time.Now().Before(end); {
		for range 1 + w.rng.IntN(30) {
			off, p := w.next()
			if err := c.WriteAt(p, off, false); err != nil {
				return nil, fmt.Errorf("write %d: %w", w.last(), err)
			}
		}
		if err := c.Flush(); err != nil {
			return nil, fmt.Errorf("flush after write %d: %w", w.last(), err)
		}
		if err := mark(markFlushed + strconv.Itoa(w.last())); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// mark puts a mark into the log, behind everything that is durable by now.
func mark(name string) error { return sh("dmsetup", "message", logged, "0", "mark", name) }

// control writes two files, of which one is synced, and marks the moment.
func control(rng *rand.Rand) error {
	p := make([]byte, controlSize)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	sync := func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	}
	err := os.WriteFile(filepath.Join(mountPoint, syncedFile), p, 0o600)
	if err = errors.Join(err, sync(filepath.Join(mountPoint, syncedFile)), sync(mountPoint)); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(mountPoint, unsyncedFile), p, 0o600), mark(markControl))
}
