package mirror

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/disk"
)

var volumeName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

const (
	intentName   = "write-intent.bitmap"
	bitmapPrefix = "out-of-sync."
	bitmapSuffix = ".bitmap"
	brokenSuffix = ".broken"
)

// Create makes a new, empty replica in fs: its superblock last, so that what a
// crash leaves half made is no replica. It fails with fs.ErrExist if there is
// one already. The store, all zeroes, is the caller's to make.
//
// Creating a replica declares it new: it may be filled from the first peer with
// a history that it meets (replication.md 5).
func Create(dir disk.FS, o CreateOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	incarnation, err := NewIncarnation(nil)
	if err != nil {
		return err
	}
	if err := createJournal(dir, o.Journal, o); err != nil {
		return fmt.Errorf("create the journal: %w", err)
	}
	intent, err := bitmap.CreateIntent(dir, intentName, o.Size, 0)
	if err != nil {
		return fmt.Errorf("create the write-intent bitmap: %w", err)
	}
	if err := intent.Close(); err != nil {
		return fmt.Errorf("create the write-intent bitmap: %w", err)
	}
	err = CreateSuperblock(dir, Superblock{
		Name: o.Volume, Node: o.Node, Size: o.Size,
		WriteCache: !o.NoWriteCache, Protocol: o.Protocol,
		Incarnation: incarnation, BootID: boot, Disk: Consistent,
	})
	if err != nil {
		return fmt.Errorf("create the superblock: %w", err)
	}
	return nil
}

func (o *CreateOptions) validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if !volumeName.MatchString(o.Volume) {
		bad("volume name %q: 1 to 64 of a-z A-Z 0-9 . _ - are wanted", o.Volume)
	}
	if !volumeName.MatchString(o.Node) {
		bad("node name %q: 1 to 64 of a-z A-Z 0-9 . _ - are wanted", o.Node)
	}
	if o.Size <= 0 || o.Size%bitmap.BlockSize != 0 {
		bad("size of %d bytes: a multiple of %d is wanted", o.Size, bitmap.BlockSize)
	}
	if o.Size > MaxSize {
		bad("size of %d bytes: the limit is %d", o.Size, int64(MaxSize))
	}
	return errors.Join(errs...)
}

// MaxSize is the largest volume, bytes: 1 PiB.
const MaxSize = 1 << 50

// bootID tells one run of the host from another.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the kernel's boot id, which tells whether memory was lost: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
