package wire

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseText(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []Pair
		err  error
	}{
		{"", nil, nil},
		{"A=1\x00B=\x00", []Pair{{"A", "1"}, {"B", ""}}, nil},
		{"A=b=c\x00\x00\x00", []Pair{{"A", "b=c"}}, nil},
		{"A=1\x00A=2\x00", nil, ErrRepeated},
		{"A=1", nil, ErrText},
		{"A\x00", nil, ErrText},
		{"=1\x00", nil, ErrText},
		{"A b=1\x00", nil, ErrText},
		{"A=\x01\x00", nil, ErrText},
		{strings.Repeat("k", MaxKey) + "=\x00", []Pair{{strings.Repeat("k", MaxKey), ""}}, nil},
		{strings.Repeat("k", MaxKey+1) + "=\x00", nil, ErrText},
		{"A=" + strings.Repeat("v", MaxText) + "\x00", nil, ErrText},
	} {
		got, err := ParseText([]byte(tc.in))
		if !errors.Is(err, tc.err) || !slices.Equal(got, tc.want) {
			t.Errorf("%.40q: %v, %v", tc.in, got, err)
		}
	}
}

// The vectors of RFC 3720, appendix B.4.
func TestDigest(t *testing.T) {
	ones := bytes.Repeat([]byte{0xff}, 32)
	if got := PutDigest(nil, Digest(0, make([]byte, 32))); !bytes.Equal(got, []byte{0xaa, 0x36, 0x91, 0x8a}) {
		t.Errorf("32 zeroes: % x", got)
	}
	if got := PutDigest(nil, Digest(Digest(0, ones[:5]), ones[5:])); !bytes.Equal(got, []byte{0x43, 0xab, 0xa8, 0x62}) {
		t.Errorf("32 ones: % x", got)
	}
}

func TestLess(t *testing.T) {
	if !Less(0xffffffff, 0) || Less(0, 0xffffffff) || Less(5, 5) {
		t.Error("serial numbers do not wrap")
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.x\x00AuthMethod=None\x00"))
	f.Add([]byte("A=1\x00A=2\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := ParseText(b)
		if err != nil {
			return
		}
		var out []byte
		for _, p := range pairs {
			out = AppendText(out, p.Key, p.Value)
		}
		again, err := ParseText(out)
		if err != nil || !slices.Equal(again, pairs) {
			t.Fatalf("%q: %v, %v", b, again, err)
		}
	})
}
