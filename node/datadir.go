package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	creatingSuffix = ".creating"
	deletingSuffix = ".deleting"
)

// dataDir is a daemon's data directory, locked.
type dataDir struct {
	path string
	lock io.Closer
}

// openDataDir makes the directory if it is missing and takes its lock, which
// ends with the process.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(filepath.Join(path, "volumes"), 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s can't be made or used: %w: give this user the right to write there, or set data-dir to another directory", path, bare(err))
	}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %s can't be written: %w: give this user the right to, or set data-dir to another directory", path, bare(err))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s is in use by another daemon: stop it, or set data-dir to another directory", path)
		}
		return nil, fmt.Errorf("data directory %s can't be locked: %w", path, err)
	}
	return &dataDir{path, f}, nil
}

func (d *dataDir) Close() error { return d.lock.Close() }

func (d *dataDir) volume(name string) string { return filepath.Join(d.path, "volumes", name) }

func (d *dataDir) creating(name string) string { return d.volume("." + name + creatingSuffix) }
func (d *dataDir) deleting(name string) string { return d.volume("." + name + deletingSuffix) }

// sync makes renames and removals among the volumes durable.
func (d *dataDir) sync() error { return syncDir(filepath.Join(d.path, "volumes")) }

// scan gives the names of the volumes, and removes what unfinished creates and
// deletes left. What it does not know it leaves alone and mentions.
func (d *dataDir) scan(log *slog.Logger) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.path, "volumes"))
	if err != nil {
		return nil, fmt.Errorf("data directory %s can't be read: %w", d.path, bare(err))
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir() && isLeftover(name):
			log.Info("removing what an interrupted create or delete left", "path", d.volume(name))
			if err := eraseLeftover(d.volume(name)); err != nil {
				log.Warn("an interrupted create or delete can't be cleaned up", "path", d.volume(name), "error", err)
			}
		case e.IsDir() && checkName("volume", name) == nil:
			names = append(names, name)
		default:
			log.Warn("this is no volume, ignored", "path", d.volume(name))
		}
	}
	return names, d.sync()
}

// eraseLeftover removes an unfinished create or delete. A journal that is
// elsewhere goes first: without the directory nobody knows whose it is. One that
// can't be removed, as its disk is not there, keeps nothing from going on.
func eraseLeftover(dir string) error {
	s, err := readSettings(dir)
	if err == nil {
		err = eraseJournal(dir, s)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it had not come so far
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// isLeftover reports whether a directory is named as an unfinished create or
// delete of ours is.
func isLeftover(name string) bool {
	inner, dotted := strings.CutPrefix(name, ".")
	for _, suffix := range []string{creatingSuffix, deletingSuffix} {
		if volume, ok := strings.CutSuffix(inner, suffix); dotted && ok {
			return checkName("volume", volume) == nil
		}
	}
	return false
}

// exists reports whether there is a volume of that name, or anything in its
// place.
func (d *dataDir) exists(name string) (bool, error) {
	_, err := os.Lstat(d.volume(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// bare takes the path off an error whose sentence names the path itself.
func bare(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
