package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

const (
	volumeSize = 8 << 20
	cellSize   = 512 // in which writes are told apart
	cells      = volumeSize / cellSize
)

// writes are the numbered writes of one run, which its seed draws: the n-th one
// writes n into every word of its range.
type writes struct {
	rng  *rand.Rand
	all  []span
	now  [cells]uint32 // number of the write that each cell is of
	sums []uint64      // of the image after the first so many writes
}

// A span is the cells from first on that one write covers.
type span struct{ first, count int }

func newWrites(seed uint64) *writes {
	return &writes{rng: rand.New(rand.NewPCG(seed, 1)), sums: []uint64{0}}
}

// last is the number of the newest write.
func (w *writes) last() int { return len(w.all) }

// next draws a write: its offset and bytes.
func (w *writes) next() (off int64, p []byte) {
	s := span{count: 1 + w.rng.IntN(64)}
	if w.rng.IntN(40) == 0 { // of several records
		s.count = 3000
	}
	s.first = w.rng.IntN(cells - s.count + 1)
	w.all = append(w.all, s)
	n, sum := uint32(len(w.all)), w.sums[len(w.sums)-1]
	p = make([]byte, s.count*cellSize)
	for i := range s.count {
		at := s.first + i
		sum += cellSum(at, n) - cellSum(at, w.now[at])
		w.now[at] = n
		for word := 0; word < cellSize; word += 8 {
			binary.LittleEndian.PutUint64(p[i*cellSize+word:], wordOf(n, at, word))
		}
	}
	w.sums = append(w.sums, sum)
	return int64(s.first) * cellSize, p
}

func wordOf(n uint32, cell, word int) uint64 { return uint64(n)<<32 | uint64(cell)<<9 | uint64(word) }

// cellSum is what a cell adds to its image's sum.
func cellSum(cell int, n uint32) uint64 {
	if n == 0 {
		return 0
	}
	x := (uint64(cell)<<32 | uint64(n)) * 0x9e3779b97f4a7c15
	x = (x ^ x>>31) * 0xbf58476d1ce4e5b9
	return x ^ x>>29
}

// prefix is after how many writes p is the image: at least so many.
func (w *writes) prefix(p []byte, atLeast int) (int, error) {
	sum, newest := uint64(0), uint32(0)
	for i := range cells {
		c := p[i*cellSize:][:cellSize]
		n := uint32(binary.LittleEndian.Uint64(c) >> 32)
		for word := 0; word < cellSize; word += 8 {
			want := uint64(0)
			if n != 0 {
				want = wordOf(n, i, word)
			}
			if binary.LittleEndian.Uint64(c[word:]) != want {
				return 0, fmt.Errorf("the %d bytes at %d are not of one write; they begin like write %d", cellSize, i*cellSize, n)
			}
		}
		sum += cellSum(i, n)
		newest = max(newest, n)
	}
	k := slices.Index(w.sums, sum)
	switch {
	case k < 0:
		return 0, fmt.Errorf("the image is none of those after the first k of %d writes; the newest in it is %d", w.last(), newest)
	case k < atLeast:
		return 0, fmt.Errorf("the image is as after the first %d writes", k)
	}
	return k, nil
}
