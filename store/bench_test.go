package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
)

// BenchmarkFile writes and reads a file of 256 MiB at random places, through the
// page cache and past it. Writes are synced every 4 MiB, and at the end: what is
// only in the page cache is not written yet.
func BenchmarkFile(b *testing.B) {
	const size = 256 << 20
	for _, direct := range []bool{false, true} {
		b.Run(map[bool]string{false: "buffered", true: "direct"}[direct], func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "data")
			if err := CreateFile(path, size, FileOptions{Preallocate: true}); err != nil {
				b.Fatal(err)
			}
			s, err := OpenFile(path, FileOptions{Direct: direct})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			for off := int64(0); off < size; off += 1 << 20 { // extents that were written once
				if _, err := s.WriteAt(make([]byte, 1<<20), off); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Sync(); err != nil {
				b.Fatal(err)
			}
			for _, n := range []int64{4 << 10, 64 << 10, 1 << 20} {
				for _, skew := range []int64{0, 100} {
					b.Run(fmt.Sprintf("write/%dk+%d", n>>10, skew), func(b *testing.B) {
						each(b, size, n, skew, func(p []byte, off int64, i int64) error {
							_, err := s.WriteAt(p, off)
							if err == nil && (i+1)%max(1, 4<<20/n) == 0 {
								err = s.Sync()
							}
							return err
						})
						if err := s.Sync(); err != nil {
							b.Fatal(err)
						}
					})
					b.Run(fmt.Sprintf("read/%dk+%d", n>>10, skew), func(b *testing.B) {
						each(b, size, n, skew, func(p []byte, off int64, _ int64) error {
							_, err := s.ReadAt(p, off)
							return err
						})
					})
				}
			}
		})
	}
}

// each calls do with a pooled buffer of n bytes, and with offsets that are skew
// bytes past multiples of n.
func each(b *testing.B, size, n, skew int64, do func(p []byte, off, i int64) error) {
	r := rand.New(rand.NewPCG(1, 2))
	buf := block.Get(int(n))
	defer buf.Unref()
	b.SetBytes(n)
	i := int64(0)
	for b.Loop() {
		if err := do(buf.Bytes(), r.Int64N(size/n-1)*n+skew, i); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
