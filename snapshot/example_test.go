package snapshot_test

import (
	"fmt"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/snapshot"
	"github.com/lockstep-storage/lockstep/store"
)

// What is preserved before it is overwritten can be read, and written back.
func Example() {
	st := store.NewMemory(1 << 20)
	write := func(text string) {
		if _, err := st.WriteAt([]byte(text), 0); err != nil {
			fmt.Println(err)
		}
	}
	write("before")
	s, err := snapshot.Create(fakedisk.New(1), "undo", snapshot.Info{ID: snapshot.ID{1}, Size: st.Size(), Created: time.Now()}, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	if err := s.Preserve(st, []snapshot.Range{{Off: 0, N: 6}}); err != nil {
		fmt.Println(err)
		return
	}
	write("after!")
	p := make([]byte, 6)
	fmt.Println(s.ReadAt(st, p, 0), string(p))
	fmt.Println(s.Restore(st))
	_, err = st.ReadAt(p, 0)
	fmt.Println(err, string(p))
	// Output:
	// <nil> before
	// <nil>
	// <nil> before
}
