package storetest

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
)

// random does many things of every kind, and compares with a byte array.
func random(t *testing.T, s Store) {
	r := newRand(t)
	model := make([]byte, s.Size())
	for range 400 {
		step(t, s, r, model, 0, s.Size())
	}
	mustHold(t, s, 0, model)
}

// step does one random thing to the bytes off … end-1 of s, and to the model.
func step(t *testing.T, s Store, r *rand.Rand, model []byte, off, end int64) {
	n := r.Int64N(min(end-off, 1<<(1+r.IntN(18)))) // small ones as often as large ones
	off += r.Int64N(end - off - n)
	if r.IntN(2) == 0 { // on blocks, where punching and the page cache work
		off, n = (off+4095)&^4095, n&^4095
		n = max(0, min(n, end-off))
	}
	p := model[off : off+n]
	switch r.IntN(7) {
	case 0, 1:
		fill(r, p)
		if k, err := s.WriteAt(p, off); k != len(p) || err != nil {
			t.Errorf("WriteAt(%d bytes, %d) = %d, %v", n, off, k, err)
		}
	case 2:
		fill(r, p)
		cut := r.Int64N(n + 1)
		if err := s.WritevAt([][]byte{p[:cut], p[cut:]}, off); err != nil {
			t.Errorf("WritevAt(%d bytes, %d): %v", n, off, err)
		}
	case 3:
		clear(p)
		if err := s.Zero(off, n, r.IntN(2) == 0); err != nil {
			t.Errorf("Zero(%d, %d): %v", off, n, err)
		}
	case 4:
		if err := s.Sync(); err != nil {
			t.Errorf("Sync: %v", err)
		}
	case 5:
		if err := s.WriteBack(off, n); err != nil {
			t.Errorf("WriteBack(%d, %d): %v", off, n, err)
		}
	case 6:
		if err := errors.Join(holds(s, off, p), checkExtents(s, off, n)); err != nil {
			t.Error(err)
		}
	}
}

// concurrent: neighbours that share blocks and chunks do not disturb each other.
func concurrent(t *testing.T, s Store) {
	r := newRand(t)
	const workers = 8
	model := make([]byte, s.Size())
	part := s.Size()/workers - 1 // uneven on purpose
	var wg sync.WaitGroup
	for w := range int64(workers) {
		own := rand.New(rand.NewPCG(r.Uint64(), uint64(w)))
		wg.Go(func() {
			for range 60 {
				step(t, s, own, model, w*part, (w+1)*part)
			}
		})
	}
	wg.Wait()
	mustHold(t, s, 0, model)
}
