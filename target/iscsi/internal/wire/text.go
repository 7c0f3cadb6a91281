package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// Limits of text (6.1), bytes.
const (
	MaxKey  = 63
	MaxText = 16 << 10 // of all keys of one request, over all its PDUs
)

// A Pair is a key and its value.
type Pair struct{ Key, Value string }

// Errors of ParseText.
var (
	ErrText     = errors.New("malformed text")
	ErrRepeated = errors.New("a key is repeated")
)

// ParseText reads key=value pairs, each ended by NUL.
func ParseText(b []byte) ([]Pair, error) {
	if len(b) > MaxText {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrText, len(b), MaxText)
	}
	var pairs []Pair
	seen := make(map[string]struct{})
	for len(b) > 0 {
		item, rest, ended := bytes.Cut(b, []byte{0})
		b = rest
		if len(item) == 0 && ended {
			continue // padding that was counted
		}
		key, value, ok := bytes.Cut(item, []byte{'='})
		switch {
		case !ended:
			return nil, fmt.Errorf("%w: the last pair has no end", ErrText)
		case !ok:
			return nil, fmt.Errorf("%w: a pair without '='", ErrText)
		case !validKey(key):
			return nil, fmt.Errorf("%w: a key of %d bytes that is none", ErrText, len(key))
		case !validValue(value):
			return nil, fmt.Errorf("%w: the value of %s is no text", ErrText, key)
		}
		if _, is := seen[string(key)]; is {
			return nil, fmt.Errorf("%w: %s", ErrRepeated, key)
		}
		seen[string(key)] = struct{}{}
		pairs = append(pairs, Pair{string(key), string(value)})
	}
	return pairs, nil
}

func validKey(k []byte) bool {
	if len(k) == 0 || len(k) > MaxKey {
		return false
	}
	for _, c := range k {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '-', c == '+', c == '@', c == '_', c == '#', c == '/':
		default:
			return false
		}
	}
	return true
}

func validValue(v []byte) bool {
	for _, c := range v {
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}

// AppendText writes one pair.
func AppendText(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}
