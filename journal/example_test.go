package journal_test

import (
	"fmt"
	"hash/crc32"
	"os"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/journal"
)

// A record is sealed to its predecessor, appended, synced, and found again.
func Example() {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := run(dir); err != nil {
		fmt.Println(err)
	}
	// Output:
	// durable up to LSN 1
	// LSN 1: write "hello" at 4096
}

func run(dir string) error {
	fs, err := disk.OS(dir)
	if err != nil {
		return err
	}
	if err := journal.Create(fs, journal.Options{Size: 64 << 20}); err != nil {
		return err
	}
	j, state, err := journal.Open(fs, journal.Options{})
	if err != nil {
		return err
	}
	defer j.Close()

	payload := []byte("hello")
	r := &journal.Record{
		LSN: state.End + 1, Kind: journal.KindWrite, Flags: journal.FlagLast, Offset: 4096,
		Length: int64(len(payload)), Payload: payload, PayloadCRC: crc32.Checksum(payload, journal.Castagnoli),
	}
	r.Seal(state.EndCRC)
	if err := j.Append([]*journal.Record{r}, journal.Notes{}, false); err != nil {
		return err
	}
	durable, err := j.Sync()
	if err != nil {
		return err
	}
	fmt.Println("durable up to LSN", durable)

	reader, err := j.NewReader(j.First())
	if err != nil {
		return err
	}
	defer reader.Close()
	var rec journal.Record
	for {
		more, err := reader.Next(&rec)
		if err != nil || !more {
			return err
		}
		fmt.Printf("LSN %d: %v %q at %d\n", rec.LSN, rec.Kind, rec.Payload, rec.Offset)
		if rec.Buf != nil {
			rec.Buf.Unref()
		}
	}
}
