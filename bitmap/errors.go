package bitmap

import "errors"

// Errors of Open and OpenIntent. Those that wrap them say which file and what
// was found. Nothing was changed.
var (
	// ErrDamaged: neither copy of the header can be read, so that nothing is
	// known of what the bits are relative to. The owner makes a new bitmap and
	// presumes the worst.
	ErrDamaged = errors.New("bitmap is damaged")
	// ErrVersion: a newer Lockstep wrote the file.
	ErrVersion = errors.New("bitmap has an unknown format version")
	// ErrMismatch: the file is a good bitmap of something else: another kind,
	// volume size or region size.
	ErrMismatch = errors.New("bitmap is that of something else")
)

// Errors of Flush and Reset.
var (
	// ErrFailed: a write or a sync failed, now or earlier, which is final
	// (invariant 9): what the file holds is not known any more. In memory the
	// bitmap stays as it is.
	ErrFailed = errors.New("bitmap has failed")
	ErrClosed = errors.New("bitmap is closed")
)
