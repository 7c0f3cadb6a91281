package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mounted runs what with the disk as a power cut before entry at left it. It
// works on a snapshot, which is thrown away.
func (l *writeLog) mounted(at int, what func() error) error {
	if err := l.replay(at); err != nil {
		return err
	}
	sectors, err := os.ReadFile("/sys/class/block/" + kernelName(replayDisk) + "/size")
	if err != nil {
		return err
	}
	const name = "left"
	table := fmt.Sprintf("0 %s snapshot %s %s N 8", strings.TrimSpace(string(sectors)), replayDisk, changesDisk)
	if err := errors.Join(wipe(changesDisk), sh("dmsetup", "create", name, "--table", table)); err != nil {
		return err
	}
	if err := sh("mount", "-t", *fsType, "/dev/mapper/"+name, mountPoint); err != nil {
		return errors.Join(err, sh("dmsetup", "remove", name))
	}
	err = what()
	return errors.Join(err, sh("umount", mountPoint), sh("dmsetup", "remove", name))
}

// wipe makes a snapshot's disk a new one.
func wipe(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 64<<10))
	return errors.Join(err, f.Sync(), f.Close())
}

// cut recovers from a power cut before entry at: the volume is as after the first
// k writes, of which flushed are the least that must be there.
func (l *writeLog) cut(ctx context.Context, w *writes, at int) (k, flushed int, err error) {
	if flushed, err = l.flushedBefore(at); err != nil {
		return 0, 0, err
	}
	err = l.mounted(at, func() error {
		n, err := node()
		if err != nil {
			return err
		}
		if err := n.Start(ctx); err != nil {
			return err
		}
		defer n.Close()
		c, err := attach(ctx, n)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, n.LogTail())
		}
		defer c.Close()
		p := make([]byte, volumeSize)
		for off := 0; off < len(p); off += 1 << 20 {
			if err := c.ReadAt(p[off:][:1<<20], int64(off)); err != nil {
				return err
			}
		}
		k, err = w.prefix(p, flushed)
		return err
	})
	return k, flushed, err
}

// control proves that the cuts are real: of two files that were there, the one
// that nobody synced is not there whole after a power cut, the other one is.
func (l *writeLog) control() error {
	at := l.marks(markControl)
	if len(at) != 1 {
		return fmt.Errorf("%d marks in the log are named %q", len(at), markControl)
	}
	return l.mounted(at[0], func() error {
		synced, err := os.ReadFile(filepath.Join(mountPoint, syncedFile))
		if err != nil {
			return fmt.Errorf("the file that was synced: %w", err)
		}
		if len(synced) != controlSize {
			return fmt.Errorf("the file that was synced has %d bytes of %d", len(synced), controlSize)
		}
		unsynced, err := os.ReadFile(filepath.Join(mountPoint, unsyncedFile))
		if err == nil && bytes.Equal(unsynced, synced) {
			return errors.New("a file that was not synced survived: this is no power cut")
		}
		fmt.Printf("control: of a file of %d bytes that was not synced, %d are left\n", controlSize, len(unsynced))
		return nil
	})
}
