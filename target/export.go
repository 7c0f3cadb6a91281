package target

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/lockstep-storage/lockstep/block"
)

// MaxNameLen is the longest export name, and the longest description, in bytes.
// It is the limit that the NBD protocol sets to strings.
const MaxNameLen = 4096

// Errors of the table.
var (
	// ErrUnknownExport: no export has that name, or no default is set.
	ErrUnknownExport = errors.New("no such export")
	// ErrExists: the name is taken.
	ErrExists = errors.New("an export of this name exists already")
	// ErrTooManySessions: the export has as many sessions as it may have.
	ErrTooManySessions = errors.New("the export has as many connections as it may have")
	// ErrRemoved is the reason that a session is revoked with when its export
	// is taken out of the table.
	ErrRemoved = errors.New("the export was removed")
)

// An Export is a device that is offered under a name.
type Export struct {
	// Name is what clients ask for: valid UTF-8 without NUL, 1 to MaxNameLen
	// bytes.
	Name string
	// Description is shown to people who list the exports. It may be empty.
	Description string
	Device      block.Device
	// MaxSessions is how many connections may be attached at once. 0 is no
	// limit of the export's own.
	MaxSessions int
	// Listed reports whether the export is named now to clients that list the
	// exports: not while its device would refuse them. nil is always. It must
	// not block.
	Listed func() bool
}

func (e Export) validate() error {
	if e.Name == "" {
		return errors.New("target: an export needs a name")
	}
	for what, s := range map[string]string{"name": e.Name, "description": e.Description} {
		if len(s) > MaxNameLen {
			return fmt.Errorf("target: the %s of an export has %d bytes, at most %d are allowed", what, len(s), MaxNameLen)
		}
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return fmt.Errorf("target: the %s of an export, %q, is not valid UTF-8 or contains NUL", what, s)
		}
	}
	if e.Device == nil {
		return fmt.Errorf("target: export %q has no device", e.Name)
	}
	if e.MaxSessions < 0 {
		return fmt.Errorf("target: export %q: %d sessions at most makes no sense, use 0 for no limit", e.Name, e.MaxSessions)
	}
	return nil
}
