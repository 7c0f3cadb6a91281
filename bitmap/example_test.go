package bitmap_test

import (
	"fmt"
	"log"
	"os"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/disk"
)

// A peer is away: what it lacks is noted, durably, before the journal lets go
// of it; when it is back, it gets those blocks, and the bitmap starts anew.
func Example() {
	path, err := os.MkdirTemp("", "bitmap")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	dir, err := disk.OS(path)
	if err != nil {
		log.Fatal(err)
	}
	m, err := bitmap.Create(dir, "peer.bitmap", 1<<30, bitmap.Base{LSN: 100})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	m.Set(5000, 10)       // record 101
	m.Set(1<<20, 128<<10) // record 102
	if err := m.Flush(); err != nil {
		log.Fatal(err) // and the journal keeps its records
	}

	todo := m.Snapshot()
	for off, n, ok := todo.Next(0); ok; off, n, ok = todo.Next(off + n) {
		fmt.Printf("send %d bytes at %d\n", n, off)
	}

	if err := m.Reset(bitmap.Base{LSN: 102}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Count(), "bytes differ from LSN", m.Base().LSN)
	// Output:
	// send 4096 bytes at 4096
	// send 131072 bytes at 1048576
	// 0 bytes differ from LSN 102
}

// On the path of a write a region that is marked costs one look.
func ExampleIntent() {
	path, err := os.MkdirTemp("", "bitmap")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	dir, err := disk.OS(path)
	if err != nil {
		log.Fatal(err)
	}
	in, err := bitmap.CreateIntent(dir, "write-intent.bitmap", 1<<30, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()

	for _, off := range []int64{20 << 20, 21 << 20} {
		if in.Need(off, 4096) {
			fmt.Println("mark and flush for", off)
			in.Mark(off, 4096)
			if err := in.Flush(); err != nil {
				log.Fatal(err)
			}
		}
	}
	for r := range in.Regions() {
		fmt.Println("in doubt: region", r)
	}

	in.ClearIdle() // begins to look which regions are written to
	in.ClearIdle() // none was; its owner knows that all is checkpointed
	if err := in.Flush(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// mark and flush for 20971520
	// in doubt: region 1
}
