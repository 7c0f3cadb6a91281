package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
)

// Offline are replicas that no daemon has open, and that none opens before Close:
// it holds the data directory's lock. Nothing in the directory is changed.
type Offline struct {
	// DataDir is the data directory, "" if the replica's directory is in none.
	DataDir string
	// Volumes are the names of the volumes, sorted.
	Volumes []string

	cfg  Config
	dirs map[string]string // of the replicas, by volume
	lock io.Closer         // nil: there is none
}

// OpenOffline takes the replicas in cfg's data directory, or that of volume alone
// if it is not "".
func OpenOffline(cfg Config, volume string) (*Offline, error) {
	o := &Offline{DataDir: cfg.DataDir, cfg: cfg, dirs: map[string]string{}}
	dir := filepath.Join(cfg.DataDir, "volumes")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%s is no data directory: %w: name the daemon's configuration file, or a replica's directory", cfg.DataDir, bare(err))
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && checkName("volume", name) == nil && (volume == "" || name == volume) {
			o.Volumes = append(o.Volumes, name)
			o.dirs[name] = filepath.Join(dir, name)
		}
	}
	if volume != "" && len(o.Volumes) == 0 {
		return nil, fmt.Errorf("there is no replica of volume %q in data directory %s", volume, cfg.DataDir)
	}
	return o, o.hold(cfg.DataDir)
}

// OpenOfflineDir takes the replica in dir, with the settings that cfg has for
// its volume.
func OpenOfflineDir(cfg Config, dir string) (*Offline, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("directory %s: %w", dir, bare(err))
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s is no directory", dir)
	}
	name := filepath.Base(dir)
	o := &Offline{cfg: cfg, Volumes: []string{name}, dirs: map[string]string{name: dir}}
	// In a data directory, a volume's directory or the journal in it.
	for _, volumes := range []string{filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		if filepath.Base(volumes) == "volumes" {
			o.DataDir = filepath.Dir(volumes)
			return o, o.hold(o.DataDir)
		}
	}
	return o, nil
}

func (o *Offline) hold(dataDir string) error {
	d, err := disk.ReadOnly(dataDir)
	if err == nil {
		o.lock, err = d.Lock("lock")
	}
	if errors.Is(err, disk.ErrLocked) {
		return fmt.Errorf("data directory %s is in use by a daemon: stop it first, for files that change while they are read look damaged", dataDir)
	}
	return err
}

// Close lets a daemon use the directory again.
func (o *Offline) Close() error {
	if o.lock == nil {
		return nil
	}
	return o.lock.Close()
}

// A CheckedReplica is what Check found of one replica.
type CheckedReplica struct {
	Volume    string `json:"volume"`
	Directory string `json:"directory"`
	Store     string `json:"store"` // path
	Sound     bool   `json:"sound"`
	mirror.CheckReport
}

// Check checks one of o.Volumes: see mirror.Check. Damage is no error.
func (o *Offline) Check(volume string) (CheckedReplica, error) {
	dir := o.dirs[volume]
	r := CheckedReplica{Volume: volume, Directory: dir}
	var own []mirror.Finding // problems that package mirror does not see
	problem := func(file, format string, a ...any) {
		own = append(own, mirror.Finding{File: file, Offset: -1, Text: fmt.Sprintf(format, a...)})
	}
	fsys, s, opts, err := o.open(dir, volume)
	if fsys == nil {
		return r, err
	}
	if err != nil {
		problem(filepath.Join(dir, settingsFile), "the volume's settings cannot be read: %v: write the file anew (docs/configuration.md has its form)", err)
	}
	r.Store = storePath(dir, s)
	if opts.StoreSize, err = sizeOf(r.Store); err != nil {
		problem(r.Store, "the backing store cannot be read: %v (is its disk mounted?)", err)
	}
	if r.CheckReport, err = mirror.Check(fsys, opts); err != nil {
		return r, err
	}
	if sb := r.Superblock; sb != nil && o.DataDir != "" && sb.Volume != volume {
		problem(filepath.Join(dir, "superblock"), "it is of volume %q: give the directory that name back", sb.Volume)
	}
	r.Problems = append(r.Problems, own...)
	r.Sound = r.CheckReport.Sound()
	return r, nil
}

// DumpJournal shows the journal of one of o.Volumes: see mirror.DumpJournal.
func (o *Offline) DumpJournal(volume string, v mirror.JournalVisitor) (mirror.CheckedJournal, error) {
	fsys, _, opts, err := o.open(o.dirs[volume], volume)
	if fsys == nil {
		return mirror.CheckedJournal{}, err
	}
	if err != nil {
		opts.JournalErr = err // where the journal is is not known, if it is elsewhere
		if _, statErr := os.Stat(filepath.Join(o.dirs[volume], "journal")); statErr == nil {
			opts.JournalErr = nil
		}
	}
	return mirror.DumpJournal(fsys, opts, v)
}

// open opens a replica's directory for reading, and that of its journal. The
// error with a directory is of the settings.
func (o *Offline) open(dir, volume string) (disk.FS, Settings, mirror.CheckOptions, error) {
	var opts mirror.CheckOptions
	fsys, err := disk.ReadOnly(dir)
	if err != nil {
		return nil, Settings{}, opts, err
	}
	s, err := readSettings(dir)
	// A replica of package mirror's own making has none.
	if errors.Is(err, fs.ErrNotExist) && o.DataDir == "" {
		err = nil
	}
	s = o.cfg.Volumes[volume].apply(s, o.cfg.Nodes)
	opts.Journal, opts.JournalErr = openJournal(s, disk.ReadOnly)
	return fsys, s, opts, err
}

// sizeOf is the size of a file or a block device, bytes.
func sizeOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, bare(err)
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}
