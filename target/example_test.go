package target_test

import (
	"context"
	"fmt"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
)

func Example() {
	var exports target.Exports
	exports.Add(target.Export{Name: "disk", Description: "scratch", Device: memory.Sized(1 << 20)})
	exports.SetDefault("disk")

	session, err := exports.Open(context.Background(), "", func(reason error) { fmt.Println("revoked:", reason) })
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(session.Export.Name, session.Info.Size, exports.Sessions("disk"))
	session.Close()
	fmt.Println(exports.Remove(context.Background(), "disk"))
	// Output:
	// disk 1048576 1
	// <nil>
}
