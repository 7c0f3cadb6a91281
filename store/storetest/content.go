package storetest

import (
	"bytes"
	"fmt"
	"testing"
)

// holds reads as many bytes as want has, by TryReadAt as well where that
// answers, and compares.
func holds(s Store, off int64, want []byte) error {
	got := bytes.Repeat([]byte{0xa5}, len(want))
	if n, err := s.ReadAt(got, off); n != len(want) || err != nil {
		return fmt.Errorf("ReadAt(%d bytes, %d) = %d, %v", len(want), off, n, err)
	}
	if !bytes.Equal(got, want) {
		return differ("ReadAt", off, got, want)
	}
	got = bytes.Repeat([]byte{0x5a}, len(want))
	if done, err := s.TryReadAt(got, off); err != nil {
		return fmt.Errorf("TryReadAt(%d bytes, %d): %v", len(want), off, err)
	} else if done && !bytes.Equal(got, want) {
		return differ("TryReadAt", off, got, want)
	}
	return nil
}

func differ(op string, off int64, got, want []byte) error {
	i := 0
	for got[i] == want[i] {
		i++
	}
	return fmt.Errorf("%s(%d bytes, %d): byte %d is %#x, not %#x", op, len(want), off, off+int64(i), got[i], want[i])
}

func mustWrite(t *testing.T, s Store, off int64, p []byte) {
	t.Helper()
	if n, err := s.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

func mustHold(t *testing.T, s Store, off int64, want []byte) {
	t.Helper()
	if err := holds(s, off, want); err != nil {
		t.Fatal(err)
	}
}

func neverWritten(t *testing.T, s Store) {
	mustHold(t, s, 0, make([]byte, s.Size()))
	if err := s.Sync(); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	mustHold(t, s, s.Size()-1, []byte{0})
}

func readBack(t *testing.T, s Store) {
	r := newRand(t)
	model := make([]byte, s.Size())
	for _, at := range []struct{ off, n int64 }{
		{0, 1}, {4095, 2}, {65535, 2}, {1 << 16, 1 << 16}, {100_000, 300_001}, {s.Size() - 4096, 4096}, {s.Size() - 1, 1},
	} {
		p := model[at.off : at.off+at.n]
		fill(r, p)
		mustWrite(t, s, at.off, p)
	}
	mustHold(t, s, 0, model)
	if err := s.Sync(); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	mustHold(t, s, 0, model)
}

func vectors(t *testing.T, s Store) {
	r := newRand(t)
	model := make([]byte, s.Size())
	many := make([]int, 2500) // more than one system call takes
	for i := range many {
		many[i] = 7
	}
	off := int64(3)
	for _, lengths := range [][]int{{}, {0}, {1}, {4096}, {4096, 0, 1, 65536, 0}, many} {
		var bufs [][]byte
		at := off
		for _, n := range lengths {
			p := model[at : at+int64(n)]
			fill(r, p)
			bufs = append(bufs, p)
			at += int64(n)
		}
		if err := s.WritevAt(bufs, off); err != nil {
			t.Fatalf("WritevAt(%d buffers, %d): %v", len(bufs), off, err)
		}
		off = at + 5
	}
	mustHold(t, s, 0, model)
}

func zero(t *testing.T, s Store) {
	r := newRand(t)
	model := make([]byte, s.Size())
	fill(r, model)
	mustWrite(t, s, 0, model)
	for _, punch := range []bool{false, true} {
		for _, at := range []struct{ off, n int64 }{
			{0, 0}, {17, 1}, {4096, 4096}, {8191, 4098}, {100_000, 300_000}, {s.Size() - 70_000, 70_000},
		} {
			fill(r, model[at.off:at.off+at.n])
			mustWrite(t, s, at.off, model[at.off:at.off+at.n])
			if err := s.Zero(at.off, at.n, punch); err != nil {
				t.Fatalf("Zero(%d, %d, %v): %v", at.off, at.n, punch, err)
			}
			clear(model[at.off : at.off+at.n])
			mustHold(t, s, 0, model)
		}
	}
	if err := s.Zero(0, s.Size(), true); err != nil {
		t.Fatalf("Zero of everything: %v", err)
	}
	mustHold(t, s, 0, make([]byte, s.Size()))
}

func callersMemory(t *testing.T, s Store) {
	p := []byte("as it was when it was written")
	want := bytes.Clone(p)
	mustWrite(t, s, 100, p)
	bufs := [][]byte{p[:10], p[10:]}
	if err := s.WritevAt(bufs, 5000); err != nil {
		t.Fatal(err)
	}
	if len(bufs[0]) != 10 || len(bufs[1]) != len(p)-10 || !bytes.Equal(p, want) {
		t.Fatal("WritevAt changed its buffers")
	}
	clear(p)
	mustHold(t, s, 100, want)
	mustHold(t, s, 5000, want)
}
