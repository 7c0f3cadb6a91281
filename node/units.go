package node

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseSize reads a number of bytes: "4096", "64MiB", "1.5GiB", "10G". The
// units K, M, G, T, P are powers of 1024, with or without "iB"; the decimal ones
// (kB, MB, GB ...) are refused, because a disk's size in them is rarely meant
// and never a whole number of blocks.
func ParseSize(s string) (int64, error) {
	text := strings.TrimSpace(s)
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToLower(strings.TrimSpace(text[len(digits):]))
	if len(unit) == 2 && unit[1] == 'b' {
		return 0, fmt.Errorf("size %q has a decimal unit: write %siB for powers of 1024", s, strings.ToUpper(unit[:1]))
	}
	shift, ok := map[string]uint{"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50,
		"kib": 10, "mib": 20, "gib": 30, "tib": 40, "pib": 50}[unit]
	if !ok || digits == "" || strings.Trim(digits, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is no size: write a number of bytes, or one with a unit such as 64MiB, 1GiB, 10G", s)
	}
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
		if n > math.MaxInt64>>shift {
			return 0, fmt.Errorf("size %q is too large", s)
		}
		return n << shift, nil
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no size: write a number of bytes, or one with a unit such as 64MiB, 1GiB, 10G", s)
	}
	if f *= float64(int64(1) << shift); f >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	if f != math.Trunc(f) {
		return 0, fmt.Errorf("size %q is no whole number of bytes", s)
	}
	return int64(f), nil
}

// Duration is a time.Duration that reads and writes itself as text ("3s").
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// ParseDuration reads a length of time, at least 0: "3s", "250ms", "1m30s".
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no length of time: write a number with a unit, such as 250ms, 3s, 1m", s)
	}
	return d, nil
}
