package scsi_test

import (
	"context"
	"fmt"

	"github.com/lockstep-storage/lockstep/target/iscsi/scsi"
	"github.com/lockstep-storage/lockstep/target/memory"
)

type done chan *scsi.Command

func (d done) CommandDone(c *scsi.Command) { d <- c }

// A transport describes each CDB, collects the data that it asks for, and has the
// nexus execute it.
func Example() {
	unit, err := scsi.NewUnit(scsi.Config{Device: memory.Sized(1 << 30), VolumeID: [16]byte{1}})
	if err != nil {
		fmt.Println(err)
		return
	}
	port := scsi.Port{Name: "iqn.2026-01.example:disk,t,0x0001", RelativeID: 1, Group: 1}
	nexus, err := unit.Attach(context.Background(), "iqn.2026-01.example:host,i,0x00023d000001", port, scsi.Events{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() {
		nexus.Close()
		nexus.Wait()
	}()

	ended := make(done, 1)
	for _, cdb := range [][16]byte{
		{0x00},       // TEST UNIT READY, which tells of the power on
		{0x25},       // READ CAPACITY(10)
		{0x12, 4: 8}, // INQUIRY, 8 bytes of it
	} {
		transfer := unit.Describe(&cdb)
		nexus.Execute([]*scsi.Command{{CDB: cdb, Expected: int64(transfer.Length), Done: ended}})
		c := <-ended
		fmt.Printf("status %02xh, %d bytes of sense", c.Status, len(c.Sense()))
		if c.In != nil {
			fmt.Printf(", data %x", c.In.Bytes())
			c.In.Unref()
		}
		fmt.Println()
	}
	// Output:
	// status 02h, 18 bytes of sense
	// status 00h, 0 bytes of sense, data 001fffff00000200
	// status 00h, 0 bytes of sense, data 000006125b101002
}
