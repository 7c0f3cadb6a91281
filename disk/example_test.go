package disk_test

import (
	"fmt"
	"os"

	"github.com/lockstep-storage/lockstep/disk"
)

// A file is durable once it was synced, and its name once its directory was.
func Example() {
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	d, err := disk.OS(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := d.Create("file")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	if err := f.WritevAt([][]byte{[]byte("one, "), []byte("two")}, 0); err != nil {
		fmt.Println(err)
		return
	}
	if err := f.Datasync(); err != nil {
		fmt.Println(err)
		return
	}
	if err := d.SyncDir(); err != nil {
		fmt.Println(err)
		return
	}
	p := make([]byte, 8)
	_, err = f.ReadAt(p, 0)
	fmt.Println(string(p), err)
	// Output: one, two <nil>
}
