package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/node"
)

func TestHelp(t *testing.T) {
	t.Setenv(socketEnv, "")
	var all strings.Builder
	lines := []string{"--help"}
	for _, c := range newApp(nil, nil, nil).Commands {
		lines = append(lines, c.Name+" --help")
		for _, sub := range c.Subcommands {
			lines = append(lines, c.Name+" "+sub.Name+" --help")
		}
	}
	for _, line := range lines {
		status, out, errOut := lockstep(strings.Fields(line)...)
		if status != exitOK || errOut != "" {
			t.Errorf("lockstep %s: status %d: %s", line, status, errOut)
		}
		if line != "--help" && !strings.Contains(out, "EXAMPLES:\n     lockstep "+strings.Fields(line)[0]) {
			t.Errorf("lockstep %s shows no example", line)
		}
		all.WriteString("$ lockstep " + line + "\n" + out + "\n")
	}
	golden(t, "help.txt", all.String())
	_, want, _ := lockstep("create", "--help")
	for _, line := range []string{"create data --help", "create -h data", "create data --size 1G -h", "help create"} {
		if status, out, errOut := lockstep(strings.Fields(line)...); status != exitOK || out != want {
			t.Errorf("lockstep %s: status %d: %s", line, status, errOut)
		}
	}
}

func TestUnknownCommandIsNamed(t *testing.T) {
	if status, _, errOut := lockstep("stats"); status != exitUsage || !strings.Contains(errOut, `unknown command "stats". Did you mean "status"?`) {
		t.Error(status, errOut)
	}
}

func TestVersion(t *testing.T) {
	status, out, _ := lockstep("version", "--json")
	var v map[string]string
	if err := json.Unmarshal([]byte(out), &v); status != exitOK || err != nil || v["version"] != "dev" || v["go"] == "" {
		t.Error(status, out, err)
	}
	if status, out, _ = lockstep("version"); status != exitOK || !strings.HasPrefix(out, "lockstep dev (go1.") {
		t.Error(status, out)
	}
}

func TestNoDaemon(t *testing.T) {
	socket := t.TempDir() + "/no.sock"
	status, _, errOut := lockstep("status", "--socket", socket)
	if status != exitFailure || !strings.HasPrefix(errOut, "lockstep: no daemon answers at "+socket+": start one") {
		t.Error(status, errOut)
	}
}

func TestUnsafePromotionShowsTheWayOn(t *testing.T) {
	d := startDaemon(t)
	d.refuse = &node.Error{Text: "no", Code: node.CodeUnsafe, Unknown: []string{`node "beta" is not connected: it may have gone on alone`}}
	status, out, errOut := lockstep("promote", "data", "--wait", "0s", "--socket", d.socket)
	want := `lockstep: volume "data" was not promoted, because it is not known to be safe:
  - node "beta" is not connected: it may have gone on alone
If no other node serves it, and losing what only they hold is acceptable, type:
  lockstep promote data --force --socket ` + d.socket + "\n"
	if status != exitFailure || out != "" || errOut != want {
		t.Errorf("status %d, got\n%swant\n%s", status, errOut, want)
	}
}

// TestPromotionWaitsForPeers: it is asked for again while it is not safe.
func TestPromotionWaitsForPeers(t *testing.T) {
	d := startDaemon(t)
	d.refuse, d.refusals = &node.Error{Text: "no", Code: node.CodeUnsafe}, 2
	status, out, errOut := lockstep("promote", "data", "--wait", "1h", "--socket", d.socket)
	if status != exitOK || strings.Count(d.take(), "promote") != 3 {
		t.Error(status, out, errOut)
	}
}

func TestRefusalsAreSentences(t *testing.T) {
	d := startDaemon(t)
	t.Setenv(socketEnv, d.socket)
	d.refuse = &node.Error{Text: "it rains", Code: node.CodeRefused}
	for _, line := range []string{"create x --size 1G", "delete x", "delete x --yes", "status", "promote x", "demote x", "connect x", "disconnect x"} {
		if status, _, errOut := lockstep(strings.Fields(line)...); status != exitFailure || errOut != "lockstep: it rains\n" {
			t.Errorf("lockstep %s: %d %q", line, status, errOut)
		}
	}
}

func TestDeleteAsks(t *testing.T) {
	d := startDaemon(t)
	t.Setenv(socketEnv, d.socket)
	for in, deleted := range map[string]bool{"data\n": true, "data": true, "": false, "yes\n": false, "Data\n": false} {
		status, out, _ := lockstepIn(in, "delete", "data")
		if got := strings.Contains(d.take(), "DELETE"); got != deleted || (status == exitOK) != deleted {
			t.Errorf("typing %q: deleted %v, status %d", in, got, status)
		}
		if !strings.HasPrefix(out, "This deletes node alpha's replica of volume data, 1.0 GiB, and its data. Type the volume's name") {
			t.Error(out)
		}
	}
}
