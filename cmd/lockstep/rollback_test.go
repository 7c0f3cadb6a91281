package main

import (
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/node"
)

// What a rollback would do is said before anything is done, and it is done once the
// volume's name was typed in, or with --yes.
func TestRollback(t *testing.T) {
	const ask, do = "GET /v1/volumes/data/rollback ", "; POST /v1/volumes/data/rollback null"
	for _, c := range []struct {
		in     string
		args   []string
		status int
		asked  string
		says   string
	}{
		{"", []string{"--dry-run"}, exitOK, ask, "are written back"},
		{"", []string{"--dry-run", "--json"}, exitOK, ask, `"restores": 0`},
		{"data\n", nil, exitOK, ask + do, "are written back"},
		{"", []string{"--yes"}, exitOK, ask + do, "UpToDate"},
		{"dat\n", nil, exitFailure, ask, "was not rolled back: its name was not typed in"},
	} {
		d := startDaemon(t)
		status, out, errOut := lockstepIn(c.in, append([]string{"rollback", "data", "--socket", d.socket}, c.args...)...)
		asked := strings.ReplaceAll(strings.TrimSpace(d.take()), " null", "")
		if want := strings.ReplaceAll(strings.TrimSpace(c.asked), " null", ""); status != c.status || strings.ReplaceAll(asked, " ;", ";") != strings.ReplaceAll(want, " ;", ";") {
			t.Errorf("%q: status %d, asked %q, want %d and %q", c.args, status, asked, c.status, want)
		}
		if !strings.Contains(out+errOut, c.says) {
			t.Errorf("%q does not say %q:\n%s%s", c.args, c.says, out, errOut)
		}
	}
	d := startDaemon(t)
	d.refuse = &node.Error{Text: "no resync is under way here", Code: node.CodeRefused}
	if status, _, errOut := lockstep("rollback", "data", "--yes", "--socket", d.socket); status == exitOK || !strings.Contains(errOut, "no resync is under way here") {
		t.Errorf("refused: status %d, %s", status, errOut)
	}
}
