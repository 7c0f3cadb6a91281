package interop

import (
	"errors"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// badSector is the byte that cannot be read in TestRepliesInChunks.
const badSector = 32 << 20

// Replies with holes and with errors that have an offset, as libnbd takes them.
// Every read of the device waits for a disk, and one fails.
func TestRepliesInChunks(t *testing.T) {
	harness.NeedTools(t, python)
	dev := memory.New(memory.Options{
		Info:      block.Info{Size: exportSize, SectorSize: 512, WriteCache: true},
		ColdReads: true,
		Fault: func(a memory.Access) error {
			if a.Read && a.Off <= badSector && a.Off+a.Len > badSector {
				return errors.New("the medium is scratched")
			}
			return nil
		},
	})
	runLibnbd(t, serve(t, "unix", socketPath(t), dev), "testdata/chunks.py")
}
