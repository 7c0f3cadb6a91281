package bitmap

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// Check says what Open finds, and changes nothing.
func TestCheckMap(t *testing.T) {
	whole := written(t)
	for name, test := range map[string]struct {
		damage  func(d *fakedisk.FS)
		worn    []int
		damaged []int
	}{
		"whole":             {func(*fakedisk.FS) {}, nil, nil},
		"first header":      {func(d *fakedisk.FS) { alter(t, d, 0, flipByte, noSeal) }, []int{0}, nil},
		"second header":     {func(d *fakedisk.FS) { alter(t, d, 1, flipByte, noSeal) }, []int{1}, nil},
		"a page of bits":    {func(d *fakedisk.FS) { alter(t, d, 2, flipByte, noSeal) }, nil, []int{0}},
		"the last, partial": {func(d *fakedisk.FS) { alter(t, d, 5, flipByte, noSeal) }, nil, []int{3}},
	} {
		d := whole.KillClone()
		test.damage(d)
		before := d.Count(fakedisk.AnyChange)
		r, err := CheckMap(d, "peer.bitmap", damageSize)
		must(t, err)
		if n := d.Count(fakedisk.AnyChange) - before; n != 0 {
			t.Errorf("%s: %d changes of the disk", name, n)
		}
		if !slices.Equal(r.Worn, test.worn) || !slices.Equal(r.Damaged, test.damaged) {
			t.Errorf("%s: worn %v, damaged %v", name, r.Worn, r.Damaged)
		}
		m, err := Open(d, "peer.bitmap", damageSize)
		must(t, err)
		if r.Set*r.Unit != m.Count() || r.Base != m.Base() || r.Bits != damageSize/BlockSize || !slices.Equal(r.Damaged, m.Damaged()) {
			t.Errorf("%s: check says %+v, open %d bytes, %v", name, r, m.Count(), m.Base())
		}
		must(t, m.Close())
	}
	d := whole.KillClone()
	alter(t, d, 0, flipByte, noSeal)
	alter(t, d, 1, flipByte, noSeal)
	if _, err := CheckMap(d, "peer.bitmap", damageSize); !errors.Is(err, ErrDamaged) {
		t.Errorf("both headers: %v", err)
	}
	for want, check := range map[error]func() error{
		fs.ErrNotExist: func() error { _, err := CheckMap(d, "none", damageSize); return err },
		ErrMismatch:    func() error { _, err := CheckIntent(whole, "peer.bitmap", damageSize); return err },
	} {
		if err := check(); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

func flipByte(p []byte) { p[100] ^= 4 }

func TestCheckIntent(t *testing.T) {
	d := fakedisk.New(seed)
	in, err := CreateIntent(d, "i", 100*DefaultRegionSize-5, 0)
	must(t, err)
	in.Mark(3*DefaultRegionSize, 1)
	in.Mark(100*DefaultRegionSize-6, 1)
	must(t, in.Flush())
	must(t, in.Close())
	r, err := CheckIntent(d, "i", 100*DefaultRegionSize-5)
	if err != nil || r.Bits != 100 || r.Set != 2 || r.Unit != DefaultRegionSize || r.Worn != nil || r.Damaged != nil {
		t.Errorf("%+v, %v", r, err)
	}
	m, err := CreateMarkedIntent(d, "m", 100*DefaultRegionSize-5, 0)
	must(t, err)
	must(t, m.Close())
	if r, err = CheckIntent(d, "m", 100*DefaultRegionSize-5); err != nil || r.Set != 100 {
		t.Errorf("%+v, %v", r, err)
	}
}
