package node_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/lockstep-storage/lockstep/node"
)

// A daemon and its client in one process.
func Example() {
	dir, err := os.MkdirTemp("", "lockstep-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg, err := node.ParseConfig([]byte(`
node: alpha
data-dir: `+dir+`
nbd: {listen: "127.0.0.1:0"}
peer: {listen: "127.0.0.1:0"}
`), "")
	if err != nil {
		log.Fatal(err)
	}
	daemon, err := node.Start(node.Options{Config: cfg, Version: "1.0"})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	defer daemon.Stop(ctx)

	client := node.NewClient(cfg.Admin)
	defer client.Close()
	made, err := client.Create(ctx, node.CreateRequest{Name: "data", Size: 1 << 20, JournalSize: 64 << 20})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(made.Name, made.Size, "bytes")
	_, err = client.Create(ctx, node.CreateRequest{Name: "data", Size: 1 << 20})
	fmt.Println(err)
	// Output:
	// data 1048576 bytes
	// volume "data" exists on node "alpha" already: delete it first, or choose another name
}
