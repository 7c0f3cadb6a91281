package mirror_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/mirror"
)

// A snapshot is the volume as it was: it is read beside the volume, while that goes on
// being written, and the volume can go back to it.
func ExampleVolume_CreateSnapshot() {
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
	defer vol.Close(ctx)
	if err := vol.Promote(ctx, mirror.PromoteOptions{}); err != nil {
		log.Fatal(err)
	}
	put := func(text string) {
		c, err := block.Open(ctx, vol, nil)
		if err == nil {
			err = write(c, 0, text)
			c.Close()
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	get := func(d block.Device) string {
		c, err := block.Open(ctx, d, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		text, err := read(c, 0)
		if err != nil {
			log.Fatal(err)
		}
		return text
	}
	put("before")
	if _, err := vol.CreateSnapshot(ctx, "monday"); err != nil {
		log.Fatal(err)
	}
	put("after")
	image, err := vol.OpenSnapshot("monday") // a block.Device, to be exported
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the snapshot:", get(image))
	image.Close()
	fmt.Println("the volume:", get(vol))
	if _, err := vol.RollbackToSnapshot(ctx, "monday"); err != nil { // nobody is attached
		log.Fatal(err)
	}
	fmt.Println("the volume, rolled back:", get(vol))
	if err := vol.DeleteSnapshot("monday"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// the snapshot: before
	// the volume: after
	// the volume, rolled back: before
}
