package main

import (
	"strings"
	"testing"
)

func TestResync(t *testing.T) {
	d := startDaemon(t)
	for _, tc := range []struct{ line, want string }{
		{"resync pause data", "POST /v1/volumes/data/resync/pause"},
		{"resync pause data --json", "POST /v1/volumes/data/resync/pause"},
		{"resync resume --json data", "POST /v1/volumes/data/resync/resume"},
	} {
		status, out, errOut := lockstep(append(strings.Fields(tc.line), "--socket", d.socket)...)
		if got := d.take(); status != exitOK || got != tc.want {
			t.Errorf("lockstep %s: status %d, asked %q: %s", tc.line, status, got, errOut)
		}
		if json := strings.Contains(tc.line, "--json"); json != strings.HasPrefix(out, "{") {
			t.Errorf("lockstep %s printed %q", tc.line, out)
		}
	}
	for _, line := range []string{"resync stop data", "resync pause", "resync resume data more"} {
		if status, _, _ := lockstep(strings.Fields(line)...); status != exitUsage {
			t.Errorf("lockstep %s: status %d", line, status)
		}
	}
}
