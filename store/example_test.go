package store_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/store"
)

// A store is made once and opened by whoever keeps a replica on it.
func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "data")
	if err := store.CreateFile(path, 1<<30, store.FileOptions{}); err != nil {
		log.Fatal(err)
	}
	s, err := store.OpenFile(path, store.FileOptions{Size: 1 << 30})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	if err := s.WritevAt([][]byte{[]byte("in one "), []byte("call")}, 4096); err != nil {
		log.Fatal(err)
	}
	if err := s.Sync(); err != nil {
		log.Fatal(err)
	}
	p := make([]byte, 11)
	if _, err := s.ReadAt(p, 4096); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", p)

	_, err = s.ReadAt(p, 1<<30)
	fmt.Println(errors.Is(err, block.ErrOutOfRange))
	// Output:
	// in one call
	// true
}

// Extents finds what need not be read, because it reads as zeroes.
func ExampleMemory_Extents() {
	s := store.NewMemory(1 << 20)
	defer s.Close()
	if _, err := s.WriteAt([]byte("x"), 512<<10); err != nil {
		log.Fatal(err)
	}
	err := s.Extents(0, s.Size(), func(off, n int64, data bool) error {
		fmt.Println(off, n, data)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// 0 524288 false
	// 524288 65536 true
	// 589824 458752 false
}
