package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/store"
)

const exampleSize = 64 << 20

// A volume on one node: make a replica in a directory, open it, write, flush,
// read.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "lockstep-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := createReplica(dir, "alpha"); err != nil {
		log.Fatal(err)
	}
	vol, err := openReplica(dir, mirror.Options{Node: "alpha", Volume: "data"})
	if err != nil {
		log.Fatal(err)
	}
	if err := vol.Promote(ctx, mirror.PromoteOptions{}); err != nil {
		log.Fatal(err)
	}
	c, err := block.Open(ctx, vol, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := write(c, 4096, "hello"); err != nil {
		log.Fatal(err)
	}
	text, err := read(c, 4096)
	if err != nil {
		log.Fatal(err)
	}
	st := vol.Status()
	fmt.Println(st.Role, st.Disk, st.InSync[0].Node)
	// The volume's first record began its first generation; ours is the second.
	fmt.Printf("%q, durable through LSN %d\n", text, st.Stable)
	c.Close()
	if err := vol.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// Primary UpToDate alpha
	// "hello", durable through LSN 2
}

// createReplica makes a node's empty replica: superblock, journal and bitmaps
// beside a file for the volume's bytes.
func createReplica(dir, node string) error {
	fsys, err := disk.OS(dir)
	if err != nil {
		return err
	}
	err = mirror.Create(fsys, mirror.CreateOptions{
		Node: node, Volume: "data", Size: exampleSize, JournalSize: 64 << 20,
	})
	if err != nil {
		return err
	}
	return store.CreateFile(filepath.Join(dir, "bytes"), exampleSize, store.FileOptions{})
}

// openReplica opens what createReplica made.
func openReplica(dir string, o mirror.Options) (*mirror.Volume, error) {
	fsys, err := disk.OS(dir)
	if err != nil {
		return nil, err
	}
	bytes, err := store.OpenFile(filepath.Join(dir, "bytes"), store.FileOptions{})
	if err != nil {
		return nil, err
	}
	o.FS, o.Store = fsys, bytes
	return mirror.Open(o)
}

// write puts text into a block of its own, and returns once a flush has made it
// durable on every in-sync replica.
func write(c *block.Client, off int64, text string) error {
	p := make([]byte, 4096)
	copy(p, text)
	if _, err := c.WriteAt(p, off); err != nil {
		return err
	}
	return c.Flush()
}

func read(c *block.Client, off int64) (string, error) {
	p := make([]byte, 4096)
	_, err := c.ReadAt(p, off)
	return string(bytes.TrimRight(p, "\x00")), err
}
