package fakedisk_test

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// What a power loss leaves is what was synced, and as much of the rest as the
// policy says.
func ExampleFS_CrashClone() {
	d := fakedisk.New(42)
	f, err := d.Create("greeting")
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = f.WritevAt([][]byte{[]byte("hello")}, 0)
	_ = f.Datasync()
	_ = d.SyncDir()
	_ = f.WritevAt([][]byte{[]byte("HELLO")}, 0)

	for _, policy := range []fakedisk.Policy{fakedisk.LoseAll, fakedisk.KeepAll} {
		g, _ := d.CrashClone(policy).Open("greeting")
		p := make([]byte, 5)
		_, _ = g.ReadAt(p, 0)
		fmt.Println(string(p))
	}
	// Output:
	// hello
	// HELLO
}
