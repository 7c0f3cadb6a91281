package bitmap

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/crashtest"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"pgregory.net/rapid"
)

const (
	regionSize = 64 << 10
	regions    = pageBits + 100 // a page, and one in part
	intentSize = regions*regionSize - 1000
)

func newTestIntent(t failer) (*fakedisk.FS, *Intent) {
	dir := fakedisk.New(seed)
	in, err := CreateIntent(dir, name, intentSize, regionSize)
	must(t, err)
	return dir, in
}

// TestIntentModel compares with a map, through crashes that lose all that was
// not flushed.
func TestIntentModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, in := newTestIntent(t)
		marked := map[int]bool{}
		busy := map[int]bool{}    // since the last ClearIdle
		flushed := map[int]bool{} // as of the last Flush
		onDisk := map[int]bool{}  // as far as is known: nothing after a crash
		draw := func() (off, n int64) {
			at := rapid.SampledFrom([]int64{0, pageBits * regionSize, intentSize - 1}).Draw(t, "near")
			off = at + rapid.Int64Range(-4*regionSize, 4*regionSize).Draw(t, "by")
			return off, rapid.Int64Range(-1, 5*regionSize).Draw(t, "n")
		}
		each := func(off, n int64, f func(r int)) {
			for r := range regions {
				from := int64(r) * regionSize
				if n > 0 && from < off+n && off < min(from+regionSize, intentSize) {
					f(r)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"Mark": func(t *rapid.T) {
				off, n := draw()
				changed := false
				each(off, n, func(r int) {
					changed = changed || !marked[r]
					marked[r], busy[r] = true, true
				})
				if got := in.Mark(off, n); got != changed {
					t.Fatalf("Mark(%d, %d) is %v", off, n, got)
				}
			},
			"Need": func(t *rapid.T) {
				off, n := draw()
				need := false
				each(off, n, func(r int) { need = need || !marked[r] || !onDisk[r] })
				if got := in.Need(off, n); got != need {
					t.Fatalf("Need(%d, %d) is %v", off, n, got)
				}
			},
			"ClearIdle": func(t *rapid.T) {
				in.ClearIdle()
				maps.DeleteFunc(marked, func(r int, _ bool) bool { return !busy[r] })
				busy = map[int]bool{}
			},
			"Flush": func(t *rapid.T) {
				must(t, in.Flush())
				flushed = maps.Clone(marked)
				onDisk = maps.Clone(marked)
			},
			"power loss": func(t *rapid.T) {
				dir = dir.Crash(fakedisk.LoseAll)
				var err error
				in, err = OpenIntent(dir, name, intentSize, 0)
				must(t, err)
				marked, onDisk, busy = maps.Clone(flushed), map[int]bool{}, map[int]bool{}
			},
			"": func(t *rapid.T) {
				var want []int
				for r := range marked {
					want = append(want, r)
				}
				slices.Sort(want)
				if got := slices.Collect(in.Regions()); !slices.Equal(got, want) {
					t.Fatalf("regions %v, the model has %v", got, want)
				}
				bytes := int64(0)
				for _, r := range want {
					bytes += min(regionSize, intentSize-int64(r)*regionSize)
				}
				if got := in.Count(); got != bytes {
					t.Fatalf("Count is %d, the model has %d", got, bytes)
				}
			},
		})
	})
}

// Invariant 1, WAL rule: a region that Need does not claim is marked after any
// crash, whatever is being flushed or cleared.
func TestWALRuleCrashStates(t *testing.T) {
	crashtest.Run(t, crashtest.Options{States: crashtest.Share(t, 0.1)}, func(rng *rand.Rand) (*crashtest.Workload, error) {
		dir := fakedisk.New(rng.Uint64())
		in, err := CreateIntent(dir, name, intentSize, regionSize)
		if err != nil {
			return nil, err
		}
		clear := func(odds int) {
			if rng.IntN(odds) == 0 {
				in.ClearIdle()
			}
		}
		return &crashtest.Workload{
			Disk: dir,
			Do: func() error {
				for range 60 {
					in.Mark(rng.Int64N(intentSize), rng.Int64N(100*regionSize))
					clear(3)
					if rng.IntN(2) == 0 {
						if err := in.Flush(); err != nil {
							return err
						}
					}
				}
				return nil
			},
			Meanwhile: func() {
				if rng.IntN(2) == 0 {
					in.Mark(rng.Int64N(intentSize), regionSize)
				}
				clear(4)
			},
			Promised: func() (sum uint64) {
				for w := range in.settled {
					sum = sum*31 + in.settled[w].Load()
				}
				return sum
			},
			Check: func(left *fakedisk.FS, killed bool) error {
				found, err := OpenIntent(left, name, intentSize, regionSize)
				if err != nil {
					return err
				}
				defer found.Close()
				if err := settledIn(in, found); err != nil {
					return err
				}
				if err := found.Flush(); err != nil {
					return err
				}
				// What is settled after a restart, no power loss takes away.
				again, err := OpenIntent(left.CrashClone(fakedisk.LoseAll), name, intentSize, regionSize)
				if err != nil {
					return err
				}
				defer again.Close()
				return settledIn(found, again)
			},
			Close: func() { in.Close() },
		}, nil
	})
}

// settledIn says which region is settled in one bitmap and not marked in the
// other, which a crash left of it.
func settledIn(in, left *Intent) error {
	for w := range in.settled {
		if settled := in.settled[w].Load(); settled&^left.marked[w] != 0 {
			return fmt.Errorf("regions from %d on: settled %x, after a crash %x", w*64, settled, left.marked[w])
		}
	}
	return nil
}

func TestIntentFailsForGood(t *testing.T) {
	for _, op := range []fakedisk.Op{fakedisk.OpWrite, fakedisk.OpDatasync} {
		dir, in := newTestIntent(t)
		in.Mark(0, 1)
		dir.Fail(op, 0, syscall.EIO)
		for range 2 {
			if err := in.Flush(); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Errorf("Flush after a failed %s: %v", op, err)
			}
		}
		if !in.Need(0, 1) {
			t.Errorf("after a failed %s the region counts as durable", op)
		}
	}
}

// A flush with nothing to do touches no disk.
func TestIntentFlushOfNothing(t *testing.T) {
	dir, in := newTestIntent(t)
	in.Mark(0, 1)
	must(t, in.Flush())
	before := dir.Count(fakedisk.AnyOp)
	in.Mark(0, 1)
	must(t, in.Flush())
	if got := dir.Count(fakedisk.AnyOp) - before; got != 0 {
		t.Errorf("%d operations", got)
	}
}

func TestIntentDamagedPageIsAllMarked(t *testing.T) {
	dir, in := newTestIntent(t)
	in.Mark(0, 1)
	in.Mark(intentSize-1, 1)
	must(t, in.Flush())
	must(t, in.Close())
	alter(t, dir, headerPages+1, func(p []byte) { p[20] ^= 1 }, noSeal)
	in, err := OpenIntent(dir, name, intentSize, regionSize)
	must(t, err)
	if !slices.Equal(in.Damaged(), []int{1}) {
		t.Errorf("damaged %v", in.Damaged())
	}
	if got := slices.Collect(in.Regions()); len(got) != 101 || got[0] != 0 || got[1] != pageBits || got[100] != regions-1 {
		t.Errorf("%d regions are marked: %v", len(got), got)
	}
	must(t, in.Flush())
	must(t, in.Close())
	in, err = OpenIntent(dir, name, intentSize, regionSize)
	must(t, err)
	if got := slices.Collect(in.Regions()); in.Damaged() != nil || len(got) != 101 {
		t.Errorf("after Flush: damaged %v, %d regions", in.Damaged(), len(got))
	}
}

func TestIntentSizes(t *testing.T) {
	dir := fakedisk.New(seed)
	for _, test := range []struct{ size, region int64 }{
		{0, 0}, {-1, 0}, {MaxSize + 1, 0}, {1 << 30, -1}, {1 << 30, 4095}, {1 << 30, 4097}, {1 << 50, 4096},
	} {
		if _, err := CreateIntent(dir, name, test.size, test.region); err == nil {
			t.Errorf("a volume of %d bytes with regions of %d", test.size, test.region)
		}
	}
	in, err := CreateIntent(dir, name, 1<<40, 0)
	must(t, err)
	must(t, in.Close())
	if _, err := CreateIntent(dir, name, 1<<40, 0); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	in, err = OpenIntent(dir, name, 1<<40, 0)
	must(t, err)
	if in.RegionSize() != DefaultRegionSize {
		t.Errorf("regions of %d bytes", in.RegionSize())
	}
	in.Mark(math.MinInt64, math.MaxInt64)
	in.Mark(math.MaxInt64, math.MaxInt64)
	if got := slices.Collect(in.Regions()); got != nil {
		t.Errorf("outside of the volume %v are marked", got)
	}
	in.Mark(1<<40-1, math.MaxInt64)
	if got := slices.Collect(in.Regions()); !slices.Equal(got, []int{1<<16 - 1}) {
		t.Errorf("the last byte is in %v", got)
	}
	if _, err := OpenIntent(dir, name, 1<<40, regionSize); !errors.Is(err, ErrMismatch) {
		t.Errorf("another region size: %v", err)
	}
	if _, err := Open(dir, name, 1<<40); !errors.Is(err, ErrMismatch) {
		t.Errorf("as an out-of-sync bitmap: %v", err)
	}
}

func TestIntentConcurrently(t *testing.T) {
	dir, in := newTestIntent(t)
	var wg sync.WaitGroup
	for w := range int64(4) {
		wg.Go(func() {
			for i := range int64(200) {
				off := (i*4 + w) * regionSize // neighbours share words
				in.Mark(off, regionSize)
				if in.Need(off, regionSize) {
					if err := in.Flush(); err != nil {
						t.Errorf("Flush: %v", err)
					}
				}
				if in.Need(off, regionSize) {
					t.Errorf("region %d is in need after Flush", off/regionSize)
				}
			}
		})
	}
	wg.Wait()
	left, err := OpenIntent(dir.CrashClone(fakedisk.LoseAll), name, intentSize, regionSize)
	must(t, err)
	if got := len(slices.Collect(left.Regions())); got != 800 {
		t.Errorf("%d of 800 regions are marked", got)
	}
}

// A bitmap that is made for one that is lost marks everything from the first
// moment that it is there.
func TestMarkedIntent(t *testing.T) {
	dir := fakedisk.New(newRand(t).Uint64())
	dir.OnOp(func(fakedisk.Op, string) error {
		for _, keep := range []fakedisk.Policy{fakedisk.LoseAll, fakedisk.KeepAll, fakedisk.KeepSome(seed)} {
			in, err := OpenIntent(dir.CrashClone(keep), name, intentSize, 0)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			must(t, err)
			if got := len(slices.Collect(in.Regions())); got != regions {
				t.Fatalf("%d of %d regions are marked", got, regions)
			}
		}
		return nil
	})
	in, err := CreateMarkedIntent(dir, name, intentSize, regionSize)
	must(t, err)
	must(t, in.Flush())
	in.Mark(5*regionSize, 1)
	in.ClearIdle()
	dir.OnOp(nil)
	must(t, in.Flush())
	in, err = OpenIntent(dir.CrashClone(fakedisk.LoseAll), name, intentSize, 0)
	must(t, err)
	if got := slices.Collect(in.Regions()); !slices.Equal(got, []int{5}) {
		t.Errorf("regions %v", got)
	}
}
