package main

import (
	"slices"
	"strings"
	"testing"
)

// TestFlagsStandAnywhere: of every command that takes positional arguments, a
// flag after one, before it, and in front of the command mean the same.
func TestFlagsStandAnywhere(t *testing.T) {
	d := startDaemon(t)
	for _, tc := range []struct {
		command    string
		flags      []string
		positional []string
		want       string
	}{
		{"create", []string{"--size", "1GiB", "--peer", "beta=h:1", "--peer=gamma", "--no-write-cache", "--protocol", "B", "--on-io-error", "pass-on", "--min-in-sync", "2", "--on-no-quorum", "io-error"}, []string{"data"},
			`POST /v1/volumes {"name":"data","size":1073741824,"protocol":"B","noWriteCache":true,"peers":[{"name":"beta","address":"h:1"},{"name":"gamma"}],"onIOError":"pass-on","minInSync":2,"onNoQuorum":"io-error"}`},
		{"create", []string{"--size=10G", "--journal-size", "64MiB", "--store", "/x", "--wipe", "--json"}, []string{"data"},
			`POST /v1/volumes {"name":"data","size":10737418240,"journalSize":67108864,"store":"/x","wipe":true}`},
		{"create", []string{"--size=1G", "--journal", "/j", "--preallocate", "--direct"}, []string{"data"},
			`POST /v1/volumes {"name":"data","size":1073741824,"preallocate":true,"direct":true,"journal":"/j"}`},
		{"delete", []string{"--yes"}, []string{"data"}, "DELETE /v1/volumes/data"},
		{"delete", []string{"-y"}, []string{"data"}, "DELETE /v1/volumes/data"},
		{"status", []string{"--json"}, []string{"data"}, "GET /v1/status; GET /v1/volumes/data"},
		{"promote", []string{"--force", "--json"}, []string{"data"}, `POST /v1/volumes/data/promote {"force":true}`},
		{"promote", nil, []string{"data"}, `POST /v1/volumes/data/promote {"force":false}`},
		{"demote", []string{"--json"}, []string{"data"}, "POST /v1/volumes/data/demote"},
		{"connect", []string{"--json"}, []string{"data", "beta"}, `POST /v1/volumes/data/connect {"peer":"beta"}`},
		{"disconnect", []string{"--json"}, []string{"data", "beta"}, `POST /v1/volumes/data/disconnect {"peer":"beta"}`},
		{"disconnect", nil, []string{"data"}, `POST /v1/volumes/data/disconnect {}`},
	} {
		socket := []string{"--socket", d.socket}
		for _, line := range [][]string{
			slices.Concat(socket, []string{tc.command}, tc.flags, tc.positional),
			slices.Concat(socket, []string{tc.command}, tc.positional, tc.flags),
			slices.Concat([]string{tc.command}, tc.positional, tc.flags, socket),
			slices.Concat([]string{tc.command}, tc.positional[:1], tc.flags, socket, tc.positional[1:]),
			slices.Concat([]string{tc.command}, socket, tc.flags, []string{"--"}, tc.positional),
		} {
			status, _, errOut := lockstep(line...)
			if got := d.take(); status != 0 || got != tc.want {
				t.Errorf("lockstep %s\n status %d %s\n got  %s\n want %s", strings.Join(line, " "), status, errOut, got, tc.want)
			}
		}
	}
}

// TestNoWordIsIgnored: what a command does not know is refused, wherever it
// stands, before anything is asked.
func TestNoWordIsIgnored(t *testing.T) {
	d := startDaemon(t)
	t.Setenv(socketEnv, d.socket)
	for _, line := range []string{
		"bogus", "--bogus", "--socket", "status --bogus", "status data --bogus", "status data more", "status data --json more", "promote", "promote --force",
		"promote data --forec", "promote data more", "demote", "demote data --force", "delete", "delete data more --yes", "connect", "connect a b c",
		"disconnect", "version more", "version --bogus", "serve more", "serve data --config x", "serve --config",
		"create", "create data", "create data --size", "create data --size x", "create data --size 1GB", "create data more --size 1G",
		"create data --size 1G --protocol X", "create data --size 1G --on-io-error panic", "create data --size 1G --on-no-quorum x", "create data --size 1G --min-in-sync 0", "create data --size 1G --journal-size x",
	} {
		status, _, errOut := lockstep(strings.Fields(line)...)
		if status != exitUsage || !strings.HasPrefix(errOut, "lockstep: ") || !strings.Contains(errOut, "--help`.") {
			t.Errorf("lockstep %s: status %d: %s", line, status, errOut)
		}
		if got := d.take(); got != "" {
			t.Errorf("lockstep %s asked %s", line, got)
		}
	}
}
