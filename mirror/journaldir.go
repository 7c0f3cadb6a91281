package mirror

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/journal"
)

// A replica's journal is in the subdirectory "journal", or in a directory of its
// own (CreateOptions.Journal), on another device perhaps. Then each of the two
// directories has a file with the same random id: the replica's says that its
// journal is elsewhere, the journal's whose it is. So no journal is ever opened,
// and cut to a history, that is another replica's.
const (
	journalDir  = "journal"
	linkName    = "journal.link" // in the replica's directory
	ownerName   = "owner"        // in the journal's
	lockName    = "lock"         // in the journal's, held while it is used
	newSuffix   = ".new"         // of a file that is not whole yet
	linkFormat  = 1
	maxLinkSize = 4096 // bytes
)

// journalLink is what both files hold, as JSON (docs/formats.md).
type journalLink struct {
	Format int    `json:"format"` // 1
	Volume string `json:"volume"`
	Node   string `json:"node"`
	ID     ID     `json:"id"`
}

// createJournal makes an empty journal in jdir, which has to be empty, or in
// dir's subdirectory if jdir is nil. A crash leaves nothing that EraseJournal
// does not remove.
func createJournal(dir, jdir disk.FS, o CreateOptions) (err error) {
	if jdir == nil {
		sub, err := dir.Sub(journalDir)
		if err != nil {
			return fmt.Errorf("make the journal's directory: %w", err)
		}
		return journal.Create(sub, journal.Options{Size: o.JournalSize})
	}
	// Looked at before the lock, which makes a file, and again once it is held.
	if err := mustBeEmpty(jdir); err != nil {
		return err
	}
	lock, err := jdir.Lock(lockName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := mustBeEmpty(jdir); err != nil {
		return err
	}
	id, err := NewID(nil)
	if err != nil {
		return err
	}
	link := journalLink{Format: linkFormat, Volume: o.Volume, Node: o.Node, ID: id}
	// The replica's own first: whatever lies in the journal's directory later is
	// known to be its.
	if err := link.write(dir, linkName); err != nil {
		return err
	}
	if err := link.write(jdir, ownerName); err != nil {
		return err
	}
	return journal.Create(jdir, journal.Options{Size: o.JournalSize})
}

func mustBeEmpty(jdir disk.FS) error {
	names, err := jdir.List()
	if err != nil {
		return fmt.Errorf("list the journal's directory: %w", err)
	}
	// What a Create that was cut off can leave.
	names = slices.DeleteFunc(names, func(name string) bool { return name == lockName || name == ownerName+newSuffix })
	if len(names) == 0 {
		return nil
	}
	if owner, err := readLink(jdir, ownerName); err == nil {
		return fmt.Errorf("the directory %v holds the journal of volume %q on node %q: a journal needs an empty directory", jdir, owner.Volume, owner.Node)
	}
	return fmt.Errorf("the directory %v is not empty, it has %q: a journal needs an empty one", jdir, names[0])
}

// openJournalDir gives the directory of dir's journal: jdir, locked until the
// closer is closed, or the subdirectory if jdir is nil (the closer is, too).
func openJournalDir(dir, jdir disk.FS) (disk.FS, io.Closer, error) {
	link, err := readLink(dir, linkName)
	switch {
	case jdir == nil && errors.Is(err, fs.ErrNotExist):
		sub, err := dir.Sub(journalDir)
		if err != nil {
			return nil, nil, fmt.Errorf("open the journal's directory: %w", err)
		}
		return sub, nil, nil
	case jdir == nil && err == nil:
		return nil, nil, fmt.Errorf("the journal of the replica in %v is in a directory of its own, which was not named", dir)
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("the journal of the replica in %v is with it, and not in %v", dir, jdir)
	case err != nil:
		return nil, nil, err
	}
	owner, err := readLink(jdir, ownerName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("%w: it is not in the directory %v (is its disk mounted?)", ErrJournalLost, jdir)
	case err != nil:
		return nil, nil, err
	case owner.ID != link.ID:
		return nil, nil, fmt.Errorf("the directory %v holds the journal of another replica, of volume %q on node %q", jdir, owner.Volume, owner.Node)
	}
	lock, err := jdir.Lock(lockName)
	if err != nil {
		return nil, nil, err
	}
	return jdir, lock, nil
}

// claimJournalDir is openJournalDir for a replica whose journal is given up: an
// empty directory in its place, of a new disk perhaps, becomes the journal's.
func claimJournalDir(dir, jdir disk.FS) (disk.FS, io.Closer, error) {
	found, lock, err := openJournalDir(dir, jdir)
	if jdir == nil || !errors.Is(err, ErrJournalLost) {
		return found, lock, err
	}
	if err := mustBeEmpty(jdir); err != nil {
		return nil, nil, err
	}
	link, err := readLink(dir, linkName)
	if err == nil {
		err = link.write(jdir, ownerName)
	}
	if err != nil {
		return nil, nil, err
	}
	return openJournalDir(dir, jdir)
}

// EraseJournal removes, durably, what Create made in jdir for the replica in
// dir, and nothing if what is there is not that replica's. The directory stays.
// The replica must not be open.
func EraseJournal(dir, jdir disk.FS) error {
	link, err := readLink(dir, linkName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	owner, err := readLink(jdir, ownerName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case owner.ID != link.ID:
		return fmt.Errorf("the directory %v holds the journal of another replica, of volume %q on node %q: it is left as it is", jdir, owner.Volume, owner.Node)
	}
	names, err := jdir.List()
	if err != nil {
		return fmt.Errorf("list the journal's directory: %w", err)
	}
	var errs []error
	for _, name := range names {
		if name == lockName || journal.IsSegment(name) {
			errs = append(errs, jdir.Remove(name))
		}
	}
	// The owner goes last: until then a second try knows whose the rest is.
	if err := errors.Join(append(errs, jdir.SyncDir())...); err != nil {
		return fmt.Errorf("remove the journal in %v: %w", jdir, err)
	}
	if err := errors.Join(jdir.Remove(ownerName), jdir.SyncDir()); err != nil {
		return fmt.Errorf("remove the journal in %v: %w", jdir, err)
	}
	return nil
}

// write makes the file, durably: a crash leaves the whole of it or none.
func (l journalLink) write(dir disk.FS, name string) error {
	fail := func(err error) error { return fmt.Errorf("write %v/%s: %w", dir, name, err) }
	text, err := json.Marshal(l)
	if err != nil {
		return fail(err)
	}
	temp := name + newSuffix
	if err := dir.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	f, err := dir.Create(temp)
	if err != nil {
		return fail(err)
	}
	_, err = f.WriteAt(append(text, '\n'), 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fail(err)
	}
	if err := dir.Rename(temp, name); err != nil {
		return fail(err)
	}
	if err := dir.SyncDir(); err != nil {
		return fail(err)
	}
	return nil
}

// readLink reads one of the two files; fs.ErrNotExist if there is none.
func readLink(dir disk.FS, name string) (l journalLink, err error) {
	f, err := dir.Open(name)
	if err != nil {
		return l, fmt.Errorf("read %v/%s: %w", dir, name, err)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxLinkSize))
	if err := errors.Join(err, f.Close()); err != nil {
		return l, fmt.Errorf("read %v/%s: %w", dir, name, err)
	}
	if err := l.parse(string(text)); err != nil {
		return l, fmt.Errorf("%v/%s, which says whose the journal is, cannot be read: %w", dir, name, err)
	}
	return l, nil
}

func (l *journalLink) parse(text string) error {
	// The format first: another one may have other keys.
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal([]byte(text), &format); err != nil {
		return err
	}
	if format.Format != linkFormat {
		return fmt.Errorf("format %d, this program knows %d: start the program that wrote it, or a newer one", format.Format, linkFormat)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(l); err != nil {
		return err
	}
	if l.ID.IsZero() {
		return errors.New("it has no id")
	}
	return nil
}
