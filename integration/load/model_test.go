package load

import (
	"slices"
	"strings"
	"testing"
)

// device is a byte array that a test damages.
type device []byte

func (d device) read(p []byte, off int64) error { copy(p, d[off:]); return nil }

func (d device) put(ch change) {
	for i := range ch.count {
		Fill(d[(ch.first+i)*BlockSize:][:BlockSize], ch.first+i, ch.value)
	}
}

// A checker that finds nothing proves nothing: each row damages a volume in
// one way, and Verify must see it.
func TestVerifySeesEveryKindOfDamage(t *testing.T) {
	one, two := change{first: 4, count: 3, value: 1}, change{first: 4, count: 3, value: 2}
	tests := []struct {
		name   string
		damage func(m *Model, d device)
		want   string // "" for no complaint
	}{
		{"nothing", func(*Model, device) {}, ""},
		{"an acknowledged write is lost", func(m *Model, d device) { m.answered(two) }, "acknowledged, not flushed"},
		{"a flushed write is lost", func(m *Model, d device) { m.answered(two); m.flushedTo(m.flushing()) }, "acknowledged and flushed"},
		{"a FUA write is lost", func(m *Model, d device) { two := two; two.fua = true; m.answered(two) }, "acknowledged and flushed"},
		{"an unanswered write is not there", func(m *Model, d device) { m.lost(two) }, ""},
		{"an unanswered write is there", func(m *Model, d device) { m.lost(two); d.put(two) }, ""},
		{"the first half of an unanswered write is there", func(m *Model, d device) {
			m.lost(two)
			d.put(change{first: 4, count: 1, value: 2})
		}, "block 4 "},
		{"the second half of an unanswered write is there", func(m *Model, d device) {
			m.lost(two)
			d.put(change{first: 6, count: 1, value: 2})
		}, "block 6 "},
		{"half of an unanswered trim is there", func(m *Model, d device) {
			m.lost(change{first: 3, count: 3, value: 0})
			d.put(change{first: 3, count: 2, value: 0})
		}, "block 4 "},
		{"a write nobody made", func(m *Model, d device) { d.put(change{first: 9, count: 1, value: 7}) }, "block 9 "},
		{"a write in another place", func(m *Model, d device) {
			copy(d[9*BlockSize:], d[4*BlockSize:5*BlockSize])
		}, "what was written to block 4"},
		{"a torn block", func(m *Model, d device) { copy(d[4*BlockSize+512:][:512], d[5*BlockSize:]) }, "torn"},
		{"a flipped bit", func(m *Model, d device) { d[6*BlockSize-1] ^= 1 }, "torn"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, d := NewModel(16*BlockSize), make(device, 16*BlockSize)
			m.answered(one)
			d.put(one)
			tt.damage(m, d)
			err := m.Verify(d.read)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Verify complains: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Verify says %v, want something with %q", err, tt.want)
			}
		})
	}
}

// What Verify saw once must stay.
func TestVerifySettlesTheUnknown(t *testing.T) {
	m, d := NewModel(4*BlockSize), make(device, 4*BlockSize)
	ch := change{first: 1, count: 2, value: 1}
	m.lost(ch)
	before := slices.Clone(d)
	d.put(ch)
	if err := m.Verify(d.read); err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(before.read); err == nil {
		t.Error("a write was seen, then gone, and Verify says nothing")
	}
}
