package node

import (
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "4096B": 4096, "64MiB": 64 << 20, "64 MiB": 64 << 20, "1k": 1024, "10G": 10 << 30, "1.5GiB": 3 << 29,
		"2t": 2 << 40, "1PiB": 1 << 50, "9223372036854775807": 1<<63 - 1,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "is no size", "-1": "is no size", "1e3": "is no size", "GiB": "is no size", "1.2.3G": "is no size", "4 apples": "is no size", ".": "is no size",
		"10GB": "write GiB", "8192P": "too large", "8192.5P": "too large", "9223372036854775808": "too large", "0.3": "whole number",
	} {
		if got, err := ParseSize(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v; want an error with %q", text, got, err, want)
		}
	}
}

func TestDurationText(t *testing.T) {
	var d Duration
	if err := d.UnmarshalText([]byte("1m30s")); err != nil || time.Duration(d) != 90*time.Second {
		t.Error(d, err)
	}
	if text, _ := d.MarshalText(); string(text) != "1m30s" {
		t.Errorf("%s", text)
	}
	for _, bad := range []string{"", "3", "-1s", "soon"} {
		if err := d.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "data", "Data-1.old_2", strings.Repeat("x", 64)} {
		if err := checkName("volume", good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".x", "-x", "a/b", "a b", "ä", "a\x00", strings.Repeat("x", 65)} {
		if checkName("volume", bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"listen", "allow-plaintext"}
	for got, want := range map[string]string{"listn": ` (did you mean "listen"?)`, "allow-plain": ` (did you mean "allow-plaintext"?)`, "zzzzzz": "", "": ""} {
		if s := didYouMean(got, known); s != want {
			t.Errorf("%q: %q, want %q", got, s, want)
		}
	}
}
