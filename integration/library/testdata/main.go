// A program that embeds a volume, knows nothing else of Lockstep, and has neither its
// daemon nor any of its servers in it.
package main

import (
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

const size = 64 << 20

func main() {
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(dir string) error {
	ctx := context.Background()
	fsys, err := disk.OS(dir)
	if err != nil {
		return err
	}
	if err := mirror.Create(fsys, mirror.CreateOptions{Node: "here", Volume: "data", Size: size, JournalSize: 64 << 20}); err != nil {
		return err
	}
	file := filepath.Join(dir, "bytes")
	if err := store.CreateFile(file, size, store.FileOptions{}); err != nil {
		return err
	}
	for _, text := range []string{"first", "second"} { // the second time it recovers
		if err := session(ctx, fsys, file, text); err != nil {
			return err
		}
	}
	return nil
}

func session(ctx context.Context, fsys disk.FS, file, text string) error {
	bytes, err := store.OpenFile(file, store.FileOptions{})
	if err != nil {
		return err
	}
	v, err := mirror.Open(mirror.Options{Node: "here", Volume: "data", FS: fsys, Store: bytes})
	if err != nil {
		return err
	}
	defer v.Close(ctx)
	if err := v.Promote(ctx, mirror.PromoteOptions{}); err != nil {
		return err
	}
	c, err := block.Open(ctx, v, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	p := make([]byte, 4096)
	if _, err := c.ReadAt(p, 0); err != nil {
		return err
	}
	fmt.Printf("was %q\n", trim(p))
	copy(p, text)
	if _, err := c.WriteAt(p, 0); err != nil {
		return err
	}
	return c.Flush()
}

func trim(p []byte) string {
	for i, b := range p {
		if b == 0 {
			return string(p[:i])
		}
	}
	return string(p)
}
