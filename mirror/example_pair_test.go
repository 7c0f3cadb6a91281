package mirror_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/mirror"
)

// A volume on two nodes: beta is away while alpha writes, comes back, catches
// up from alpha's journal, and takes over.
func Example_twoNodes() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "lockstep-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// Of two nodes, the one whose name comes first dials.
	toBeta, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer toBeta.Close()
	options := map[string]mirror.Options{
		"alpha": {Node: "alpha", Volume: "data", Peers: []string{"beta"}, Dialer: to{toBeta}},
		"beta":  {Node: "beta", Volume: "data", Peers: []string{"alpha"}, Dialer: to{}},
	}
	open := func(node string) *mirror.Volume {
		vol, err := openReplica(filepath.Join(dir, node), options[node])
		if err != nil {
			log.Fatal(err)
		}
		return vol
	}
	for node := range options {
		if err := createReplica(filepath.Join(dir, node), node); err != nil {
			log.Fatal(err)
		}
	}

	alpha := open("alpha")
	defer alpha.Close(ctx)
	// Nobody has seen beta yet, so alpha is promoted on our word alone.
	if err := alpha.Promote(ctx, mirror.PromoteOptions{Force: true}); err != nil {
		log.Fatal(err)
	}
	c, err := block.Open(ctx, alpha, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := write(c, 0, "written while beta was away"); err != nil {
		log.Fatal(err)
	}

	beta := open("beta")
	defer beta.Close(ctx)
	go func() {
		for {
			conn, err := toBeta.Accept()
			if err != nil {
				return
			}
			if pre, version, err := mirror.ReadPreamble(conn); err == nil {
				beta.Accept(conn, pre, version)
			}
		}
	}()
	for len(alpha.Status().InSync) < 2 {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("in sync:", alpha.Status().InSync[0].Node, alpha.Status().InSync[1].Node)

	if err := alpha.Demote(ctx); err != nil {
		log.Fatal(err)
	}
	for beta.Promote(ctx, mirror.PromoteOptions{}) != nil { // until they have met again
		time.Sleep(10 * time.Millisecond)
	}
	if c, err = block.Open(ctx, beta, nil); err != nil {
		log.Fatal(err)
	}
	text, err := read(c, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("beta is %v and reads %q\n", beta.Status().Role, text)
	// Output:
	// in sync: alpha beta
	// beta is Primary and reads "written while beta was away"
}

// to dials the one other node.
type to struct{ net.Listener }

// Dial implements mirror.Dialer.
func (t to) Dial(ctx context.Context, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", t.Addr().String())
}
