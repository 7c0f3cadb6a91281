package disk

import (
	"io"
	"os"
	"path/filepath"
)

// OS opens the directory dir of the operating system, making it (mode 0700)
// with its parents if need be. Files are made with mode 0600. The errors are
// *fs.PathError and the like: they name the path.
func OS(dir string) (FS, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return osDir(dir), nil
}

type osDir string

func (d osDir) String() string          { return string(d) }
func (d osDir) path(name string) string { return filepath.Join(string(d), name) }

func (d osDir) Create(name string) (File, error) {
	return openFile(d.path(name), os.O_CREATE|os.O_EXCL)
}

func (d osDir) Open(name string) (File, error) { return openFile(d.path(name), 0) }

func (d osDir) Remove(name string) error { return os.Remove(d.path(name)) }

func (d osDir) Rename(oldname, newname string) error {
	return os.Rename(d.path(oldname), d.path(newname))
}

func (d osDir) List() ([]string, error) {
	entries, err := os.ReadDir(string(d)) // sorted
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d osDir) SyncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Sub makes the directory's name durable before it returns, for no SyncDir of
// the new directory would.
func (d osDir) Sub(name string) (FS, error) {
	switch err := os.Mkdir(d.path(name), 0o700); {
	case err == nil:
		if err := d.SyncDir(); err != nil {
			return nil, err
		}
	case !os.IsExist(err):
		return nil, err
	}
	return osDir(d.path(name)), nil
}

// Lock uses flock, which belongs to the open file: it ends with the process,
// however that ends, and holds against a second FS of the same process too.
func (d osDir) Lock(name string) (io.Closer, error) {
	path := d.path(name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return flock(f)
}
