package nbd_test

import (
	"context"
	"fmt"
	"net"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/memory"
	"github.com/lockstep-storage/lockstep/target/nbd"
	"github.com/lockstep-storage/lockstep/target/nbd/nbdclient"
)

// A server of one export, and a client that uses it.
func Example() {
	ctx := context.Background()
	var exports target.Exports
	exports.Add(target.Export{Name: "scratch", Device: memory.Sized(1 << 20)})
	server, err := nbd.NewServer(&exports, nbd.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go server.Serve(listener)
	defer server.Shutdown(ctx)

	client, err := nbdclient.Dial(ctx, "tcp", listener.Addr().String(), "scratch")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	block := make([]byte, 512)
	copy(block, "hello")
	client.WriteAt(block, 4096)
	fmt.Println(client.Flush())
	client.ReadAt(block, 4096)
	fmt.Printf("%s %d\n", block[:5], client.Info().Size)
	// Output:
	// <nil>
	// hello 1048576
}
