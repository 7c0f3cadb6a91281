package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/crashtest"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// imageOn opens what a crash left and judges it: the image is the one that was
// begun, the store is that too once it is restored, and no later power loss
// changes it.
func (s *scene) imageOn(left *fakedisk.FS) error {
	snap, err := Open(left, name, s.size, 0)
	if err != nil {
		return err
	}
	defer snap.Close()
	st, err := openStore(left, s.size)
	if err != nil {
		return err
	}
	p := make([]byte, s.size)
	if err := snap.ReadAt(st, p, 0); err != nil {
		return err
	}
	if err := s.compare("the image", p); err != nil {
		return err
	}
	// What Open found, the store may be overwritten on the strength of.
	again, err := Open(left.CrashClone(fakedisk.LoseAll), name, s.size, 0)
	if err != nil {
		return fmt.Errorf("after another crash: %w", err)
	}
	defer again.Close()
	if again.Preserved() != snap.Preserved() {
		return fmt.Errorf("%d bytes preserved, and after another crash %d", snap.Preserved(), again.Preserved())
	}
	if err := snap.Restore(st); err != nil {
		return err
	}
	after, err := openStore(left.CrashClone(fakedisk.LoseAll), s.size)
	if err != nil {
		return err
	}
	if _, err := after.ReadAt(p, 0); err != nil {
		return err
	}
	return s.compare("the restored store", p)
}

func (s *scene) compare(what string, p []byte) error {
	for off := int64(0); off < s.size; off += BlockSize {
		if !bytes.Equal(p[off:off+BlockSize], s.image[off:off+BlockSize]) {
			return fmt.Errorf("%s differs in block %d", what, off/BlockSize)
		}
	}
	return nil
}

// TestImageCrashStates: whatever is overwritten, and whatever a crash leaves, the
// image is the one that Create began.
func TestImageCrashStates(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: crashtest.Share(t, 0.05)}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		s, err := newScene(rng, 24, 0)
		if err != nil {
			return nil, err
		}
		return &crashtest.Workload{
			Disk: s.dir,
			Do: func() error {
				for range 25 {
					if err := s.overwrite(); err != nil {
						return err
					}
					if rng.IntN(6) == 0 {
						if err := s.reopen(0); err != nil {
							return err
						}
					}
				}
				return nil
			},
			Promised: func() uint64 { return 0 },
			Check:    func(left *fakedisk.FS, _ bool) error { return s.imageOn(left) },
			Close:    func() { s.snap.Close() },
		}, nil
	})
}

// TestRestoreCrashStates: a Restore that a crash cut short is repeated, and leaves
// the image.
func TestRestoreCrashStates(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: crashtest.Share(t, 0.02)}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		s, err := newScene(rng, 24, 0)
		for range 12 {
			if err == nil {
				err = s.overwrite()
			}
		}
		if err != nil {
			return nil, err
		}
		return &crashtest.Workload{
			Disk:     s.dir,
			Do:       func() error { return s.snap.Restore(s.store) },
			Promised: func() uint64 { return 0 },
			Check:    func(left *fakedisk.FS, _ bool) error { return s.imageOn(left) },
			Close:    func() { s.snap.Close() },
		}, nil
	})
}

// A crash at any moment of Create leaves the whole snapshot or none, and Create
// works again.
func TestCreateAcrossCrashes(t *testing.T) {
	dir := fakedisk.New(seeded(t).Uint64())
	n := 0
	dir.OnOp(func(fakedisk.Op, string) error {
		for k := range uint64(4) {
			n++
			left := dir.CrashClone([]fakedisk.Policy{fakedisk.LoseAll, fakedisk.KeepAll, fakedisk.KeepSome(seed), fakedisk.KeepSome(seed + 1)}[k])
			s, err := Open(left, name, 1<<20, 0)
			if errors.Is(err, fs.ErrNotExist) {
				s, err = Create(left, name, sampleInfo(1<<20), 0)
			}
			must(t, err)
			if s.Preserved() != 0 || s.Info().ID != sampleInfo(0).ID {
				t.Fatalf("%d bytes preserved of %v", s.Preserved(), s.Info())
			}
			must(t, s.Close())
		}
		return nil
	})
	_, err := Create(dir, name, sampleInfo(1<<20), 0)
	must(t, err)
	if n < 12 {
		t.Errorf("only %d crashes", n)
	}
}

// Invariant 9, a failed fsync is final: the k-th write or sync of the snapshot
// fails, for every k. Nothing is preserved any more, and the image is whole.
func TestFailedFsyncIsFinal(t *testing.T) {
	rng := seeded(t)
	script := rng.Uint64()
	for k := 0; ; k++ {
		s, err := newScene(rand.New(rand.NewPCG(script, 0)), 96, 0)
		must(t, err)
		left := k
		s.dir.OnOp(func(op fakedisk.Op, file string) error {
			if strings.HasPrefix(file, name) && (op == fakedisk.OpWrite || op == fakedisk.OpDatasync) {
				if left--; left == -1 {
					return syscall.EIO
				}
			}
			return nil
		})
		for step := 0; err == nil && step < 30; step++ {
			err = s.overwrite()
		}
		s.dir.OnOp(nil)
		if err == nil {
			if k < 10 {
				t.Fatalf("the script makes only %d changes", k)
			}
			return
		}
		if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("failure of change %d: %v", k, err)
		}
		if err := s.snap.Preserve(s.store, []Range{{0, s.size}}); !errors.Is(err, ErrFailed) {
			t.Fatalf("after the failure of change %d: %v", k, err)
		}
		s.mustBeWhole(t)
		for _, keep := range []fakedisk.Policy{fakedisk.LoseAll, fakedisk.KeepAll, fakedisk.KeepSome(rng.Uint64())} {
			must(t, s.imageOn(s.dir.CrashClone(keep)))
		}
		must(t, s.imageOn(s.dir.KillClone()))
		must(t, s.snap.Close())
	}
}
