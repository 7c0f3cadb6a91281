package storetest

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Store is what package mirror asks of a store. Every method may be called
// concurrently.
type Store interface {
	ReadAt(p []byte, off int64) (int, error)
	TryReadAt(p []byte, off int64) (bool, error)
	WriteAt(p []byte, off int64) (int, error)
	WritevAt(bufs [][]byte, off int64) error
	Zero(off, n int64, punch bool) error
	WriteBack(off, n int64) error
	Sync() error
	Size() int64
	Extents(off, n int64, report func(off, n int64, data bool) error) error
	Close() error
}

// Run runs the suite. open returns a new store that was never written, of 1 to
// 64 MiB and a multiple of 4096 bytes; Run closes it.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s Store)
	}{
		{"NeverWrittenReadsAsZeroes", neverWritten},
		{"WhatWasWrittenIsRead", readBack},
		{"Vectors", vectors},
		{"Zero", zero},
		{"Bounds", bounds},
		{"NothingOfACallerIsKept", callersMemory},
		{"Extents", extents},
		{"ExtentsEndWithAnError", extentsError},
		{"Concurrent", concurrent},
		{"Model", random},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			if n := s.Size(); n < 1<<20 || n > 64<<20 || n%4096 != 0 {
				t.Fatalf("a store of %d bytes; the suite wants 1 to 64 MiB, a multiple of 4096", n)
			}
			test.run(t, s)
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// random source of a test, with the seed that LOCKSTEP_SEED gives or a new one.
func newRand(t *testing.T) *rand.Rand {
	seed, err := strconv.ParseUint(os.Getenv("LOCKSTEP_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("LOCKSTEP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// fill gives p random bytes, none of them zero, so that a hole shows.
func fill(r *rand.Rand, p []byte) {
	const odd = 0x0101010101010101
	var word [8]byte
	for len(p) > 0 {
		binary.LittleEndian.PutUint64(word[:], r.Uint64()|odd)
		p = p[copy(p, word[:]):]
	}
}
